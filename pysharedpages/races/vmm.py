"""What a policy is given: a real tracker and a real log, with the guest able to run at each step.

A policy is straight-line code. Before each thing it does that meets the guest - it harvests, lists,
sends a page, commits, stops the guest, lets it go on elsewhere - it says so through `Vmm.at`, and
there the guest takes as many steps as the explorer wants.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet, SharedPages, Snapshot
from pysharedpages.dirty import DirtyLog, GuestMemory

__all__ = ["MAY_FAIL", "Action", "Setup", "TransportError", "Verb", "Vmm"]


class TransportError(Exception):
    """The connection to the destination failed: a page, or the commit, did not arrive."""


class Verb(StrEnum):
    """What the VMM does: D, L, X, and the ends of a round and of the migration."""

    HARVEST = "harvest"
    LIST = "list"
    SEND = "send"
    COMMIT = "commit"
    STOP = "stop"
    RESUME = "resume"


MAY_FAIL: Final = (Verb.SEND, Verb.COMMIT)
"""What the transport does."""


class Action(NamedTuple):
    """One thing that the VMM is about to do.

    `round` counts attempts from 1, 0 is the preparation. `page` and `shared` are of `SEND`: which
    page, and on which path. `listed` is of `RESUME`: the shared pages of the destination's list.
    """

    verb: Verb
    round: int
    page: int = 0
    shared: bool = False
    listed: tuple[int, ...] = ()


class Setup(NamedTuple):
    """What of a scenario the VMM can see before the guest runs."""

    npages: int
    shared: frozenset[int]
    mmio: frozenset[int]
    rounds: int


class Vmm:
    """The VMM of one run.

    `at` is told each action before it is done, and may raise TransportError where a page is sent or
    a round committed.
    """

    def __init__(self, setup: Setup, at: Callable[[Action], None]) -> None:
        self.pages = SharedPages(setup.npages)
        for page in sorted(setup.shared):
            self.pages.share(page)
        ram = [page for page in range(setup.npages) if page not in setup.mmio]
        self.log = DirtyLog(GuestMemory([(slot, page, 1) for slot, page in enumerate(ram)]))
        self.dirty: set[int] = set()
        self.round = 0
        self.tracker = HookedTracker(self)
        self.source = HookedSource(self)
        self._left = setup.rounds
        self._at = at

    def next_round(self) -> bool:
        """Begin an attempt at a round with the guest running, if there is one left."""
        self.round += 1
        self._left -= 1
        return self._left >= 0

    def send(self, shared: NDArray[np.uint64], private: NDArray[np.uint64]) -> None:
        """Send ranges page by page, plain and through the platform; then all has arrived."""
        for is_shared, ranges in ((True, shared), (False, private)):
            for page in PageSet.from_ranges(ranges):
                self.do(Verb.SEND, page, is_shared)
        self.do(Verb.COMMIT)

    def stop(self) -> None:
        """Stop the vCPUs."""
        self.do(Verb.STOP)

    def resume(self, listed: PageSet) -> None:
        """Give the destination its list, and let the guest go on there."""
        there = SharedPages(self.pages.npages)
        there.set_list(listed.ranges())
        self._at(Action(Verb.RESUME, self.round, listed=tuple(there.snapshot())))

    def do(self, verb: Verb, page: int = 0, shared: bool = False) -> None:
        """Let the guest run, and then do something."""
        self._at(Action(verb, self.round, page, shared))


class HookedTracker:
    """The tracker, with the guest able to run before the list is read."""

    def __init__(self, vmm: Vmm) -> None:
        self._vmm = vmm

    @property
    def migration_allowed(self) -> bool | None:
        """As the tracker has it."""
        return self._vmm.pages.migration_allowed

    def snapshot(self) -> Snapshot:
        """The list, L."""
        self._vmm.do(Verb.LIST)
        return self._vmm.pages.snapshot()


class HookedSource:
    """A dirty log of KVM's, with the guest able to run before it is harvested."""

    complete = False

    def __init__(self, vmm: Vmm) -> None:
        self._vmm = vmm

    def collect(self, log: DirtyLog, /) -> None:
        """The harvest, D."""
        self._vmm.do(Verb.HARVEST)
        if self._vmm.dirty:
            log.add_pages(sorted(self._vmm.dirty))
            self._vmm.dirty.clear()
