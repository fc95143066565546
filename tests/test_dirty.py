# tier: unit
"""GuestMemory, DirtyLog and Harvest against values written by hand."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from model import GFN_LIMIT, bitmap, canonical, gfns, names, ranges, ring

from pysharedpages import (
    ClosedError,
    DirtyLog,
    FormatError,
    GuestMemory,
    Harvest,
    RangeError,
    SharedPages,
    Snapshot,
)

SLOTS = [(0, 100, 200), (1, 1000, 64), (7, 2**32 - 10, 20), (1 << 16, 100, 50)]
"""None begins at a multiple of 64; the last is slot 0 of address space 1, over the first's gfns."""


@pytest.fixture
def memory() -> GuestMemory:
    """The four slots."""
    return GuestMemory(SLOTS)


@pytest.fixture
def log(memory: GuestMemory) -> DirtyLog:
    """An empty log of the four slots."""
    return DirtyLog(memory)


@pytest.fixture
def private() -> Snapshot:
    """A snapshot in which nothing is shared: a merge shows what is dirty as private pages."""
    return SharedPages().snapshot()


Dirty = list[tuple[int, int]]


@pytest.fixture
def look(private: Snapshot) -> Callable[[DirtyLog | Harvest], Dirty]:
    """What a log or a harvest holds, as ranges."""
    return lambda dirty: canonical(private.merge(dirty).private)


Look = Callable[[DirtyLog | Harvest], Dirty]


def test_slots(memory: GuestMemory) -> None:
    assert sorted(memory) == sorted(SLOTS)
    assert memory.to_gfn(0, 0) == 100
    assert memory.to_gfn(0, 199) == 299
    assert memory.to_gfn(1, 63) == 1063
    assert memory.to_gfn(7, 10) == 2**32
    assert memory.to_gfn(1 << 16, 49) == 149


def test_npages() -> None:
    assert GuestMemory([(0, 0, 10), (1, 2**32, 2**31 - 1)]).npages == 10 + 2**31 - 1
    assert GuestMemory([]).npages == 0


def test_slots_of_two_address_spaces_may_overlap() -> None:
    memory = GuestMemory([(5, 0, 100), (1 << 16 | 5, 0, 100), (2 << 16 | 5, 50, 100)])
    assert len(list(memory)) == 3


def test_slots_that_touch_do_not_overlap() -> None:
    assert GuestMemory([(0, 0, 100), (1, 100, 100)]).npages == 200


def test_a_new_log_is_empty(log: DirtyLog, look: Look) -> None:
    assert look(log) == []
    assert look(log.take()) == []


def test_add_bitmap_is_relative_to_the_slot(log: DirtyLog, look: Look) -> None:
    log.add_bitmap(0, bitmap(200, [0, 1, 5, 64, 199]))
    assert look(log) == [(100, 102), (105, 106), (164, 165), (299, 300)]


def test_add_bitmap_of_two_address_spaces(log: DirtyLog, look: Look) -> None:
    log.add_bitmap(1 << 16, bitmap(50, [0, 49]))
    log.add_bitmap(7, bitmap(20, [9, 10]))
    assert look(log) == [(100, 101), (149, 150), (2**32 - 1, 2**32 + 1)]


def test_bits_past_the_end_of_the_slot_are_ignored(log: DirtyLog, look: Look) -> None:
    log.add_bitmap(0, np.full(32, 0xFF, dtype=np.uint8))
    assert look(log) == [(100, 300)]
    log.add_bitmap(7, np.full(4096, 0xFF, dtype=np.uint8))
    assert look(log) == [(100, 300), (2**32 - 10, 2**32 + 10)]


def test_add_bitmap_from_a_first_page(log: DirtyLog, look: Look) -> None:
    log.add_bitmap(0, bitmap(136, [0, 135]), first_page=64)
    assert look(log) == [(164, 165), (299, 300)]
    log.add_bitmap(0, np.full(8, 0xFF, dtype=np.uint8), first_page=192)
    assert look(log) == [(164, 165), (292, 300)]


@pytest.mark.parametrize(
    "kind",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: np.frombuffer(data, np.uint64),
    ],
    ids=["bytes", "bytearray", "view", "uint8", "uint64"],
)
def test_add_bitmap_takes_any_buffer(
    log: DirtyLog, look: Look, kind: Callable[[bytes], bytes]
) -> None:
    log.add_bitmap(1, kind(bitmap(64, [3, 63]).tobytes()), source="vmm")
    assert look(log) == [(1003, 1004), (1063, 1064)]


def test_add_bitmap_takes_a_strided_array(log: DirtyLog, look: Look) -> None:
    log.add_bitmap(1, np.repeat(bitmap(64, [3, 63]), 2)[::2])
    assert look(log) == [(1003, 1004), (1063, 1064)]


def test_the_bitmap_is_copied(log: DirtyLog, look: Look) -> None:
    mine = bitmap(64, [3])
    log.add_bitmap(1, mine)
    mine[:] = 0xFF
    assert look(log) == [(1003, 1004)]


def test_add_ring(log: DirtyLog, look: Look) -> None:
    log.add_ring(ring((0, 5), (1, 0), (1 << 16, 5), (0, 5), (0, 4), (7, 19)))
    assert look(log) == [(104, 106), (1000, 1001), (2**32 + 9, 2**32 + 10)]
    log.add_ring(ring())
    log.add_ring(ring((0, 10), (0, 20), (0, 30))[::2])
    assert look(log) == [(104, 106), (110, 111), (130, 131), (1000, 1001), (2**32 + 9, 2**32 + 10)]


def test_add_ring_takes_bytes(log: DirtyLog, look: Look) -> None:
    log.add_ring(ring((0, 5), (1, 0)).tobytes())
    assert look(log) == [(105, 106), (1000, 1001)]


def test_add_ranges_and_pages(log: DirtyLog, look: Look) -> None:
    log.add_ranges(ranges((110, 120), (1000, 1001), (115, 125), (130, 130)))
    log.add_pages(gfns(125, 101, 101))
    assert look(log) == [(101, 102), (110, 126), (1000, 1001)]


def test_all_sources_are_united(log: DirtyLog, look: Look) -> None:
    log.add_bitmap(0, bitmap(200, [0]))
    log.add_bitmap(0, bitmap(200, [1]))
    log.add_ring(ring((0, 2)))
    log.add_ranges(ranges((103, 104)))
    log.add_pages(gfns(104))
    assert look(log.take()) == [(100, 105)]


def test_bitmap_buffer(log: DirtyLog, look: Look) -> None:
    lent = np.frombuffer(memoryview(log.bitmap_buffer(0)), dtype=np.uint8)
    assert lent.tobytes() == bytes(32)
    lent[:] = bitmap(200, [0, 199])
    lent[31] = 0xFF
    assert look(log.take()) == [(100, 101), (299, 300)]


def test_a_second_bitmap_buffer_keeps_the_first(log: DirtyLog, look: Look) -> None:
    np.frombuffer(memoryview(log.bitmap_buffer(0)), dtype=np.uint8)[:] = bitmap(200, [3])
    log.add_pages(gfns(150))
    np.frombuffer(memoryview(log.bitmap_buffer(0)), dtype=np.uint8)[:] = bitmap(200, [5])
    np.frombuffer(memoryview(log.bitmap_buffer(1)), dtype=np.uint8)[:] = bitmap(64, [5])
    assert look(log.take()) == [(103, 104), (105, 106), (150, 151), (1005, 1006)]


def test_a_bitmap_buffer_after_take_is_clear(log: DirtyLog, look: Look) -> None:
    np.frombuffer(memoryview(log.bitmap_buffer(0)), dtype=np.uint8)[:] = bitmap(200, [3])
    log.take().commit()
    assert np.frombuffer(memoryview(log.bitmap_buffer(0)), dtype=np.uint8).tobytes() == bytes(32)
    assert look(log.take()) == []


def test_looking_leaves_the_log(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101))
    assert look(log) == [(101, 102)]
    assert look(log) == [(101, 102)]
    assert look(log.take()) == [(101, 102)]


def test_take_empties_the_log(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101, 102))
    harvest = log.take()
    assert isinstance(harvest, Harvest)
    assert look(log) == []
    log.add_pages(gfns(105))
    assert look(harvest) == [(101, 103)]
    assert look(log) == [(105, 106)]


def test_commit_drops_the_pages(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101))
    log.take().commit()
    assert look(log) == []


def test_abort_puts_the_pages_back(log: DirtyLog, look: Look) -> None:
    log.add_bitmap(0, bitmap(200, [1, 2]))
    log.add_pages(gfns(1001))
    harvest = log.take()
    log.add_pages(gfns(102, 105))
    harvest.abort()
    assert look(log) == [(101, 103), (105, 106), (1001, 1002)]
    assert look(log.take()) == [(101, 103), (105, 106), (1001, 1002)]


def test_a_forgotten_harvest_comes_back(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101))
    log.take()
    assert look(log) == [(101, 102)]


def test_a_copied_harvest_ends_once(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101))
    harvest = log.take()
    twin = copy.copy(harvest)
    twin.abort()
    with pytest.raises(ClosedError):
        harvest.abort()
    assert look(log) == [(101, 102)]
    assert look(log.take()) == [(101, 102)]


def test_an_interrupted_take_loses_nothing(log: DirtyLog, look: Look) -> None:
    class InterruptError(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise InterruptError

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for _ in range(300):
            log.add_pages(gfns(101))
            try:
                signal.setitimer(signal.ITIMER_REAL, 20e-6)
                while True:
                    log.take()
            except InterruptError:
                interrupted += 1
            assert look(log) == [(101, 102)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 300


def test_two_harvests_at_once(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101))
    first = log.take()
    log.add_pages(gfns(101, 102))
    second = log.take()
    first.commit()
    second.abort()
    assert look(log) == [(101, 103)]


def test_leaving_the_body_commits(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101))
    with log.take() as harvest:
        assert look(harvest) == [(101, 102)]
    assert look(log) == []


def test_an_exception_in_the_body_aborts(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101))
    with pytest.raises(OSError, match="cable"), log.take():
        raise OSError("cable")
    assert look(log) == [(101, 102)]


def test_an_abort_in_the_body_stands(log: DirtyLog, look: Look) -> None:
    log.add_pages(gfns(101))
    with log.take() as harvest:
        harvest.abort()
    assert look(log) == [(101, 102)]


@pytest.mark.parametrize("end", [Harvest.commit, Harvest.abort])
def test_a_finished_harvest_cannot_be_merged(
    log: DirtyLog, private: Snapshot, end: Callable[[Harvest], None]
) -> None:
    log.add_pages(gfns(101))
    harvest = log.take()
    end(harvest)
    with pytest.raises(ClosedError):
        private.merge(harvest)


def test_a_harvest_outlives_the_name_of_its_log(memory: GuestMemory, look: Look) -> None:
    log = DirtyLog(memory)
    log.add_pages(gfns(101))
    harvest = log.take()
    del log
    assert look(harvest) == [(101, 102)]


def test_logs_of_one_memory_are_apart(memory: GuestMemory, look: Look) -> None:
    one, other = DirtyLog(memory), DirtyLog(memory)
    one.add_pages(gfns(101))
    assert look(one) == [(101, 102)]
    assert look(other) == []


def test_a_slot_of_the_greatest_size(look: Look) -> None:
    log = DirtyLog(GuestMemory([(0, 2**32, 2**31 - 1)]))
    log.add_ring(ring((0, 0), (0, 2**31 - 2)))
    log.add_ranges(ranges((2**32 + 5, 2**32 + 2**31 - 3)))
    last = 2**32 + 2**31 - 2
    assert look(log) == [(2**32, 2**32 + 1), (2**32 + 5, last - 1), (last, last + 1)]


@pytest.mark.parametrize(
    ("slots", "values"),
    [
        ([(0, 0, 2**31)], {2**31}),
        ([(0, GFN_LIMIT - 1, 2)], {GFN_LIMIT - 1, GFN_LIMIT + 1}),
        ([(0, GFN_LIMIT, 1)], {GFN_LIMIT, GFN_LIMIT + 1}),
        ([(0, 2**64, 1)], {2**64}),
        ([(0, -1, 1)], {-1}),
        ([(0, 1, -1)], {-1}),
        ([(-1, 0, 1)], {-1}),
        ([(2**32, 0, 1)], {2**32}),
        ([(0, 0, 10), (1, 9, 10)], {0, 1, 9}),
        ([(0, 50, 10), (1, 40, 30)], {0, 1, 40}),
        ([(1 << 16, 0, 10), (1 << 16 | 1, 9, 10)], {1 << 16, 1 << 16 | 1, 9}),
        ([(4, 0, 10), (4, 20, 10)], {4}),
    ],
    ids=str,
)
def test_memories_that_cannot_be(slots: list[tuple[int, int, int]], values: set[int]) -> None:
    with pytest.raises(ValueError) as raised:
        GuestMemory(slots)
    names(raised.value, values)


@pytest.mark.parametrize("slots", [None, 5, [1], [(0, 1.5, 1)], [("0", 0, 1)]], ids=repr)
def test_memories_of_other_types(slots: Any) -> None:
    with pytest.raises(TypeError):
        GuestMemory(slots)
    with pytest.raises(TypeError):
        DirtyLog(slots)


@pytest.fixture
def used(log: DirtyLog, look: Look) -> Iterator[DirtyLog]:
    """A log that holds something, and must hold just that when the test ends."""
    log.add_ring(ring((0, 1), (0, 2), (1, 63)))
    yield log
    assert look(log) == [(101, 103), (1063, 1064)]


@pytest.mark.parametrize("slot", [2, 0xFFFF, 1 << 16 | 1, 2 << 16, 2**32 - 1])
@pytest.mark.parametrize(
    "use",
    [
        lambda log, slot: log.add_bitmap(slot, bitmap(64, [0])),
        lambda log, slot: log.add_ring(ring((0, 5), (slot, 5), (0, 6))),
        lambda log, slot: log.bitmap_buffer(slot),
        lambda log, slot: GuestMemory(SLOTS).to_gfn(slot, 0),
    ],
    ids=["add_bitmap", "add_ring", "bitmap_buffer", "to_gfn"],
)
def test_unknown_slots(used: DirtyLog, use: Callable[[DirtyLog, int], object], slot: int) -> None:
    with pytest.raises((RangeError, FormatError)) as raised:
        use(used, slot)
    names(raised.value, {slot, slot & 0xFFFF})


@pytest.mark.parametrize("slot", [-1, 2**32, 2**64, -(2**64)])
def test_slots_out_of_bounds(used: DirtyLog, slot: int) -> None:
    for use in (lambda: used.add_bitmap(slot, bytes(32)), lambda: used.bitmap_buffer(slot)):
        with pytest.raises((RangeError, FormatError)) as raised:
            use()
        names(raised.value, {slot})


@pytest.mark.parametrize("offset", [200, 2**31, 2**52, 2**63, 2**64 - 1])
def test_ring_offsets_past_the_slot(used: DirtyLog, offset: int) -> None:
    with pytest.raises((RangeError, FormatError)) as raised:
        used.add_ring(ring((0, 5), (1, 5), (0, offset), (0, 6)))
    names(raised.value, {offset}, {200, 199})


@pytest.mark.parametrize("offset", [200, 2**64, -1])
def test_offsets_past_the_slot(offset: int) -> None:
    with pytest.raises(RangeError) as raised:
        GuestMemory(SLOTS).to_gfn(0, offset)
    names(raised.value, {offset}, set() if offset < 0 else {200, 199, 2**64, 2**64 - 1})


@pytest.mark.parametrize("entries", ["text", None, 3, np.zeros(4, np.float32), np.zeros(4, object)])
def test_rings_of_other_types(used: DirtyLog, entries: Any) -> None:
    with pytest.raises(TypeError):
        used.add_ring(entries)


def test_rings_that_end_within_an_entry(used: DirtyLog) -> None:
    with pytest.raises(ValueError) as raised:
        used.add_ring(ring((0, 5), (0, 6)).tobytes()[:-1])
    names(raised.value, {31}, {16})


@pytest.mark.parametrize("length", [0, 8, 24])
def test_bitmaps_too_short_for_the_slot(used: DirtyLog, length: int) -> None:
    with pytest.raises(ValueError) as raised:
        used.add_bitmap(0, b"\xff" * length)
    names(raised.value, {length, length * 8}, {32, 25, 200})


@pytest.mark.parametrize("first_page", [256, 2**31, 2**64, -64])
def test_first_pages_past_the_slot(used: DirtyLog, first_page: int) -> None:
    with pytest.raises(RangeError) as raised:
        used.add_bitmap(0, bytes(64), first_page=first_page)
    names(raised.value, {first_page}, set() if first_page < 0 else {200, 199, 2**64, 2**64 - 1})
