"""A policy's VMM as a machine: states in which it may be interrupted, and what leads where.

Real code cannot be put into a state, but it can be run once more from the start, and always does
the same. So a state is known by one way that leads to it; a transition is made by running the whole
way and the event, and is made once, however many guests and interleavings pass there.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from pysharedpages.races.interrupted import state_of
from pysharedpages.races.policies import Policy
from pysharedpages.races.vmm import Action, Setup, TransportError, Verb, Vmm

__all__ = ["DIRTIED", "FAIL", "GO", "SHARED", "UNSHARED", "Event", "Machine"]

DIRTIED: Final = "dirtied"
SHARED: Final = "shared"
UNSHARED: Final = "unshared"


class Event(NamedTuple):
    """What happens to a VMM that is about to act: it acts, it fails to, or the guest did something.

    Of the guest it sees that a page got into KVM's dirty log, or was converted.
    """

    kind: str
    page: int = 0


GO: Final = Event("go")
FAIL: Final = Event("fail")


class _Interruption(BaseException):
    """The way ends here. Not an Exception, which a policy might take for its own."""


class Machine:
    """The states of one policy on guests with one setup, as far as they were asked for.

    With `merge` false two ways never lead to the same state: slow, to check the merging. One thread
    uses it.
    """

    def __init__(self, policy: Policy, setup: Setup, *, merge: bool = True) -> None:
        self._policy = policy
        self._setup = setup
        self._merge = merge
        self._numbers: dict[Hashable, int] = {}
        self._ways: list[tuple[Event, ...]] = []
        self._actions: list[Action] = []
        self._found: list[tuple[int, ...]] = []
        self._next: list[dict[Event, int]] = []
        self.start: Final = self._reached(())

    @property
    def states(self) -> int:
        """How many states are known."""
        return len(self._ways)

    def action(self, state: int) -> Action:
        """What the VMM is about to do."""
        return self._actions[state]

    def found(self, state: int) -> tuple[int, ...]:
        """The pages that it will find if it acts: dirty by a harvest, shared by a list."""
        return self._found[state]

    def after(self, state: int, event: Event) -> int:
        """The state that an event leads to."""
        known = self._next[state]
        if event not in known:
            known[event] = self._reached((*self._ways[state], event))
        return known[event]

    def _reached(self, way: tuple[Event, ...]) -> int:
        run = _Run(self._policy, self._setup, way)
        run.go(tell=self._merge)
        key = _digest((run.action, run.state)) if self._merge else way
        number = self._numbers.setdefault(key, len(self._ways))
        if number == len(self._ways):
            self._ways.append(way)
            self._actions.append(run.action)
            self._found.append(run.found)
            self._next.append({})
        return number


def _digest(state: Hashable) -> bytes:
    """A state takes some thousand bytes; these sixteen tell it from any other."""
    return blake2b(repr(state).encode(), digest_size=16).digest()


class _Run:
    """The real code, run along a way."""

    def __init__(self, policy: Policy, setup: Setup, way: Sequence[Event]) -> None:
        self.action: Action
        self.found: tuple[int, ...] = ()
        self.state: Hashable = None
        self._policy = policy
        self._events = iter(way)
        self._tell = False
        self._is_over = False
        self._vmm = Vmm(setup, self._at)

    def go(self, *, tell: bool) -> None:
        """Run to the end of the way; `tell` asks for the state there."""
        self._tell = tell
        self._bottom = sys._getframe()
        try:
            self._policy.drive(self._vmm)
        except _Interruption:
            return
        raise AssertionError(f"{self._policy.name} ended without the guest going on elsewhere")

    def _at(self, action: Action) -> None:
        # What the interruption unwinds may clean up, and meet the guest once more.
        if self._is_over:
            return
        self.action = action
        for event in self._events:
            if event == GO:
                return
            if event == FAIL:
                raise TransportError(f"{action.verb} of round {action.round}")
            self._guest(event)
        self.found = self._finds(action)
        if self._tell:
            self.state = state_of(self._vmm, sys._getframe(), self._bottom)
        self._is_over = True
        raise _Interruption

    def _finds(self, action: Action) -> tuple[int, ...]:
        if action.verb is Verb.HARVEST:
            return tuple(sorted(self._vmm.dirty))
        return tuple(self._vmm.pages.snapshot()) if action.verb is Verb.LIST else ()

    def _guest(self, event: Event) -> None:
        if event.kind == DIRTIED:
            self._vmm.dirty.add(event.page)
        elif event.kind == SHARED:
            self._vmm.pages.share(event.page)
        else:
            self._vmm.pages.unshare(event.page)
