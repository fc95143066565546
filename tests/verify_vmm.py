"""A small VMM with switches for its faults, which tells two journals and a history what it does.

Not a test. The guest runs between any two of the VMM's steps, and while pages travel.
"""

from __future__ import annotations

from random import Random
from typing import Final, TypeAlias

from model import from_set
from verify_model import PRIVATE, SHARED, Guest, History

from pysharedpages import GuestMemory, PageSet, SharedPages, Snapshot
from pysharedpages.verify import Journal, Pass

MEMORY: Final = GuestMemory([(0, 0, 40), (1, 64, 24)])
RAM: Final = set(MEMORY.pages())
MMIO: Final = set(range(44, 60))

FAULTS: Final = (
    "skips a page",
    "mistakes a path",
    "forgets conversions",
    "forgets those in flight",
    "drops a round",
    "loses a failed harvest",
    "lists too early",
    "lists, then harvests",
    "sends mmio",
    "sends what is dirty only",
)


class TransportError(Exception):
    """Some of a pass may not have arrived."""


class Vmm:
    """Migrates one random guest, with one fault or none."""

    def __init__(self, rng: Random, fault: str | None) -> None:
        self.rng = rng
        self.fault = fault
        self.guest = Guest(RAM, MMIO)
        self.tracker = SharedPages()
        self.by_events = Journal(shared=())
        self.by_snapshots = Journal()
        self.history = History()
        self.destination: set[int] = set()
        self.injected: set[int] = set()
        self.sent_again: set[int] = set()
        self.is_running = True
        self.previous = self.tracker.snapshot()
        self._held: set[int] = set()

    def migrate(self) -> None:
        """All of it: boot, passes with the guest running, the last ones with it stopped."""
        self.run(60)
        if self.fault != "sends what is dirty only":
            self._held |= RAM
        else:
            self.guest.harvest()
        self.previous = self.tracker.snapshot()
        for number in range(self.rng.randrange(2, 7)):
            self.attempt(is_faulty=number == 1)
        early = self._list() if self.fault == "lists too early" else None
        self.run(10)
        self.is_running = False
        if early is not None:
            self.attempt(early)
        else:
            while self.attempt():
                pass
        self.destination = set(self.previous)

    def run(self, most: int) -> None:
        """Up to `most` steps of the guest."""
        for _ in range(self.rng.randrange(most) if self.is_running else 0):
            do, page = self.guest.pick(self.rng)
            if do == "write":
                self.guest.write(page)
                continue
            event = self.guest.convert(page)
            self.history.converted([event])
            self.by_events.converted([event])
            self.tracker.convert(*event)
            if self.rng.random() < 0.7 and page in RAM:
                self.guest.write(page)

    def attempt(self, early: Listed | None = None, *, is_faulty: bool = False) -> int:
        """One pass, given up if the transport fails; how many pages it was to send."""
        is_late = early is not None or self.fault == "lists, then harvests"
        dirty = set() if is_late else self._harvest()
        self.run(5)
        snapshot, passes = early or self._list()
        self.run(5)
        if is_late:
            dirty = self._harvest()
        passes.harvested(dirty)
        work = self._work(snapshot, dirty, is_faulty)
        if self.fault == "drops a round" and is_faulty:
            passes.end(False)
            self.previous, self.injected = snapshot, dirty
            return len(work)
        try:
            self._send(work, passes)
        except TransportError:
            passes.end(False)
            if self.fault == "loses a failed harvest":
                self.injected |= dirty
                self.sent_again -= dirty
            else:
                self._held |= dirty
        else:
            passes.end(True)
            in_flight = self.fault != "forgets those in flight"
            self.previous = snapshot if in_flight else self.tracker.snapshot()
        if is_faulty:
            self.sent_again.clear()
        return len(work)

    def _list(self) -> Listed:
        """Reads the list, and begins the pass that goes by it."""
        snapshot = self.tracker.snapshot()
        return snapshot, Passes(self, snapshot)

    def _harvest(self) -> set[int]:
        dirty, self._held = self.guest.harvest() | self._held, set()
        return dirty

    def _work(self, snapshot: Snapshot, dirty: set[int], is_faulty: bool) -> list[tuple[int, str]]:
        """What the pass sends, and how."""
        is_blind = self.fault in ("forgets conversions", "lists, then harvests")
        transfer = snapshot.merge(
            PageSet.from_pages(sorted(dirty)),
            since=None if is_blind else self.previous,
            memory=None if self.fault == "sends mmio" else MEMORY,
        )
        work = [
            (page, path)
            for path, table in ((SHARED, transfer.shared), (PRIVATE, transfer.private))
            for page in PageSet.from_ranges(table)
        ]
        self.rng.shuffle(work)
        if work and is_faulty and self.fault in ("skips a page", "mistakes a path"):
            page, path = work.pop()
            self.injected = {page}
            if self.fault == "mistakes a path":
                work.append((page, SHARED if path == PRIVATE else PRIVATE))
        return work

    def _send(self, work: list[tuple[int, str]], passes: Passes) -> None:
        fails_at = self.rng.randrange(4 * len(work) + 1)
        for number, (page, path) in enumerate(work):
            if number == fails_at:
                raise TransportError
            passes.sent(page, path)
            self.guest.send(page, path)
            if self.rng.random() < 0.2:
                self.run(3)


class Passes:
    """One pass in the two journals and the history."""

    def __init__(self, vmm: Vmm, snapshot: Snapshot) -> None:
        self._vmm = vmm
        self._journals: tuple[Pass, ...] = (
            vmm.by_events.begin(),
            vmm.by_snapshots.begin(snapshot),
        )
        self._record = vmm.history.begin()

    def harvested(self, dirty: set[int]) -> None:
        """What the pass took from the dirty log."""
        for journal in self._journals:
            journal.harvested(from_set(dirty))
        self._record.dirty |= dirty

    def sent(self, page: int, path: str) -> None:
        """One page goes out."""
        for journal in self._journals:
            journal.sent(**{path: [(page, page + 1)]})
        self._record.sent.append((page, path))

    def end(self, arrived: bool) -> None:
        """The pass arrived, or did not."""
        for journal in self._journals:
            (journal.commit if arrived else journal.abort)()
        self._record.arrived = arrived
        if arrived:
            self._vmm.sent_again |= {page for page, _ in self._record.sent}


Listed: TypeAlias = tuple[Snapshot, Passes]
