# tier: torture
"""Threads report to one dirty log while others take from it, commit, abort and change its slots.

Every page is reported once. So, of the harvests that were committed and of what is left, exactly
one has it, and nothing else is in any of them. Only what `fill_bitmap` wrote may be in two: it is
added once more if somebody took meanwhile.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from model import DIRTY_GFN
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory, Harvest, PageSet, SharedPages
from pysharedpages._core import Loan

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
REPORTERS = 4
TAKERS = 2
REPORTS = int(150 * SCALE)
PAGES = 64
"""Pages of a report."""
FIRST = 1000
NPAGES = REPORTERS * REPORTS * PAGES
STEADY = [(0, FIRST, NPAGES), (1, FIRST + NPAGES, 1000)]
ELSEWHERE = (5, 2**30, 2**20)
"""A slot that comes and goes; its pages are new each time, and not the threads'."""


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Let the interpreter change threads a hundred times as often as it would."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


def pages_of(dirty: DirtyLog | Harvest) -> PageSet:
    """The threads' pages of a log or harvest, which are all but those that come with a slot."""
    private = PageSet.from_ranges(SharedPages().snapshot().merge(dirty).private)
    start = ELSEWHERE[1]
    return private - PageSet.from_ranges([[start, start + ELSEWHERE[2]]])


class Torture:
    """A log, what its threads reported, and what arrived."""

    def __init__(self, provenance: bool) -> None:
        self.log = DirtyLog(GuestMemory(STEADY), provenance=provenance)
        self.provenance = provenance
        self.lock = threading.Lock()
        self.arrived = PageSet()
        self.filled = PageSet()
        self.by_name = {self.name(number): PageSet() for number in range(REPORTERS)}
        self.reporting = REPORTERS
        self.failures: list[BaseException] = []

    @staticmethod
    def name(number: int) -> str | None:
        """The last of the threads reports without one."""
        return f"source {number}" if number < REPORTERS - 1 else None

    def pages(self, number: int) -> NDArray[np.uint64]:
        """A reporter's pages: neighbours in a word belong to different ones."""
        table = np.arange(number, NPAGES, REPORTERS).astype(np.uint64) + np.uint64(FIRST)
        np.random.default_rng(SEED + number).shuffle(table)
        return table.reshape(REPORTS, PAGES)

    def report(self, number: int) -> None:
        """Report each page once, in one of the ways there are."""
        rng, log, name = random.Random(SEED * 31 + number), self.log, self.name(number)
        for gfns in self.pages(number):
            offsets = gfns - np.uint64(FIRST)
            how = rng.randrange(5)
            if how == 0:
                log.add_pages(gfns, source=name)
            elif how == 1:
                log.add_ranges(np.stack([gfns, gfns + np.uint64(1)], axis=1), source=name)
            elif how == 2:
                entries = np.zeros(PAGES, DIRTY_GFN)
                entries["flags"], entries["offset"] = 1, offsets
                log.add_ring(entries, source=name)
            elif how == 3:
                log.add_bitmap(0, self.bitmap(offsets), source=name)
            else:
                bits = self.bitmap(offsets)

                def fill(loan: Loan, bits: NDArray[np.uint8] = bits) -> None:
                    np.frombuffer(loan, np.uint8)[:] = bits  # type: ignore[call-overload]

                with self.lock:
                    self.filled |= PageSet.from_pages(gfns)
                log.fill_bitmap(0, fill, source=name)
        with self.lock:
            self.reporting -= 1

    @staticmethod
    def bitmap(offsets: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Bits of the first slot."""
        bits = np.zeros((NPAGES + 63) // 64 * 8, np.uint8)
        at, bit = offsets // np.uint64(8), (offsets % np.uint64(8)).astype(np.uint8)
        np.bitwise_or.at(bits, at.astype(np.int64), np.left_shift(np.uint8(1), bit))
        return bits

    def arrive(self, harvest: Harvest) -> None:
        """Commit a harvest, and note what it had."""
        pages = pages_of(harvest)
        sources = harvest.sources() if self.provenance else {}
        harvest.commit()
        with self.lock:
            assert self.arrived & pages <= self.filled
            self.arrived |= pages
            for name, reported in sources.items():
                if name in self.by_name:
                    self.by_name[name] |= reported

    def collect(self, number: int) -> None:
        """Take, and commit or abort, now or later; look; forget a harvest."""
        rng = random.Random(SEED * 37 + number)
        held: list[Harvest] = []
        while self.reporting > 0:
            step = rng.random()
            if step < 0.4:
                held.append(self.log.take())
            elif step < 0.5:
                pages_of(self.log)
            elif held:
                harvest = held.pop(rng.randrange(len(held)))
                if step < 0.75:
                    self.arrive(harvest)
                elif step < 0.95:
                    harvest.abort()
        for harvest in held:
            self.arrive(harvest)

    def change(self) -> None:
        """Slots come and go."""
        memories = [GuestMemory([*STEADY, ELSEWHERE]), GuestMemory(STEADY)]
        turn = 0
        while self.reporting > 0:
            self.log.set_memory(memories[turn % 2])
            turn += 1

    def run(self, targets: list[Callable[[], None]]) -> None:
        """Run every target in a thread of its own, released at once; raise what any raised."""
        gate = threading.Barrier(len(targets))

        def body(target: Callable[[], None]) -> None:
            gate.wait()
            try:
                target()
            except BaseException as error:
                self.failures.append(error)
                self.reporting = 0

        threads = [threading.Thread(target=body, args=(target,)) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]


@pytest.mark.parametrize("slots", ["steady", "that come and go"])
@pytest.mark.parametrize("provenance", [False, True])
def test_every_page_arrives_once_or_is_left(provenance: bool, slots: str) -> None:
    torture = Torture(provenance)
    targets: list[Callable[[], None]] = [
        *(lambda number=number: torture.report(number) for number in range(REPORTERS)),
        *(lambda number=number: torture.collect(number) for number in range(TAKERS)),
    ]
    if slots != "steady":
        targets.append(torture.change)
    torture.run(targets)
    before = len(torture.arrived)
    torture.arrive(torture.log.take())
    assert torture.arrived == PageSet.from_ranges([[FIRST, FIRST + NPAGES]])
    assert before > 0
    counts = {
        torture.name(number): PageSet.from_pages(torture.pages(number).reshape(-1))
        for number in range(REPORTERS)
    }
    reports = torture.log.sources()
    assert {name: reports[name].pages for name in counts if name is not None} == {
        name: REPORTS * PAGES for name in counts if name is not None
    }
    if provenance:
        elsewhere = PageSet.from_ranges([[ELSEWHERE[1], ELSEWHERE[1] + ELSEWHERE[2]]])
        torture.by_name[None] -= elsewhere
        assert torture.by_name == counts
        for name in counts:
            if name is not None:
                only = reports[name].only
                assert only is not None
                again = only - REPORTS * PAGES
                assert 0 <= again <= TAKERS * len(torture.filled)
