# tier: real
"""ProcessMemory: real writes, found by the real kernel; the oracle is a set of pages written."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pysharedpages import ClosedError, DirtyLog, GuestMemory, SharedPages, SharedPagesError
from pysharedpages.sources import ProcessMemory

REASON = ProcessMemory.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PAGE = 4096
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000
MADV_PAGEOUT = 21
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p


class Guest:
    """A mapping, the log of its slot, and the oracle: which of its pages were written."""

    def __init__(self, npages: int, *, gfn: int = 0, flags: int = PRIVATE, fd: int = -1) -> None:
        self.gfn = gfn
        self.memory = mmap.mmap(fd, npages * PAGE, flags=flags)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.log = DirtyLog(GuestMemory([(0, gfn, npages)]))
        self.oracle: set[int] = set()

    def track(self, *, huge_pages: bool = False) -> ProcessMemory:
        return ProcessMemory.over(self.memory, self.gfn, huge_pages=huge_pages)

    def write(self, *pages: int) -> None:
        for page in pages:
            self.memory[page * PAGE + 8] ^= 0xFF
            self.oracle.add(self.gfn + page)

    def take_oracle(self) -> set[int]:
        expected, self.oracle = self.oracle, set()
        return expected


def take(log: DirtyLog) -> set[int]:
    """The pages in a log, which is empty afterwards: a guest that shares nothing sends them all."""
    with SharedPages() as pages, log.take() as harvest:
        transfer = pages.snapshot().merge(harvest)
        assert transfer.shared_pages == 0
        found = {gfn for start, stop in transfer.private.tolist() for gfn in range(start, stop)}
        assert len(found) == transfer.private_pages
        return found


def collect(source: ProcessMemory, guest: Guest) -> set[int]:
    """One collection, checked to have counted what it added."""
    added = source.collect(guest.log)
    found = take(guest.log)
    assert added == len(found)
    return found


@pytest.fixture
def guest() -> Guest:
    """256 pages of private anonymous memory at gfn 1000."""
    return Guest(256, gfn=1000)


@pytest.fixture
def source(guest: Guest) -> Iterator[ProcessMemory]:
    """The guest, tracked, after a first collection that finds nothing."""
    with guest.track() as source:
        assert collect(source, guest) == set()
        yield source


def test_first_collection_reports_every_page_that_held_data(guest: Guest) -> None:
    guest.write(3, 4, 200)
    with guest.track() as source:
        assert source.complete
        guest.write(0, 255)
        assert collect(source, guest) == {1000, 1003, 1004, 1200, 1255}
        assert collect(source, guest) == set()


def test_rounds_on_a_sparse_terabyte(rng: np.random.Generator, scale: float) -> None:
    npages = 1 << 28
    guest = Guest(npages, gfn=1 << 40, flags=PRIVATE | MAP_NORESERVE)
    with guest.track() as source:
        for writes in (round(20_001 * scale), 0, 300, 1):
            guest.write(*rng.integers(0, npages, writes).tolist(), 0, npages - 1)
            assert collect(source, guest) == guest.take_oracle()
    assert guest.oracle == set()


def test_more_regions_than_one_scan_returns() -> None:
    guest = Guest(60_000)
    with guest.track() as source:
        guest.write(*range(0, 60_000, 3))
        assert collect(source, guest) == set(range(0, 60_000, 3))
        guest.write(*range(1, 60_000, 2))
        assert collect(source, guest) == set(range(1, 60_000, 2))


def test_long_runs_arrive_as_few_ranges() -> None:
    guest = Guest(60_000)
    batches: list[npt.NDArray[np.uint64]] = []

    class Spy:
        def add_ranges(self, ranges: npt.NDArray[np.uint64]) -> None:
            batches.append(ranges)

    with guest.track() as source:
        guest.memory[:] = b"\1" * len(guest.memory)
        assert source.collect(Spy()) == 60_000
    ranges = np.concatenate(batches)
    assert ranges.dtype == np.uint64
    assert ranges.flags.c_contiguous
    assert ranges.tolist() == [[0, 60_000]]


def test_writes_made_by_a_system_call(guest: Guest, source: ProcessMemory) -> None:
    guest.write(2, 5, 9)
    assert collect(source, guest) == {1002, 1005, 1009}
    with Path("/dev/zero").open("rb", buffering=0) as zero:
        assert zero.readinto(memoryview(guest.memory)[5 * PAGE + 1 : 8 * PAGE + 1]) == 3 * PAGE
    assert collect(source, guest) == {1005, 1006, 1007, 1008}


def test_reading_reports_no_written_page_again(guest: Guest, source: ProcessMemory) -> None:
    guest.write(*range(256))
    assert len(collect(source, guest)) == 256
    assert sum(guest.memory[::PAGE]) == 0
    assert collect(source, guest) == set()


def test_nothing_written_during_collections_is_lost(rng: np.random.Generator, scale: float) -> None:
    """A mirror that copies only reported pages must end up equal to the memory."""
    npages, nwriters = 8192, 3
    guest = Guest(npages)
    words = np.frombuffer(guest.memory, np.uint64).reshape(npages, PAGE // 8)[:, :nwriters]
    mirror = np.zeros_like(words)
    choices = rng.integers(0, npages, (nwriters, max(1, round(400 * scale)), 128))

    def write(column: int) -> None:
        for pages in choices[column]:
            words[pages, column] += np.uint64(1)

    with guest.track() as source:
        writers = [threading.Thread(target=write, args=(column,)) for column in range(nwriters)]
        for writer in writers:
            writer.start()
        while True:
            running = any(writer.is_alive() for writer in writers)
            pages = sorted(collect(source, guest))
            mirror[pages] = words[pages]
            if not running:
                break
        assert mirror.any()
        assert np.array_equal(mirror, words)


def test_threads_may_share_a_source(guest: Guest, source: ProcessMemory) -> None:
    guest.write(*range(0, 256, 2))
    added: list[int] = []
    threads = [
        threading.Thread(target=lambda: added.append(source.collect(guest.log))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(added) == 128
    assert take(guest.log) == guest.oracle


@pytest.mark.parametrize("flags", [PRIVATE, SHARED])
def test_a_log_that_fails_loses_nothing(flags: int) -> None:
    guest = Guest(40_000, flags=flags)
    guest.write(*range(0, 40_000, 2))
    kept: set[int] = set()

    class FailsSecond:
        calls = 0

        def add_ranges(self, ranges: npt.NDArray[np.uint64]) -> None:
            self.calls += 1
            if self.calls == 2 or flags == SHARED:
                raise MemoryError
            kept.update(gfn for start, stop in ranges.tolist() for gfn in range(start, stop))

    with guest.track() as source:
        with pytest.raises(MemoryError):
            source.collect(FailsSecond())
        assert kept < guest.oracle
        rest = collect(source, guest)
        assert rest.isdisjoint(kept)
        assert kept | rest == (guest.oracle if flags == PRIVATE else set(range(40_000)))
        assert collect(source, guest) == set()


def test_discarded_memory_is_invisible_until_written_again(
    guest: Guest, source: ProcessMemory
) -> None:
    guest.write(7)
    assert collect(source, guest) == {1007}
    guest.write(8)
    guest.memory.madvise(mmap.MADV_DONTNEED, 7 * PAGE, 2 * PAGE)
    assert collect(source, guest) == set()
    guest.write(7)
    assert collect(source, guest) == {1007}


@pytest.mark.parametrize("flags", [PRIVATE, SHARED])
def test_reclaimed_memory_stays_tracked(flags: int) -> None:
    guest = Guest(256, flags=flags)
    with guest.track() as source:
        guest.write(*range(100))
        collect(source, guest)
        guest.write(1, 30)
        LIBC.madvise(ctypes.c_void_p(guest.address), ctypes.c_size_t(256 * PAGE), MADV_PAGEOUT)
        assert collect(source, guest) == {1, 30}
        assert sum(guest.memory[8 : 100 * PAGE : PAGE]) == 98 * 0xFF
        assert collect(source, guest) == set()


def test_shared_memory_is_reported_whole_first() -> None:
    guest = Guest(1024, gfn=5, flags=SHARED)
    with guest.track() as source:
        assert source.complete
        assert collect(source, guest) == set(range(5, 1029))
        for _ in range(2):
            guest.write(0, 600, 1023)
            found = collect(source, guest)
            assert found >= guest.oracle
        assert found == guest.oracle


def test_a_file_written_behind_the_mapping_is_in_the_first_report() -> None:
    fd = os.memfd_create("guest")
    try:
        os.ftruncate(fd, 64 * PAGE)
        os.pwrite(fd, b"firmware", 63 * PAGE)
        guest = Guest(64, flags=mmap.MAP_SHARED, fd=fd)
    finally:
        os.close(fd)
    with guest.track() as source:
        assert 63 in collect(source, guest)


def test_a_huge_page_counts_whole_once_then_by_small_pages() -> None:
    guest = Guest(2048)
    guest.memory.madvise(mmap.MADV_HUGEPAGE)
    first = -(guest.address // PAGE) % 512
    guest.write(first)
    with guest.track(huge_pages=True) as source:
        found = collect(source, guest)
        if found == {first}:
            pytest.skip("this host gave no transparent huge page")
        assert found == set(range(first, first + 512))
        guest.take_oracle()
        guest.write(first + 5, first + 511)
        assert collect(source, guest) == {first + 5, first + 511}


def test_no_new_huge_pages_unless_asked_for() -> None:
    guest = Guest(2048)
    guest.memory.madvise(mmap.MADV_HUGEPAGE)
    with guest.track() as source:
        guest.write(700, 1300)
        assert collect(source, guest) == {700, 1300}


def test_a_forked_child_is_not_tracked_and_disturbs_nothing(
    guest: Guest, source: ProcessMemory
) -> None:
    guest.write(1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            guest.write(2)
            source.collect(guest.log)
        except ClosedError:
            source.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    guest.write(3)
    assert collect(source, guest) == {1001, 1003}
    guest.write(4)
    assert collect(source, guest) == {1004}


def test_close_ends_tracking_though_a_child_holds_the_descriptors(
    guest: Guest, source: ProcessMemory
) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        source.close()
        with guest.track() as again:
            guest.write(6)
            assert collect(again, guest) == {1006}
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_close_ends_tracking_and_frees_the_buffer(guest: Guest) -> None:
    source = ProcessMemory.over(guest.memory)
    with pytest.raises(SharedPagesError, match="watched already"):
        ProcessMemory.over(guest.memory)
    source.close()
    source.close()
    with pytest.raises(ClosedError, match="closed"):
        source.collect(guest.log)
    assert take(guest.log) == set()
    mapping = mmap.mmap(-1, PAGE, flags=PRIVATE)
    with ProcessMemory.over(mapping), pytest.raises(BufferError):
        mapping.close()
    mapping.close()
    with guest.track() as again:
        guest.write(9)
        assert collect(again, guest) == {1009}


def test_a_source_that_is_dropped_frees_its_descriptors(guest: Guest) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        guest.track()
        gc.collect()
    assert os.listdir("/proc/self/fd") == before


def test_memory_mapped_anew_is_an_error_that_keeps_what_was_found(guest: Guest) -> None:
    with guest.track() as source:
        guest.write(1)
        fixed = LIBC.mmap(
            ctypes.c_void_p(guest.address + 100 * PAGE),
            ctypes.c_size_t(PAGE),
            mmap.PROT_READ | mmap.PROT_WRITE,
            PRIVATE | MAP_FIXED,
            -1,
            ctypes.c_long(0),
        )
        assert fixed == guest.address + 100 * PAGE
        with pytest.raises(SharedPagesError, match="mapped anew"):
            source.collect(guest.log)
        assert take(guest.log) == set()
        with pytest.raises(SharedPagesError, match="mapped anew"):
            source.collect(guest.log)
        assert take(guest.log) == {1001}


def test_the_last_gfns_of_all() -> None:
    guest = Guest(4, gfn=(1 << 52) - 4)
    with guest.track() as source:
        guest.write(0, 3)
        assert collect(source, guest) == {(1 << 52) - 4, (1 << 52) - 1}
