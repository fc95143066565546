# tier: model
"""A migration of 1 TiB with eight dirty sources on four threads: harvests are what was reported.

Each round's harvest, and who reported what of it, is compared page for page with the union of what
the sources' own records say; some rounds fail, and their pages come again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

import numpy as np
from model import DIRTY_GFN
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory, Harvest, PageSet, SharedPages
from pysharedpages._core import Loan
from pysharedpages.migration import Migration, Round

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
ROUNDS = int(30 * SCALE)
SOURCES, THREADS = 8, 4
GUEST = 1 << 28
"""Pages of 1 TiB, in slots that begin and end anywhere."""
SMALL = 70_001
MEMORY = GuestMemory(
    [(3, 0, 1000), (0, 4096, SMALL), (1, 100_000, GUEST - 300_001), (2, GUEST - 200_000, 200_000)]
)

Pages = NDArray[np.uint64]
Ranges = NDArray[np.uint64]


def united(sets: Iterable[PageSet]) -> PageSet:
    """The union of page sets."""
    made = PageSet()
    for pages in sets:
        made |= pages
    return made


class Reporter:
    """A source of one kind, and the record of its reports: begun, and then done, one by one."""

    complete = True

    def __init__(self, number: int, log: DirtyLog) -> None:
        self.name = f"source {number}"
        self.log = log
        self.lock = threading.Lock()
        self.begun: list[Ranges | None] = []
        self.done = 0
        self.is_running = True
        self.rng = np.random.default_rng([SEED, number])
        kinds = [self.ring, self.ranges, self.pages, self.bitmap]
        self.prepare: Callable[[], tuple[PageSet, Callable[[], object]]] = kinds[number % 4]

    def report(self) -> None:
        """Report something, from any thread."""
        with self.lock:
            pages, send = self.prepare()
            self.begun.append(pages.ranges())
            send()
            self.done += 1

    def collect(self, log: DirtyLog) -> None:
        """Report as a source that is asked."""
        assert log is self.log
        if self.is_running:
            self.report()

    def between(self, first: int, stop: int) -> PageSet:
        """The pages of some reports that were not forgotten."""
        tables = [table for table in self.begun[first:stop] if table is not None]
        return PageSet.from_ranges(np.concatenate([np.empty((0, 2), np.uint64), *tables]))

    def forget(self, first: int, stop: int) -> None:
        """Let go of some reports' pages: a thousand rounds have many."""
        self.begun[first:stop] = [None] * (stop - first)

    def some(self, npages: int, count: int) -> Pages:
        """Random pages, some of them near one another."""
        centre = self.rng.integers(0, npages)
        near = (centre + self.rng.integers(0, 300, count)) % npages
        return np.concatenate([near, self.rng.integers(0, npages, count)]).astype(np.uint64)

    def ring(self) -> tuple[PageSet, Callable[[], object]]:
        """Entries of the largest slot."""
        entries = np.zeros(120, DIRTY_GFN)
        entries["flags"], entries["slot"] = 1, 1
        entries["offset"] = self.some(GUEST - 300_001, 60)
        pages = PageSet.from_pages(entries["offset"] + np.uint64(100_000))
        return pages, lambda: self.log.add_ring(entries, source=self.name)

    def ranges(self) -> tuple[PageSet, Callable[[], object]]:
        """Short and long ones, in holes too."""
        starts = self.some(GUEST - 40_000, 10)
        lengths = self.rng.choice([0, 1, 70, 4096, 4097, 30_000], 20).astype(np.uint64)
        table = np.stack([starts, starts + lengths], axis=1)
        return PageSet.from_ranges(table), lambda: self.log.add_ranges(table, source=self.name)

    def pages(self) -> tuple[PageSet, Callable[[], object]]:
        """Pages anywhere."""
        gfns = self.some(GUEST, 60)
        return PageSet.from_pages(gfns), lambda: self.log.add_pages(gfns, source=self.name)

    def bitmap(self) -> tuple[PageSet, Callable[[], object]]:
        """A bitmap of a small slot, copied or filled in place."""
        bits = np.zeros((SMALL + 63) // 64 * 64, np.uint8)
        bits[self.some(SMALL, 20)] = 1
        packed = np.packbits(bits, bitorder="little")
        pages = PageSet.from_bitmap(packed, first=4096, npages=SMALL)

        def fill(loan: Loan) -> None:
            np.frombuffer(loan, np.uint8)[:] = packed  # type: ignore[call-overload]

        if self.rng.random() < 0.5:
            return pages, lambda: self.log.add_bitmap(0, packed, source=self.name)
        return pages, lambda: self.log.fill_bitmap(0, fill, source=self.name)


class Total:
    """A union made now and then: of a large set and a few pages it costs as much as of two."""

    def __init__(self) -> None:
        self.tables: list[Ranges] = []

    def add(self, pages: PageSet) -> None:
        """Pages of one more round."""
        self.tables.append(pages.ranges())
        if len(self.tables) == 100:
            self.tables = [self.union().ranges()]

    def union(self) -> PageSet:
        """All pages."""
        return PageSet.from_ranges(np.concatenate([np.empty((0, 2), np.uint64), *self.tables]))


class Ledger:
    """What one source's part of each harvest must hold, and what it may.

    A report that was done before the log was taken from, and begun after the last time, is in; one
    that was begun before the log was taken from may be; and no other. What an aborted round held is
    in the next.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.done = self.begun = 0  # reports, when the log was taken from last
        self.last = PageSet()
        self.carried = PageSet()
        self.arrived = Total()
        self.reported = Total()

    def check(self, done: int, begun: int, got: PageSet) -> None:
        """A harvest, and how many reports were done before and begun after it was taken."""
        between = self.reporter.between
        either = between(self.done, min(self.begun, done)) - self.last
        assert self.carried | either | between(self.begun, done) <= got
        assert got <= self.carried | between(self.done, begun)
        self.reported.add(between(self.done, done))
        self.reporter.forget(self.done, done)
        self.done, self.begun, self.last = done, begun, got

    def settle(self, arrived: bool) -> None:
        """The round of that harvest has ended."""
        if arrived:
            self.arrived.add(self.last)
        self.carried = PageSet() if arrived else self.last


class Watched(Migration):
    """A migration that compares each harvest with the records when it has it."""

    ledgers: list[Ledger]

    def _collect(self) -> Harvest:
        for source in self._sources:
            source.collect(self._log)
        done = [ledger.reporter.done for ledger in self.ledgers]
        harvest = self._log.take()
        begun = [len(ledger.reporter.begun) for ledger in self.ledgers]
        reported = harvest.sources()
        for ledger, before, after in zip(self.ledgers, done, begun, strict=True):
            ledger.check(before, after, reported.get(ledger.reporter.name, PageSet()))
        assert reported.keys() <= {ledger.reporter.name for ledger in self.ledgers}
        return harvest


def sent(round_: Round) -> PageSet:
    """All that a round sends."""
    return PageSet.from_ranges(round_.shared) | PageSet.from_ranges(round_.private)


def run(migration: Watched, rng: np.random.Generator, pages: SharedPages) -> int:
    """Rounds, of which one in four fails; returns how many did."""
    failed = number = 0
    while number < ROUNDS:
        try:
            for round_ in migration.rounds(ROUNDS - number):
                number += 1
                harvested = united(ledger.last for ledger in migration.ledgers)
                assert sent(round_) == harvested | round_.transfer.converted
                pages.share(int(rng.integers(0, GUEST - 1000)), 1000)
                arrived = bool(rng.random() < 0.75)
                for ledger in migration.ledgers:
                    ledger.settle(arrived)
                if not arrived:
                    raise ConnectionError
        except ConnectionError:
            failed += 1
    return failed


def test_harvests_are_the_union_of_what_was_reported(rng: np.random.Generator) -> None:
    log = DirtyLog(MEMORY, provenance=True)
    pages = SharedPages(GUEST)
    reporters = [Reporter(number, log) for number in range(SOURCES)]
    migration = Watched(pages, log, reporters, threads=THREADS)
    migration.ledgers = [Ledger(reporter) for reporter in reporters]
    over = threading.Event()
    failures: list[BaseException] = []

    def feed(number: int) -> None:
        try:
            while not over.wait(0.001):
                reporters[number].report()
                reporters[number + THREADS].report()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=feed, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        failed = run(migration, rng, pages)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failures
    for reporter in reporters:
        reporter.is_running = False
    for round_ in migration.final():
        assert sent(round_) >= united(ledger.carried for ledger in migration.ledgers)
        for ledger in migration.ledgers:
            ledger.settle(True)
    assert 0 < failed < ROUNDS
    for ledger in migration.ledgers:
        reporter = ledger.reporter
        assert ledger.arrived.union() == ledger.reported.union()
        assert ledger.done == ledger.begun == reporter.done
        report = log.sources()[reporter.name]
        assert report.pages >= len(ledger.arrived.union()) > 0
        assert report.only is not None
