"""The order of things: four VMMs that could have been written, and `Migration`.

All are made of the same tracker, sets and log. The first pass sends all of RAM (R0), and a round
that failed gives its harvest back and keeps the older list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from pysharedpages._core import PageSet, Snapshot, Transfer
from pysharedpages.dirty import Harvest
from pysharedpages.errors import RangeError
from pysharedpages.migration import Migration, Round
from pysharedpages.races.scenario import PRESERVED, REWRITTEN
from pysharedpages.races.vmm import TransportError, Vmm

__all__ = ["POLICIES", "Policy", "migrating", "policy_of"]


@dataclass(frozen=True)
class Policy:
    """A way to migrate.

    `drive` does one migration, from the first round to `Vmm.resume`, and the same each time. What
    it remembers lies in variables while `Vmm` has it: two ways that differ only in the generator
    that a loop runs over, or in the operands of an unfinished expression, count as one.
    `corrupted_by` says for a byte model how many steps a guest on one page needs to lose it; a
    model that is missing is safe.
    """

    name: str
    summary: str
    drive: Callable[[Vmm], None]
    corrupted_by: tuple[tuple[str, int], ...] = ()


class _Rounds(ABC):
    """Rounds in the order of a subclass."""

    harvest: Harvest
    listed: Snapshot

    def __init__(self, vmm: Vmm) -> None:
        self.vmm = vmm
        self.previous = vmm.tracker.snapshot()
        vmm.log.add_ranges(vmm.log.memory.pages().ranges())

    def run(self) -> None:
        while self.vmm.next_round():
            self.live()
            self.transfer()
        self.last()
        while not self.transfer():
            self.collect()
        self.vmm.resume(self.previous)

    @abstractmethod
    def live(self) -> None:
        """Harvest and list with the guest running."""

    @abstractmethod
    def last(self) -> None:
        """Stop the guest; harvest and list."""

    def merge(self) -> Transfer:
        """What to send."""
        return self.listed.merge(self.harvest)

    def look(self) -> None:
        self.listed = self.vmm.tracker.snapshot()

    def collect(self) -> None:
        self.vmm.source.collect(self.vmm.log)
        self.harvest = self.vmm.log.take()

    def transfer(self) -> bool:
        """Send; whether all of it arrived."""
        transfer = self.merge()
        with suppress(TransportError), self.harvest:
            self.vmm.send(transfer.shared, transfer.private)
            self.previous = self.listed
            return True
        return False


class _ListThenDirty(_Rounds):
    def live(self) -> None:
        self.look()
        self.collect()

    def last(self) -> None:
        self.look()
        self.vmm.stop()
        self.collect()


class _ListThenDirtySince(_ListThenDirty):
    def last(self) -> None:
        self.vmm.stop()
        self.look()
        self.collect()

    def merge(self) -> Transfer:
        return self.listed.merge(self.harvest, since=self.previous)


class _WithoutR4(_Rounds):
    def live(self) -> None:
        self.collect()
        self.look()

    def last(self) -> None:
        self.vmm.stop()
        self.live()


class _DirtyThenDiff(_WithoutR4):
    def merge(self) -> Transfer:
        dirty = super().merge()
        changed = (self.listed ^ self.previous) & self.harvest.memory.pages()
        to_send = PageSet.from_ranges(dirty.shared) | PageSet.from_ranges(dirty.private) | changed
        return self.listed.merge(to_send)


class _Migration(Protocol):
    """What is asked of a `Migration`, or of what is made to look like one."""

    @property
    def snapshot(self) -> Snapshot: ...

    def rounds(self, most: int | None = None) -> Iterable[Round]: ...

    def final(self) -> Iterable[Round]: ...


def migrating(vmm: Vmm, make: Callable[..., _Migration] = Migration) -> None:
    """Migrate by the rounds of a `Migration`, or of a subclass."""
    migration = make(vmm.tracker, vmm.log, [vmm.source], clock=float)
    while vmm.next_round():
        with suppress(TransportError):
            for each in migration.rounds(most=1):
                _send(vmm, each)
    vmm.stop()
    while not _finished(vmm, migration):
        pass
    vmm.resume(migration.snapshot)


def _finished(vmm: Vmm, migration: _Migration) -> bool:
    with suppress(TransportError):
        for each in migration.final():
            _send(vmm, each)
        return True
    return False


def _send(vmm: Vmm, each: Round) -> None:
    # Without the context manager a failed round is aborted as its generator is collected, where the
    # explorer cannot stand in between.
    with each:
        vmm.send(each.shared, each.private)


def _of(rounds: type[_Rounds]) -> Callable[[Vmm], None]:
    return lambda vmm: rounds(vmm).run()


POLICIES: Final = {
    policy.name: policy
    for policy in (
        Policy(
            "list-then-dirty",
            "L, D, nothing since; the last L before the stop",
            _of(_ListThenDirty),
            ((PRESERVED, 1), (REWRITTEN, 1)),
        ),
        Policy(
            "list-then-dirty-since",
            "L, D, converted_since; the last L after the stop",
            _of(_ListThenDirtySince),
        ),
        Policy("without-r4", "D, L, nothing since", _of(_WithoutR4), ((REWRITTEN, 1),)),
        Policy(
            "dirty-then-diff", "D, L, and L ^ previous L", _of(_DirtyThenDiff), ((REWRITTEN, 2),)
        ),
        Policy("pysharedpages", "D, L, converted_since: `Migration` itself", migrating),
    )
}
"""By name, in the order of the table."""


def policy_of(policy: str | Policy) -> Policy:
    """A policy by its name; one of your own is itself. Raises RangeError for a name of none."""
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise RangeError(f"no policy {policy!r}: there are {', '.join(POLICIES)}")
    return POLICIES[policy]
