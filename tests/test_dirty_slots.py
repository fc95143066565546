# tier: model
"""A dirty log whose guest gets other slots, against sets of gfns."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable

import numpy as np
import pytest
from model import bitmap, gfns, ranges, ring

from pysharedpages import DirtyLog, GuestMemory, Harvest, RangeError, SharedPages
from pysharedpages._core import Loan

Slot = tuple[int, int, int]
SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
SMM = 1 << 16
SPAN = 3000
"""Gfns below this are reported."""


def look(dirty: DirtyLog | Harvest) -> set[int]:
    """The pages of a log or a harvest."""
    private = SharedPages().snapshot().merge(dirty).private
    return {gfn for start, stop in private.tolist() for gfn in range(start, stop)}


def pages_of(slots: list[Slot]) -> set[int]:
    """The gfns that are memory."""
    return {page for _, gfn, npages in slots for page in range(gfn, gfn + npages)}


def test_a_new_slot_is_dirty() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100)]))
    log.add_pages(gfns(5))
    log.set_memory(GuestMemory([(0, 0, 100), (1, 200, 10)]))
    assert sorted(log.memory) == [(0, 0, 100), (1, 200, 10)]
    assert look(log) == {5, *range(200, 210)}


def test_pages_that_leave_the_memory_are_dropped() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100), (1, 100, 100)]))
    log.add_bitmap(1, bitmap(100, [3, 50]))
    log.add_bitmap(0, bitmap(100, [7]))
    log.add_pages(gfns(8, 120))
    log.add_ranges(ranges((90, 110), (500, 600)))
    log.set_memory(GuestMemory([(0, 0, 100)]))
    assert look(log) == {7, 8, *range(90, 100), *range(500, 600)}


@pytest.mark.parametrize(
    "slots",
    [[(0, 0, 90)], [(0, 10, 100)], [(1, 0, 100)], [(0, 0, 40), (1, 40, 60)]],
    ids=["shorter", "moved", "renumbered", "split"],
)
def test_a_slot_that_is_not_the_same_is_new(slots: list[Slot]) -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100)]))
    log.add_bitmap(0, bitmap(100, [3]))
    log.set_memory(GuestMemory(slots))
    assert look(log) == pages_of(slots)


def test_the_same_slots_change_nothing() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100), (1, 200, 10)]))
    log.add_bitmap(0, bitmap(100, [3]))
    log.set_memory(GuestMemory([(1, 200, 10), (0, 0, 100)]))
    assert look(log) == {3}


def test_pages_of_a_slot_that_is_gone_stay_where_another_slot_has_them() -> None:
    log = DirtyLog(GuestMemory([(0, 1003, 100), (SMM, 1000, 200)]))
    log.add_bitmap(SMM, bitmap(200, [0, 2, 3, 70, 102, 103, 199]))
    log.set_memory(GuestMemory([(0, 1003, 100)]))
    assert look(log) == {1003, 1070, 1102}


def test_a_loan_outlives_its_slot() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100), (1, 200, 100), (SMM, 200, 100)]))
    kept, gone = log.bitmap_buffer(0), log.bitmap_buffer(1)
    np.frombuffer(kept, np.uint8)[:] = bitmap(100, [3])  # type: ignore[call-overload]
    np.frombuffer(gone, np.uint8)[:] = bitmap(100, [4])  # type: ignore[call-overload]
    log.set_memory(GuestMemory([(0, 0, 100), (SMM, 200, 100)]))
    np.frombuffer(kept, np.uint8)[:] |= bitmap(100, [5])  # type: ignore[call-overload]
    np.frombuffer(gone, np.uint8)[:] = 0xFF  # type: ignore[call-overload]
    assert look(log) == {3, 5, 204}


def test_what_is_filled_while_the_slots_change_is_kept_where_it_is_memory() -> None:
    log = DirtyLog(GuestMemory([(0, 200, 100), (SMM, 150, 100)]))

    def fill(loan: Loan) -> None:
        log.set_memory(GuestMemory([(0, 200, 100)]))
        np.frombuffer(loan, np.uint8)[:] = bitmap(100, [3, 60])  # type: ignore[call-overload]

    log.fill_bitmap(SMM, fill)
    assert look(log) == {210}


def test_a_harvest_keeps_its_memory() -> None:
    before = GuestMemory([(0, 0, 100), (1, 200, 100)])
    log = DirtyLog(before)
    log.add_bitmap(1, bitmap(100, [3]))
    log.add_pages(gfns(7, 208, 400))
    harvest = log.take()
    log.set_memory(GuestMemory([(0, 0, 100), (5, 208, 92)]))
    assert harvest.memory is before
    assert look(harvest) == {7, 203, 208, 400}
    log.take().commit()
    harvest.abort()
    assert look(log) == {7, 208, 400}


def test_a_harvest_comes_back_before_the_change() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100), (1, 200, 100)]))
    log.add_pages(gfns(7, 208, 400))
    log.take().abort()
    log.set_memory(GuestMemory([(0, 0, 100)]))
    log.set_memory(GuestMemory([(0, 0, 100), (1, 400, 1)]))
    log.set_memory(GuestMemory([(0, 0, 100)]))
    assert look(log) == {7}


def test_a_guest_without_memory() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100)]))
    log.add_pages(gfns(7, 400))
    log.set_memory(GuestMemory([]))
    assert look(log) == {400}
    log.set_memory(GuestMemory([(0, 0, 2)]))
    assert look(log) == {0, 1, 400}


def test_what_is_converted_counts_by_the_memory_of_the_harvest() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100)]))
    pages = SharedPages()
    older = pages.snapshot()
    harvest = log.take()
    pages.share(90, 20)
    log.set_memory(GuestMemory([(0, 0, 200)]))
    assert pages.snapshot().merge(harvest, since=older).shared.tolist() == [[90, 100]]
    assert pages.snapshot().merge(log, since=older).shared.tolist() == [[90, 110]]


def test_a_slot_that_is_gone_is_refused() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 100), (1, 200, 100)]))
    log.set_memory(GuestMemory([(0, 0, 100)]))
    refused: list[Callable[[], object]] = [
        lambda: log.add_bitmap(1, bytes(16)),
        lambda: log.bitmap_buffer(1),
        lambda: log.add_ring(ring((1, 0))),
    ]
    for use in refused:
        with pytest.raises(RangeError, match="slot 1 "):
            use()
    with pytest.raises(TypeError):
        log.set_memory([(0, 0, 100)])  # type: ignore[arg-type]
    assert look(log) == set()


class Model:
    """A log as sets: what is in it, what its harvests hold and were memory when taken."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.slots = self.some_slots()
        self.log = DirtyLog(GuestMemory(self.slots))
        self.dirty: set[int] = set()
        self.held: list[tuple[Harvest, set[int], set[int]]] = []
        self.loans: list[tuple[Loan, Slot]] = []

    def some_slots(self) -> list[Slot]:
        """Up to eight slots of two address spaces; about half are those of before."""
        rng = self.rng
        slots = [slot for slot in getattr(self, "slots", []) if rng.random() < 0.6]
        for _ in range(rng.randrange(5)):
            number = rng.randrange(4) | rng.choice([0, SMM])
            start, npages = rng.randrange(SPAN - 500), rng.choice([1, 63, 64, 65, 130, 500])
            clashes = any(
                slot == number
                or (slot >> 16 == number >> 16 and gfn < start + npages and start < gfn + size)
                for slot, gfn, size in slots
            )
            if not clashes:
                slots.append((number, start, npages))
        rng.shuffle(slots)
        return slots

    def some(self, below: int) -> list[int]:
        """A few numbers below a bound, at its ends more often."""
        rng = self.rng
        return [rng.choice([0, below - 1, rng.randrange(below)]) for _ in range(rng.randrange(5))]

    def add(self) -> None:
        """Report something, one way or the other."""
        rng, log = self.rng, self.log
        how = rng.randrange(5) if self.slots else rng.randrange(2)
        if how == 0:
            pages = self.some(SPAN)
            log.add_pages(gfns(*pages))
            self.dirty |= set(pages)
            return
        if how == 1:
            spans = [(start, start + rng.choice([0, 1, 70, 5000])) for start in self.some(SPAN)]
            log.add_ranges(ranges(*spans))
            self.dirty |= {page for span in spans for page in range(*span)}
            return
        slot, gfn, npages = rng.choice(self.slots)
        pages = self.some(npages)
        if how == 2:
            log.add_bitmap(slot, bitmap(npages, pages))
        elif how == 3:
            log.add_ring(ring(*[(slot, page) for page in pages]))
        else:
            loan = log.bitmap_buffer(slot)
            np.frombuffer(loan, np.uint8)[:] = bitmap(npages, pages)  # type: ignore[call-overload]
            if rng.random() < 0.7:
                self.loans.append((loan, (slot, gfn, npages)))
        self.dirty |= {gfn + page for page in pages}

    def change(self) -> None:
        """Other slots: pages of slots that were not there, and none that are memory no more."""
        before, old = self.slots, pages_of(self.slots)
        self.slots = self.some_slots()
        now = pages_of(self.slots)
        self.log.set_memory(GuestMemory(self.slots))
        self.dirty = self.dirty - (old - now)
        self.dirty |= pages_of([slot for slot in self.slots if slot not in before])
        for loan, slot in self.loans:
            words = np.frombuffer(loan, np.uint8)  # type: ignore[call-overload]
            if slot not in self.slots:
                words[:] = 0xFF  # nobody looks any more
            elif slot[2] > 5:
                words[0] |= 1 << 5
                self.dirty.add(slot[1] + 5)
        self.loans = [each for each in self.loans if each[1] in self.slots]

    def take(self) -> None:
        """Take what there is; what is written to a loan from then on is not seen."""
        harvest = self.log.take()
        assert look(harvest) == self.dirty
        assert sorted(harvest.memory) == sorted(self.slots)
        self.held.append((harvest, self.dirty, pages_of(self.slots)))
        self.dirty = set()
        self.loans = []

    def end(self) -> None:
        """Commit or abort one that was taken, under whatever memory."""
        if not self.held:
            return
        harvest, pages, memory = self.held.pop(self.rng.randrange(len(self.held)))
        assert look(harvest) == pages
        if self.rng.random() < 0.3:
            harvest.commit()
        else:
            harvest.abort()
            self.dirty = self.dirty | (pages - (memory - pages_of(self.slots)))


@pytest.mark.parametrize("seed", range(int(60 * SCALE)))
def test_logs_and_sets_agree(seed: int) -> None:
    model = Model(random.Random(SEED * 10007 + seed))
    steps = [model.add, model.add, model.add, model.change, model.take, model.end]
    for _ in range(40):
        model.rng.choice(steps)()
        if model.rng.random() < 0.3:
            assert look(model.log) == model.dirty
            model.loans = []
    model.take()


def test_reports_race_with_slots_that_come_and_go() -> None:
    """Each report is refused or is in; nothing of what never left the memory is lost."""
    steady, fickle = (0, 0, 10_000), (1, 20_000, 640)
    with_it, without = GuestMemory([steady, fickle]), GuestMemory([steady])
    log = DirtyLog(without)
    reporters = 3
    going = threading.Event()
    refused = [0] * reporters
    failures: list[BaseException] = []

    def report_fickle(number: int) -> None:
        for use in (
            lambda: log.add_bitmap(1, bitmap(640, [3])),
            lambda: log.add_ring(ring((1, 5))),
            lambda: log.bitmap_buffer(1),
        ):
            try:
                use()
            except RangeError:
                refused[number] += 1

    def report(number: int) -> None:
        try:
            going.wait()
            for page in range(number, 3000, reporters):
                log.add_pages(gfns(page))
                log.add_ring(ring((0, 3000 + page)))
                log.add_bitmap(0, bitmap(10_000, [6000 + page]))
                report_fickle(number)
            while not refused[number]:
                report_fickle(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=report, args=(number,)) for number in range(reporters)]
    for thread in threads:
        thread.start()
    going.set()
    arrived: set[int] = set()
    turn = 0
    while any(thread.is_alive() for thread in threads):
        log.set_memory((without, with_it)[turn % 2])
        harvest = log.take()
        if turn % 3:
            arrived |= look(harvest)
            harvest.commit()
        else:
            harvest.abort()
        turn += 1
    for thread in threads:
        thread.join()
    assert not failures
    assert all(refused)
    arrived |= look(log)
    assert {page for page in arrived if page < 10_000} == set(range(9000))
    assert {page for page in arrived if page >= 10_000} <= set(range(20_000, 20_640))
