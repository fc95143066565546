# tier: unit
"""What the KVM sources ask of a kernel, and what they make of its answers: the kernel is a table.

Real kernels are asked in tests/real; here is what those seldom answer, on any host.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory, RangeError, SharedPages, SharedPagesError
from pysharedpages._buffers import RING_DTYPE
from pysharedpages._core import Ring
from pysharedpages.abi.kvm import ClearDirtyLog, EnableCap, GetDirtyLog, numbers
from pysharedpages.sources import KvmDirtyLog, KvmDirtyRing, kvm_calls, kvm_ring

NPAGES = 3 * 262_144 + 100
MEMORY = GuestMemory([(0x10002, 1000, NPAGES)])

Answer = Callable[[int, Any], int]


def take(log: DirtyLog) -> list[list[int]]:
    """The ranges of pages in a log, which is empty afterwards."""
    with SharedPages() as pages, log.take() as harvest:
        found: list[list[int]] = pages.snapshot().merge(harvest).private.tolist()
        return found


def kernel(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    monkeypatch.setattr(
        kvm_calls, "call", lambda _fd, request, argument=0: answer(request, argument)
    )


def error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Slot:
    """A kernel with one slot of `NPAGES`, whose dirty pages are `dirty`."""

    def __init__(self) -> None:
        self.dirty: list[int] = []
        self.cleared: list[tuple[int, int]] = []
        self.enabled = False
        self.offered = 3

    def __call__(self, request: int, argument: Any) -> int:
        if request == numbers.KVM_CHECK_EXTENSION:
            return self.offered
        if request == numbers.KVM_ENABLE_CAP:
            assert EnableCap.decode(argument).capability == 168
            self.enabled = bool(EnableCap.decode(argument).arguments[0])
            return 0
        if request == numbers.KVM_GET_DIRTY_LOG:
            wanted = GetDirtyLog.decode(argument)
            assert wanted.slot == 0x10002
            bits = words_at(wanted.address, -(-NPAGES // 64))
            for page in self.dirty:
                bits[page // 64] |= np.uint64(1 << page % 64)
            return 0
        assert request == numbers.KVM_CLEAR_DIRTY_LOG
        clear = ClearDirtyLog.decode(argument)
        first, npages = clear.first_page, clear.num_pages
        inside = first + npages <= NPAGES
        short = npages % 64 and first + npages < NPAGES
        if clear.slot != 0x10002 or first % 64 or not inside or short:
            raise error(errno.EINVAL)
        if words_at(clear.address, -(-npages // 64)).any():
            self.cleared.append((first, npages))
        return 0


def words_at(address: int, count: int) -> NDArray[np.uint64]:
    memory = (ctypes.c_uint64 * count).from_address(address)
    return np.frombuffer(memoryview(memory).cast("B"), np.uint64)


@pytest.fixture
def slot(monkeypatch: pytest.MonkeyPatch) -> Slot:
    slot = Slot()
    kernel(monkeypatch, slot)
    return slot


def test_one_call_collects_and_arms_where_asked(slot: Slot) -> None:
    log = DirtyLog(MEMORY)
    source = KvmDirtyLog(3, MEMORY, manual=False)
    slot.dirty = [0, 1, NPAGES - 1]
    source.collect(log)
    assert take(log) == [[1000, 1002], [1000 + NPAGES - 1, 1000 + NPAGES]]
    assert (slot.cleared, slot.enabled, source.manual) == ([], False, False)


@pytest.mark.parametrize(
    ("dirty", "cleared"),
    [
        ([], []),
        ([0], [(0, 262_144)]),
        ([262_143], [(0, 262_144)]),
        ([262_144], [(262_144, 262_144)]),
        ([5, 262_150], [(0, 524_288)]),
        ([5, 600_000], [(0, 262_144), (524_288, 262_144)]),
        ([786_432], [(786_432, 100)]),
        ([NPAGES - 1], [(786_432, 100)]),
        ([600_000, NPAGES - 1], [(524_288, 262_244)]),
        ([1, 300_000, 600_000, 786_433], [(0, NPAGES)]),
    ],
)
def test_what_is_dirty_is_cleared_by_the_rules(
    slot: Slot, dirty: list[int], cleared: list[tuple[int, int]]
) -> None:
    log = DirtyLog(MEMORY)
    source = KvmDirtyLog(3, MEMORY)
    slot.dirty = dirty
    source.collect(log)
    assert take(log) == [[1000 + page, 1001 + page] for page in dirty]
    assert slot.cleared == cleared
    assert slot.enabled


def test_the_newest_source_decides_how_pages_are_armed(slot: Slot) -> None:
    assert KvmDirtyLog(3, MEMORY).manual
    assert slot.enabled
    assert not KvmDirtyLog(3, MEMORY, manual=False).manual
    assert not slot.enabled


def test_a_kernel_without_the_call_is_not_asked_to_clear(slot: Slot) -> None:
    slot.offered = 0
    source = KvmDirtyLog(3, MEMORY)
    source.collect(DirtyLog(MEMORY))
    assert (source.manual, slot.enabled, slot.cleared) == (False, False, [])


def test_a_log_taken_from_meanwhile_loses_nothing(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes between KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG, and sees pages too early:
    what is written from then until the clear must still come.
    """
    log = DirtyLog(MEMORY)
    source = KvmDirtyLog(3, MEMORY)
    slot.dirty = [7]
    early: list[list[list[int]]] = []

    def answer(request: int, argument: Any) -> int:
        if request == numbers.KVM_CLEAR_DIRTY_LOG:
            early.append(take(log))
        return slot(request, argument)

    kernel(monkeypatch, answer)
    source.collect(log)
    assert early == [[[1007, 1008]]]
    assert take(log) == [[1007, 1008]]


def test_what_fill_wrote_before_it_failed_is_dirty() -> None:
    log = DirtyLog(MEMORY)

    def fill(loan: object) -> None:
        np.frombuffer(memoryview(loan), np.uint8)[0] = 0b101  # type: ignore[arg-type]
        take(log)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.fill_bitmap(0x10002, fill)
    assert take(log) == [[1000, 1001], [1002, 1003]]


def test_slots_come_and_go_under_a_source(slot: Slot) -> None:
    """The kernel has one slot: a source that asks it for another is told so."""
    nothing = GuestMemory([])
    source = KvmDirtyLog(3, nothing)
    log = DirtyLog(nothing)
    source.collect(log)
    source.set_memory(MEMORY)
    log.set_memory(MEMORY)
    log.take().commit()
    slot.dirty = [7]
    source.collect(log)
    assert take(log) == [[1007, 1008]]
    assert log.sources()["kvm-log"].pages == 1
    for wrong in ([(0x10003, 1000, NPAGES)], [(0x10002, 1000, NPAGES - 1)]):
        with pytest.raises(RangeError, match="in KVM"):
            source.set_memory(GuestMemory([*MEMORY, *wrong][-1:]))
    source.collect(log)
    assert take(log) == [[1007, 1008]]
    source.set_memory(nothing)
    with pytest.raises(RangeError, match="the log is of"):
        source.collect(log)
    log.set_memory(nothing)
    source.collect(log)
    assert take(log) == []


def test_an_error_of_the_kernel_names_the_slot(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    source = KvmDirtyLog(3, MEMORY)

    def fail(request: int, argument: Any) -> int:
        raise error(errno.EFAULT)

    kernel(monkeypatch, fail)
    with pytest.raises(SharedPagesError, match="slot 0x10002: Bad address"):
        source.collect(DirtyLog(MEMORY))


# Rings.


class Rings:
    """A kernel with one ring of eight entries, in `entries`."""

    def __init__(self) -> None:
        self.memory = bytearray(8 * RING_DTYPE.itemsize)
        self.entries = np.frombuffer(self.memory, RING_DTYPE)
        self.answers: list[int | OSError] = []
        self.resets = 0

    def push(self, position: int, *offsets: int) -> None:
        for number, offset in enumerate(offsets, position):
            self.entries[number % 8] = (1, 0x10002, offset)

    def __call__(self, request: int, argument: Any) -> int:
        assert request == numbers.KVM_RESET_DIRTY_RINGS
        self.resets += 1
        harvested = self.entries["flags"] == 2
        answer = self.answers.pop(0) if self.answers else int(harvested.sum())
        if isinstance(answer, OSError):
            raise answer
        self.entries["flags"][harvested] = 0
        return answer


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> Rings:
    rings = Rings()
    kernel(monkeypatch, rings)
    monkeypatch.setattr(
        kvm_ring.KvmDirtyRing,
        "_open_ring",
        lambda self, _fd: self._rings.append(Ring(rings.memory)),
    )
    return rings


def ring_source() -> KvmDirtyRing:
    return KvmDirtyRing(3, [4], MEMORY, kick=lambda: None)


def test_a_source_begins_where_another_stopped(rings: Rings) -> None:
    """Positions 6, 7, 0 and 1 are dirty, 5 was harvested by a source that is closed."""
    rings.entries[5] = (2, 0x10002, 1)
    rings.push(6, 20, 21, 22, 23)
    log = DirtyLog(MEMORY)
    source = ring_source()
    assert source.collect(log) == 4
    assert take(log) == [[1020, 1024]]
    rings.push(2, 7)
    assert source.collect(log) == 1
    assert take(log) == [[1007, 1008]]


def test_a_source_waits_for_the_first_entry_anywhere(rings: Rings) -> None:
    log = DirtyLog(MEMORY)
    source = ring_source()
    assert source.collect(log) == 0
    rings.push(3, 7, 8)
    assert source.collect(log) == 2
    assert take(log) == [[1007, 1009]]


def test_a_vcpu_named_twice_is_refused(rings: Rings) -> None:
    with pytest.raises(RangeError, match="twice"):
        KvmDirtyRing(3, [4, 5, 4], MEMORY, kick=lambda: None)


def test_entries_are_reset_before_they_are_in_the_log(rings: Rings) -> None:
    class Spy(DirtyLog):
        def add_ring(self, entries: Any, source: str | None = None) -> None:
            assert rings.entries["flags"].tolist() == [0] * 8
            super().add_ring(entries, source)

    log = Spy(MEMORY)
    source = ring_source()
    rings.push(0, 5, 6, 9)
    assert source.collect(log) == 3
    assert take(log) == [[1005, 1007], [1009, 1010]]
    rings.push(3, *range(20, 27))
    assert source.collect(log) == 7
    assert take(log) == [[1020, 1027]]
    assert (source.collect(log), rings.resets) == (0, 2)


def test_a_reset_that_a_signal_ends_is_made_again(rings: Rings) -> None:
    log = DirtyLog(MEMORY)
    source = ring_source()
    rings.push(0, 5, 6)
    rings.answers = [error(errno.EINTR), error(errno.EINTR), 1]
    assert source.collect(log) == 2
    assert rings.resets == 3
    assert take(log) == [[1005, 1007]]
    assert source.ioctl_ns > 0


def test_a_reset_that_fails_leaves_the_entries_for_the_next_collection(rings: Rings) -> None:
    log = DirtyLog(MEMORY)
    source = ring_source()
    rings.push(0, 5, 6)
    rings.answers = [error(errno.EIO)]
    with pytest.raises(SharedPagesError, match="cannot be reset"):
        source.collect(log)
    assert take(log) == []
    rings.push(2, 8)
    assert source.collect(log) == 3
    assert take(log) == [[1005, 1007], [1008, 1009]]


def test_entries_that_the_log_had_no_memory_for_come_again(rings: Rings) -> None:
    class Full(DirtyLog):
        def add_ring(self, entries: Any, source: str | None = None) -> None:
            raise MemoryError

    source = ring_source()
    rings.push(0, 5, 6)
    with pytest.raises(MemoryError):
        source.collect(Full(MEMORY))
    log = DirtyLog(MEMORY)
    rings.push(2, 8)
    assert source.collect(log) == 3
    assert take(log) == [[1005, 1007], [1008, 1009]]


def give(log: DirtyLog, source: KvmDirtyRing, slots: list[tuple[int, int, int]]) -> None:
    """Other slots for both; what is new is not looked at."""
    for each in (log, source):
        each.set_memory(GuestMemory(slots))
    log.take().commit()


@pytest.mark.parametrize(
    ("slots", "found"),
    [
        ([], []),
        ([(5, 0, 5000)], [[1005, 1006], [1020, 1021]]),
        ([(0x10002, 1000, 10)], [[1005, 1006]]),
        ([(0x10002, 9000, 10), (0, 1000, 10)], [[1005, 1006], [9005, 9006]]),
        ([(0x10002, 0, 2000)], [[5, 6], [20, 21], [1005, 1006], [1020, 1021]]),
    ],
    ids=["gone", "renumbered", "shorter", "reused and shorter", "moved"],
)
def test_entries_of_slots_that_are_gone_go_by_gfn_once(
    rings: Rings, slots: list[tuple[int, int, int]], found: list[list[int]]
) -> None:
    log = DirtyLog(MEMORY)
    source = ring_source()
    rings.push(0, 5, 20)
    give(log, source, slots)
    assert source.collect(log) == 2
    assert take(log) == found
    if not any(slot == 0x10002 for slot, _, _ in slots):
        rings.push(2, 5)
        with pytest.raises(RangeError, match="slot 65538"):
            source.collect(log)


def test_entries_held_over_other_slots_are_not_lost(rings: Rings) -> None:
    """The first collection fails between the rings and the log, the next is of other slots."""
    log = DirtyLog(MEMORY)
    source = ring_source()
    rings.push(0, 5)
    rings.answers = [error(errno.EIO)]
    with pytest.raises(SharedPagesError, match="cannot be reset"):
        source.collect(log)
    for slots in ([(1, 1000, 50)], [(2, 1000, 50)]):
        give(log, source, slots)
    assert source.collect(log) == 1
    assert take(log) == [[1005, 1006]]
    assert log.sources()["kvm-ring"].pages == 1


@pytest.mark.parametrize("pushed", [8, 3])
def test_a_ring_that_overran_fails_for_ever(rings: Rings, pushed: int) -> None:
    """All eight entries dirty, or fewer reset than were harvested: KVM had no room."""
    log = DirtyLog(MEMORY)
    source = ring_source()
    rings.push(0, *range(pushed))
    rings.answers = [pushed if pushed == 8 else pushed - 1]
    for _ in range(2):
        with pytest.raises(SharedPagesError, match="ring of 8 entries overran"):
            source.collect(log)
    assert take(log) == [[1000, 1000 + pushed]]


@pytest.mark.parametrize("size", [0, 15, 48, 16 * 24])
def test_rings_of_other_sizes(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Ring(bytearray(size))


def test_a_ring_has_no_place_before_the_table_s_end() -> None:
    table = np.zeros(4, RING_DTYPE)
    ring = Ring(bytearray(16 * 8))
    assert (len(ring), ring.harvest(table, 4)) == (8, 0)
    with pytest.raises(IndexError):
        ring.harvest(table, 5)
    with pytest.raises(BufferError):
        ring.harvest(table[:0].tobytes(), 0)  # type: ignore[arg-type]
