"""The merge: dirty pages of a harvest split by what is shared, both lists as ranges."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import libraries as lib
import numpy as np
import pytest
import rivals
from kvm_slot import KvmSlot
from measure import PAGE_BYTES, Contender, compare, fresh_copy
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import (
    DIRTY,
    FULL,
    GIB,
    SHARED,
    TIB,
    Ranges,
    Words,
    bitmap_of,
    dirty,
    dirty_bitmap,
    fragments,
    harvest_of,
    ranges_of,
    ring_of,
    shared,
    shown,
    size_of,
    slots_of,
    tracker_of,
)

from pysharedpages import DirtyLog, GuestMemory, Transfer

FEW = [
    *(("boot", kind) for kind in DIRTY),
    *((name, "0.01 %") for name in ("private", "mmio", "firmware")),
    ("fragmented", "0.01 %"),
    ("fragmented", "1 %"),
    ("fragmented", "workingset"),
    ("hostile", "1 %"),
]
ALL = [(name, kind) for name in SHARED for kind in DIRTY if size_of(name) <= TIB or kind != "5 %"]
"""Every pair that 16 GiB of memory allow."""
PAIRS = ALL if FULL else FEW
READ_PASS_TARGET = {("boot", "0.01 %"): 1.4}
WORDS_TARGET = {("boot", "1 %"): 2.5}
THREADS_TARGET = {"1 %": 1.7}
QEMU_TARGET = {"boot": 30, "fragmented": 1000}
ASID = 1
RING_ENTRIES = 65_536


def lists(transfer: Transfer) -> tuple[Ranges, Ranges]:
    """The answer of ours: the two lists."""
    return transfer.shared, transfer.private


def halves(words: tuple[Words, Words]) -> tuple[Ranges, Ranges]:
    """The answer of a rival that leaves two bitmaps."""
    return lib.runs_by_words(words[0]), lib.runs_by_words(words[1])


def merger(ranges: Ranges, harvest: Any, name: str = "pysharedpages") -> Contender:
    """Ours: a harvest, or anything else a merge takes, against a snapshot of these ranges."""
    snapshot = tracker_of(ranges).snapshot()
    return Contender(name, lambda: snapshot.merge(harvest), answer=lists)


def sizes(ours: Contender, bitmap: Words) -> dict[str, int]:
    """The facts of a row: bytes read, ranges returned."""
    transfer = ours.run()
    return {"bytes": bitmap.nbytes, "ranges": len(transfer.shared) + len(transfer.private)}


def reading(bitmap: Words, most: float | None = None) -> Contender:
    """The physical limit: one pass over the bitmap.

    Over a copy of its own, as ours is: the bitmap that the other rivals share is in the cache.
    """
    own = bitmap.copy()
    return Contender("read pass", lambda: rivals.read_pass(own), most=most, limit=True)


def reducing(bitmap: Words) -> Contender:
    """The same by NumPy."""
    own = bitmap.copy()
    return Contender("NumPy or.reduce", lambda: np.bitwise_or.reduce(own), limit=True)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_bitmap(benchmark: BenchmarkFixture, name: str, kind: str) -> None:
    npages, ranges = size_of(name), shared(name)
    bitmap = dirty_bitmap(kind, npages)
    inside = ranges[ranges[:, 0] < npages]
    words = bitmap_of(inside, npages)
    listed = rivals.KvmList()
    listed.load(ranges)
    ours = merger(ranges, harvest_of(bitmap))
    compare(
        benchmark,
        f"merge, {shown(npages)} bitmap, {name}, {kind} dirty",
        ours,
        [
            reading(bitmap, most=READ_PASS_TARGET.get((name, kind))),
            reducing(bitmap),
            Contender(
                "NumPy dirty & shared", lambda: bitmap & words, most=WORDS_TARGET.get((name, kind))
            ),
            Contender("NumPy both halves", lambda: lib.word_halves(bitmap, words), answer=halves),
            Contender("KVM's list, exported and swept", lambda: listed.merge(bitmap), answer=tuple),
        ],
        **sizes(ours, bitmap),
    )


@pytest.mark.parametrize("kind", ["0.01 %", "1 %"])
def test_two_threads(benchmark: BenchmarkFixture, kind: str) -> None:
    """The kernel's supply of fresh memory for the lists is a part that two threads share."""
    harvest = harvest_of(dirty_bitmap(kind, TIB))
    snapshot = tracker_of(shared("boot")).snapshot()

    def merge(threads: int) -> Callable[[], Transfer]:
        return lambda: snapshot.merge(harvest, threads=threads)

    ours = Contender("pysharedpages, two threads", merge(2), answer=lists)
    one = Contender("one thread", merge(1), answer=lists, least=THREADS_TARGET.get(kind))
    compare(
        benchmark,
        f"merge, 1 TiB bitmap, boot, {kind} dirty, two threads",
        ours,
        [one],
        **sizes(ours, dirty_bitmap(kind, TIB)),
    )


@pytest.mark.parametrize("counted", [False, True], ids=["lent buffer", "lent buffer and writing"])
def test_collect_take_and_merge(benchmark: BenchmarkFixture, counted: bool) -> None:
    """The target leaves out what the source writes: a copy alone takes longer than it allows.

    Lending counts, with the faults of fresh memory: each page is touched before it is written.
    """
    bitmap = dirty_bitmap("0.01 %", TIB)
    snapshot = tracker_of(shared("boot")).snapshot()
    log = DirtyLog(GuestMemory(slots_of(TIB)))

    def whole_pass() -> tuple[float, Transfer]:
        start = time.perf_counter()
        lent = np.frombuffer(log.bitmap_buffer(0), np.uint64)  # type: ignore[call-overload]
        lent[:: PAGE_BYTES // 8] = 0
        writing = time.perf_counter()
        np.copyto(lent, bitmap)
        written = time.perf_counter()
        del lent
        with log.take() as harvest:
            transfer = snapshot.merge(harvest)
        seconds = time.perf_counter() - start
        return seconds - (0 if counted else written - writing), transfer

    ours = merger(shared("boot"), harvest_of(bitmap))
    copied = Contender("copy of the bitmap", lambda: fresh_copy(bitmap), limit=True)
    writing = ", its writing by a copy counted" if counted else ""
    compare(
        benchmark,
        f"collect into the lent buffer{writing}, take, merge, 1 TiB, boot, 0.01 % dirty",
        Contender("pysharedpages", whole_pass, answer=lists, own_clock=True),
        [
            reading(bitmap, most=None if counted else 3),
            *([copied] if counted else []),
            replace(ours, name="the merge alone", limit=True),
        ],
        **sizes(ours, bitmap),
    )


def test_copied_bitmap(benchmark: BenchmarkFixture) -> None:
    bitmap = dirty_bitmap("0.01 %", TIB)
    snapshot = tracker_of(shared("boot")).snapshot()
    log = DirtyLog(GuestMemory(slots_of(TIB)))

    def whole_pass() -> Transfer:
        log.add_bitmap(0, bitmap)
        with log.take() as harvest:
            return snapshot.merge(harvest)

    ours = Contender("pysharedpages", whole_pass, answer=lists)
    compare(
        benchmark,
        "add_bitmap, take, merge, 1 TiB, boot, 0.01 % dirty",
        ours,
        [
            reading(bitmap),
            Contender("copy of the bitmap", lambda: fresh_copy(bitmap), limit=True),
        ],
        **sizes(ours, bitmap),
    )


@pytest.mark.parametrize("name", ["boot", "fragmented"])
def test_sets_and_bits(benchmark: BenchmarkFixture, name: str) -> None:
    bitmap, ranges = dirty_bitmap("0.01 %", TIB), shared(name)
    words = bitmap_of(ranges, TIB)
    roaring, bits, dirty_bits = (
        lib.roaring_of(ranges),
        lib.bitarray_of(words),
        lib.bitarray_of(bitmap),
    )

    def by_roaring(load: Callable[[Words], lib.Roaring]) -> Callable[[], Any]:
        return lambda: lib.roaring_halves(load(bitmap), roaring)

    def by_numpy(runs: Callable[[Words], Ranges]) -> Callable[[], Any]:
        return lambda: tuple(map(runs, lib.word_halves(bitmap, words)))

    def roaring_answer(pair: tuple[lib.Roaring, lib.Roaring]) -> tuple[Ranges, Ranges]:
        return lib.roaring_ranges(pair[0]), lib.roaring_ranges(pair[1])

    def bits_answer(pair: Any) -> tuple[Ranges, Ranges]:
        return halves((lib.bitarray_words(pair[0]), lib.bitarray_words(pair[1])))

    ours = merger(ranges, harvest_of(bitmap))
    compare(
        benchmark,
        f"merge, 1 TiB bitmap, {name}, 0.01 % dirty",
        ours,
        [
            Contender(
                "pyroaring, a byte a page",
                by_roaring(lib.roaring_by_bits),
                answer=roaring_answer,
                least=300,
            ),
            Contender(
                "pyroaring, by words", by_roaring(lib.roaring_by_words), answer=roaring_answer
            ),
            Contender(
                "NumPy ranges, a byte a page",
                by_numpy(lib.runs_by_bits),
                answer=tuple,
                least=2000,
            ),
            Contender("NumPy ranges, by words", by_numpy(lib.runs_by_words), answer=tuple),
            Contender(
                "bitarray, no ranges",
                lambda: lib.bitarray_halves(dirty_bits, bits),
                answer=bits_answer,
            ),
        ],
        **sizes(ours, bitmap),
    )


def test_rmp_walk(benchmark: BenchmarkFixture) -> None:
    bitmap, ranges = dirty_bitmap("0.01 %", TIB), shared("boot")
    table = rivals.RmpTable(TIB)
    table.place(ASID, TIB, ranges)
    ours = merger(ranges, harvest_of(bitmap))
    compare(
        benchmark,
        "merge, 1 TiB bitmap, boot, 0.01 % dirty",
        ours,
        [Contender("RMP walk", lambda: table.merge(ASID, bitmap), answer=tuple, least=100)],
        **sizes(ours, bitmap),
    )


@pytest.mark.parametrize("name", ["boot", "fragmented"])
def test_look_ups(benchmark: BenchmarkFixture, name: str) -> None:
    bitmap, ranges = dirty_bitmap("0.01 %", TIB), shared(name)
    listed = rivals.QemuList()
    listed.load(ranges)
    attributes = rivals.AttrArray.load(TIB, ranges)
    ours = merger(ranges, harvest_of(bitmap))
    compare(
        benchmark,
        f"merge, 1 TiB bitmap, {name}, 0.01 % dirty",
        ours,
        [
            Contender(
                "QEMU's list, a look-up a page",
                lambda: listed.merge(bitmap),
                answer=tuple,
                least=QEMU_TARGET[name],
            ),
            Contender("one entry a page", lambda: attributes.merge(bitmap), answer=tuple),
        ],
        **sizes(ours, bitmap),
    )


def test_real_dirty_log(benchmark: BenchmarkFixture) -> None:
    bitmap = dirty_bitmap("0.01 %", TIB)
    ours = merger(shared("boot"), harvest_of(bitmap))
    try:
        slot = KvmSlot(TIB)
    except OSError as error:
        pytest.skip(f"no KVM slot of 1 TiB: {error}")
    with slot:
        compare(
            benchmark,
            "merge, 1 TiB bitmap, boot, 0.01 % dirty",
            ours,
            [Contender("KVM_GET_DIRTY_LOG, a slot at rest", slot.dirty_log, most=0.3, limit=True)],
            **sizes(ours, bitmap),
        )


def test_ring(benchmark: BenchmarkFixture) -> None:
    pages = lib.pages_by_words(dirty_bitmap("0.1 %", TIB))[::4][:RING_ENTRIES]
    entries = ring_of(np.stack([pages, pages + np.uint64(1)], axis=1))
    assert len(entries) == RING_ENTRIES
    ranges = shared("boot")
    snapshot = tracker_of(ranges).snapshot()
    roaring = lib.roaring_of(ranges)
    log = DirtyLog(GuestMemory(slots_of(TIB)))

    def whole_pass() -> Transfer:
        log.add_ring(entries)
        with log.take() as harvest:
            return snapshot.merge(harvest)

    def by_roaring() -> tuple[lib.Roaring, lib.Roaring]:
        return lib.roaring_halves(lib.roaring_of_pages(entries["offset"]), roaring)

    def by_numpy() -> tuple[Ranges, Ranges]:
        gfns = np.sort(entries["offset"])
        at = np.searchsorted(ranges.reshape(-1), gfns, side="right")
        return ranges_of(gfns[at % 2 == 1]), ranges_of(gfns[at % 2 == 0])

    ours = Contender("pysharedpages", whole_pass, answer=lists)
    compare(
        benchmark,
        "65,536 ring entries: add, take, merge, boot",
        ours,
        [
            Contender(
                "pyroaring, no ranges",
                by_roaring,
                answer=lambda pair: tuple(map(lib.roaring_ranges, pair)),
            ),
            Contender("NumPy sort and searchsorted", by_numpy, answer=tuple),
        ],
        most=0.5e-3,
        bytes=entries.nbytes,
        ranges=len(ours.run().private),
    )


@pytest.mark.parametrize(("kind", "target"), [("empty", 1.1), ("0.1 %", 2.2), ("1 %", 1.5)])
def test_large_bitmap_to_ranges(benchmark: BenchmarkFixture, kind: str, target: float) -> None:
    npages = 12 * TIB
    bitmap = dirty_bitmap(kind, npages)
    ours = merger(shared("private"), harvest_of(bitmap))
    expected = ours.run().private
    assert np.array_equal(expected, lib.runs_by_words(bitmap))

    def limit() -> Any:
        return rivals.read_pass(bitmap), fresh_copy(expected)

    compare(
        benchmark,
        f"12 TiB bitmap to ranges, {kind} dirty",
        ours,
        [
            Contender("read pass and copy of the output", limit, most=target, limit=True),
            reading(bitmap),
        ],
        bytes=bitmap.nbytes,
        ranges=len(expected),
    )


def test_interval_libraries(benchmark: BenchmarkFixture) -> None:
    ranges, wanted = fragments(10_000, 64 * GIB), dirty("workingset", 64 * GIB)
    tree, parts = lib.interval_tree(ranges), lib.portion_of(ranges)
    wanted_parts, index = lib.portion_of(wanted), lib.containment_list(ranges)
    ours = merger(ranges, wanted)
    compare(
        benchmark,
        f"merge of {len(wanted)} dirty ranges, {len(ranges)} shared runs, 64 GiB",
        ours,
        [
            Contender("intervaltree", lambda: lib.interval_tree_halves(wanted, tree), answer=tuple),
            Contender(
                "portion",
                lambda: lib.portion_halves(wanted_parts, parts),
                answer=lambda pair: tuple(map(lib.portion_ranges, pair)),
            ),
            Contender("ncls", lambda: lib.containment_halves(wanted, ranges, index), answer=tuple),
        ],
        bytes=wanted.nbytes,
        ranges=sum(map(len, lists(ours.run()))),
    )
