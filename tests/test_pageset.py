# tier: unit
"""PageSet: every method against values written by hand."""

from __future__ import annotations

import array
import copy
import operator as op
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model import GFN_LIMIT, canonical, gfns, ranges

from pysharedpages import PageSet, SharedPages

Pairs = list[tuple[int, int]]
SAMPLE = ranges((3, 7), (10, 11), (20, 30))


@pytest.fixture(params=["roaring", "interval"])
def sample(request: pytest.FixtureRequest) -> PageSet:
    """3 4 5 6, 10, 20 to 29: fifteen pages in three ranges; held by either engine."""
    with SharedPages(engine=request.param) as pages:
        pages.set_list(SAMPLE)
        return pages.snapshot() & pages.snapshot()


def test_empty() -> None:
    empty = PageSet()
    assert len(empty) == 0
    assert not empty
    assert empty.nranges == 0
    assert canonical(empty.ranges()) == []
    assert empty.pages().tolist() == [] and empty.pages().dtype == np.uint64
    assert list(empty) == list(reversed(empty)) == list(empty.iter_ranges()) == []
    assert 0 not in empty
    assert canonical(empty.gaps(5, 9)) == [(5, 9)]
    for ask in (empty.min, empty.max):
        with pytest.raises(ValueError, match="empty"):
            ask()


def test_sizes(sample: PageSet) -> None:
    assert (len(sample), bool(sample), sample.nranges) == (15, True, 3)
    assert (sample.min(), sample.max()) == (3, 29)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([(5, 5)], []),
        ([(20, 30), (3, 7), (10, 11)], [(3, 7), (10, 11), (20, 30)]),
        ([(1, 4), (4, 6)], [(1, 6)]),
        ([(1, 10), (2, 3), (5, 12)], [(1, 12)]),
        ([(7, 9), (7, 9)], [(7, 9)]),
        ([(8, 8), (1, 2), (9, 9)], [(1, 2)]),
        ([(0, GFN_LIMIT)], [(0, GFN_LIMIT)]),
    ],
    ids=str,
)
def test_from_ranges(given: Pairs, expected: Pairs) -> None:
    assert canonical(PageSet.from_ranges(ranges(*given)).ranges()) == expected


def test_from_pages() -> None:
    made = PageSet.from_pages(gfns(9, 3, 4, 9, 5, 2**52 - 1))
    assert canonical(made.ranges()) == [(3, 6), (9, 10), (2**52 - 1, 2**52)]
    assert len(made) == 5


RANGE_BUFFERS: dict[str, Any] = {
    "int64": SAMPLE.astype(np.int64),
    "fortran": np.asfortranarray(SAMPLE),
    "reversed": SAMPLE[::-1],
    "strided": np.repeat(SAMPLE, 2, axis=0)[::2],
    "array": array.array("Q", [3, 7, 10, 11, 20, 30]),
    "bytes": SAMPLE.tobytes(),
    "bytearray": bytearray(SAMPLE.tobytes()),
    "view": SAMPLE.data,
    "cast": memoryview(SAMPLE.tobytes()).cast("Q"),
}
PAGE_BUFFERS: dict[str, Any] = {
    "int64": np.array([4, 3, 9]),
    "strided": gfns(4, 0, 3, 0, 9, 0)[::2],
    "array": array.array("Q", [4, 3, 9]),
    "bytes": gfns(4, 3, 9).tobytes(),
    "view": gfns(4, 3, 9).data,
}


@pytest.mark.parametrize("buffer", RANGE_BUFFERS.values(), ids=RANGE_BUFFERS)
def test_from_ranges_takes_any_buffer(buffer: Any) -> None:
    assert canonical(PageSet.from_ranges(buffer).ranges()) == [(3, 7), (10, 11), (20, 30)]


@pytest.mark.parametrize("buffer", PAGE_BUFFERS.values(), ids=PAGE_BUFFERS)
def test_from_pages_takes_any_buffer(buffer: Any) -> None:
    assert canonical(PageSet.from_pages(buffer).ranges()) == [(3, 5), (9, 10)]


def test_read_only_buffers() -> None:
    locked = SAMPLE.copy()
    locked.flags.writeable = False
    assert len(PageSet.from_ranges(locked)) == 15
    pages = gfns(1, 2)
    pages.flags.writeable = False
    assert PageSet.from_pages(pages).contains(pages).tolist() == [True, True]


def test_the_buffer_is_copied() -> None:
    mine = ranges((3, 7))
    made = PageSet.from_ranges(mine)
    mine[0] = (100, 200)
    assert canonical(made.ranges()) == [(3, 7)]


def test_from_bitmap() -> None:
    # 0b1000_0110 is bits 1, 2 and 7; bit 8 follows in the next byte.
    bits = b"\x86\x01"
    assert canonical(PageSet.from_bitmap(bits).ranges()) == [(1, 3), (7, 9)]
    assert canonical(PageSet.from_bitmap(bits, first=100).ranges()) == [(101, 103), (107, 109)]
    assert canonical(PageSet.from_bitmap(bits, npages=8).ranges()) == [(1, 3), (7, 8)]
    assert canonical(PageSet.from_bitmap(bits, first=61, npages=2).ranges()) == [(62, 63)]
    assert PageSet.from_bitmap(b"\x80", first=GFN_LIMIT - 8).min() == GFN_LIMIT - 1
    assert len(PageSet.from_bitmap(b"")) == 0
    assert len(PageSet.from_bitmap(b"\xff", npages=0)) == 0


def test_from_bitmap_takes_any_buffer() -> None:
    words = np.array([1 << 63, 1], dtype=np.uint64)
    assert canonical(PageSet.from_bitmap(words).ranges()) == [(63, 65)]
    assert canonical(PageSet.from_bitmap(words.view(np.uint8)).ranges()) == [(63, 65)]
    assert canonical(PageSet.from_bitmap(words.data).ranges()) == [(63, 65)]
    assert canonical(PageSet.from_bitmap(bytearray(b"\xff" * 9)).ranges()) == [(0, 72)]


def test_membership(sample: PageSet) -> None:
    assert [gfn for gfn in range(33) if gfn in sample] == [3, 4, 5, 6, 10, *range(20, 30)]
    assert GFN_LIMIT - 1 not in sample
    assert np.uint64(10) in sample
    assert np.int32(11) not in sample


def test_contains(sample: PageSet) -> None:
    answer = sample.contains(gfns(2, 3, 6, 7, 29, 30, 3))
    assert answer.dtype == np.bool_
    assert answer.tolist() == [False, True, True, False, True, False, True]
    assert sample.contains(gfns()).shape == (0,)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 3, 0), (0, 4, 1), (4, 6, 2), (6, 21, 3), (0, GFN_LIMIT, 15), (5, 5, 0), (30, 99, 0)],
)
def test_count(sample: PageSet, start: int, stop: int, expected: int) -> None:
    assert sample.count(start, stop) == expected


@pytest.mark.parametrize(
    ("gfn", "expected"),
    [(0, 0), (3, 0), (4, 1), (7, 4), (10, 4), (11, 5), (29, 14), (30, 15), (GFN_LIMIT - 1, 15)],
)
def test_rank(sample: PageSet, gfn: int, expected: int) -> None:
    assert sample.rank(gfn) == expected


@pytest.mark.parametrize(("index", "gfn"), [(0, 3), (3, 6), (4, 10), (5, 20), (14, 29)])
def test_select(sample: PageSet, index: int, gfn: int) -> None:
    assert sample.select(index) == gfn
    assert sample[index] == gfn
    assert sample[index - 15] == gfn
    assert sample[np.int64(index)] == gfn


@pytest.mark.parametrize("index", [15, -16, 2**70, -(2**70)])
def test_no_such_index(sample: PageSet, index: int) -> None:
    with pytest.raises(IndexError):
        sample[index]


@pytest.mark.parametrize("index", [slice(0, 2), slice(None), 1.0, "1", None])
def test_index_of_another_type(sample: PageSet, index: Any) -> None:
    with pytest.raises(TypeError):
        sample[index]


def test_iteration(sample: PageSet) -> None:
    assert list(sample) == [3, 4, 5, 6, 10, *range(20, 30)]
    assert list(reversed(sample)) == [*range(29, 19, -1), 10, 6, 5, 4, 3]
    assert all(type(gfn) is int for gfn in sample)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (None, None, [(3, 7), (10, 11), (20, 30)]),
        (5, None, [(5, 7), (10, 11), (20, 30)]),
        (None, 10, [(3, 7)]),
        (4, 25, [(4, 7), (10, 11), (20, 25)]),
        (7, 10, []),
        (25, 25, []),
        (0, GFN_LIMIT, [(3, 7), (10, 11), (20, 30)]),
    ],
)
def test_windows(sample: PageSet, start: int | None, stop: int | None, expected: Pairs) -> None:
    assert canonical(sample.ranges(start, stop)) == expected
    pages = sample.pages(start, stop)
    assert pages.dtype == np.uint64
    assert pages.flags.c_contiguous
    assert pages.tolist() == [gfn for a, b in expected for gfn in range(a, b)]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 40, [(0, 3), (7, 10), (11, 20), (30, 40)]),
        (3, 7, []),
        (5, 10, [(7, 10)]),
        (8, 9, [(8, 9)]),
        (8, 8, []),
        (29, GFN_LIMIT, [(30, GFN_LIMIT)]),
    ],
)
def test_gaps(sample: PageSet, start: int, stop: int, expected: Pairs) -> None:
    assert canonical(sample.gaps(start, stop)) == expected


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (100, [3])])
def test_iter_ranges(sample: PageSet, batch: int, sizes: list[int]) -> None:
    parts = [canonical(part) for part in sample.iter_ranges(batch=batch)]
    assert [len(part) for part in parts] == sizes
    assert [pair for part in parts for pair in part] == [(3, 7), (10, 11), (20, 30)]


def test_iter_ranges_of_many_leaves() -> None:
    made = PageSet.from_pages(np.arange(0, 2**18, 2, dtype=np.uint64))
    parts = list(made.iter_ranges())
    assert [len(part) for part in parts] == [65536, 65536]
    assert np.array_equal(np.concatenate(parts)[:, 0], np.arange(0, 2**18, 2))


@pytest.mark.parametrize(
    ("start", "npages", "expected"),
    [
        (0, 0, ""),
        (0, 1, "00" * 8),
        (3, 1, "01" + "00" * 7),
        (0, 8, "78" + "00" * 7),
        (0, 64, "780470" + "3f" + "00" * 4),
        (4, 64, "4700f703" + "00" * 4),
        (0, 65, "7804703f" + "00" * 12),
        (0, 22, "780430" + "00" * 5),
    ],
)
def test_to_bitmap(start: int, npages: int, expected: str) -> None:
    # Byte 0 holds 3 to 6, byte 1 holds 10, byte 2 holds 20 to 22, byte 3 holds 24 to 29.
    given = PageSet.from_ranges(ranges((3, 7), (10, 11), (20, 23), (24, 30)))
    bits = given.to_bitmap(start, npages)
    assert bits.dtype == np.uint8
    assert bits.shape == ((npages + 63) // 64 * 8,)
    assert bits.tobytes().hex() == expected


def test_to_bitmap_into_a_buffer(sample: PageSet) -> None:
    out = np.full(16, 0xAA, dtype=np.uint8)
    answer = sample.to_bitmap(0, 100, out=out)
    assert out.tobytes().hex() == "7804f03f" + "00" * 12
    assert np.asarray(answer).tobytes() == out.tobytes()
    writable = bytearray(8)
    sample.to_bitmap(20, 10, out=writable)
    assert writable.hex() == "ff03" + "00" * 6


def test_to_bitmap_comes_back() -> None:
    made = PageSet.from_ranges(ranges((5, 70), (100, 101), (65530, 65540)))
    bits = made.to_bitmap(0, 65600)
    assert PageSet.from_bitmap(bits) == made
    clipped = PageSet.from_bitmap(bits, npages=65535)
    assert canonical(clipped.ranges()) == [(5, 70), (100, 101), (65530, 65535)]


@pytest.mark.parametrize(
    ("infix", "counter", "expected"),
    [
        (op.or_, "union_count", [(0, 30), (40, 41)]),
        (op.and_, "intersection_count", [(5, 10), (20, 25)]),
        (op.sub, "difference_count", [(0, 5), (25, 30)]),
        (op.xor, "symmetric_difference_count", [(0, 5), (10, 20), (25, 30), (40, 41)]),
    ],
)
def test_algebra(infix: Callable[..., PageSet], counter: str, expected: Pairs) -> None:
    left = PageSet.from_ranges(ranges((0, 10), (20, 30)))
    right = PageSet.from_ranges(ranges((5, 25), (40, 41)))
    result = infix(left, right)
    assert type(result) is PageSet
    assert canonical(result.ranges()) == expected
    assert getattr(left, counter)(right) == sum(stop - start for start, stop in expected)
    assert canonical(left.ranges()) == [(0, 10), (20, 30)]
    assert canonical(right.ranges()) == [(5, 25), (40, 41)]


def test_algebra_with_the_empty_set_and_itself(sample: PageSet) -> None:
    empty = PageSet()
    assert sample | empty == sample - empty == sample & sample == sample
    assert sample & empty == empty - sample == sample ^ sample == empty


def test_comparisons() -> None:
    small = PageSet.from_ranges(ranges((3, 5)))
    large = PageSet.from_ranges(ranges((2, 9)))
    other = PageSet.from_ranges(ranges((8, 12)))
    assert small <= large and small < large and large >= small and large > small
    assert not large <= small and not large < small and not small >= large and not small > large
    assert small <= small and small >= small and not small < small and not small > small
    assert not large <= other and not large >= other
    assert small.isdisjoint(other) and not large.isdisjoint(other)
    assert PageSet().isdisjoint(PageSet())


def test_equality_and_hash_are_by_content() -> None:
    by_ranges = PageSet.from_ranges(ranges((0, 8), (70000, 70002)))
    same = [
        PageSet.from_ranges(ranges((70001, 70002), (4, 8), (0, 5), (70000, 70001))),
        PageSet.from_pages(gfns(70001, 7, 6, 5, 4, 3, 2, 1, 0, 70000)),
        PageSet.from_bitmap(b"\xff") | PageSet.from_bitmap(b"\x03", first=70000),
        PageSet.from_ranges(ranges((0, 200000)))
        - PageSet.from_ranges(ranges((8, 70000), (70002, 200000))),
    ]
    for twin in same:
        assert twin == by_ranges
        assert (twin != by_ranges) is False
        assert hash(twin) == hash(by_ranges)
    assert len({by_ranges, *same}) == 1
    assert by_ranges != PageSet.from_ranges(ranges((0, 8), (70000, 70001)))


def test_equality_across_leaf_kinds() -> None:
    odd = np.arange(1, 65536, 2, dtype=np.uint64)
    dense = PageSet.from_pages(odd)
    carved = PageSet.from_ranges(ranges((0, 65536))) - PageSet.from_pages(odd - 1)
    assert dense == carved
    assert hash(dense) == hash(carved)
    assert (dense | PageSet.from_pages(odd - 1)) == PageSet.from_ranges(ranges((0, 65536)))
    assert (dense & PageSet.from_ranges(ranges((0, 4)))) == PageSet.from_pages(gfns(1, 3))


@pytest.mark.parametrize("other", [None, 3, "pages", {3, 4}, SAMPLE.tobytes()])
def test_other_types(sample: PageSet, other: Any) -> None:
    assert (sample == other) is False
    assert (sample != other) is True
    for infix in (op.or_, op.and_, op.sub, op.xor, op.lt, op.le, op.gt, op.ge):
        with pytest.raises(TypeError):
            infix(sample, other)
    for name in ("isdisjoint", "union_count", "intersection_count", "difference_count"):
        with pytest.raises(TypeError):
            getattr(sample, name)(other)


@pytest.mark.parametrize(
    "pairs",
    [(), ((0, 1),), ((3, 7), (10, 11), (20, 30)), ((0, GFN_LIMIT),), ((2**32 - 1, 2**32 + 1),)],
)
def test_pickles_and_copies(pairs: tuple[tuple[int, int], ...]) -> None:
    made = PageSet.from_ranges(ranges(*pairs))
    data = pickle.dumps(made, protocol=5)
    assert len(data) < 4096
    for back in (pickle.loads(data), copy.copy(made), copy.deepcopy(made)):
        assert type(back) is PageSet
        assert back == made
        assert canonical(back.ranges()) == list(pairs)


def test_memory() -> None:
    dense = PageSet.from_pages(np.arange(0, 2**20, 2, dtype=np.uint64))
    assert 2**16 <= dense.nbytes <= 2**18
    assert sys.getsizeof(dense) >= dense.nbytes
    assert sys.getsizeof(dense) > sys.getsizeof(PageSet())
    assert PageSet.from_ranges(ranges((0, 2**52))).nbytes < 65536


def test_stats(sample: PageSet) -> None:
    stats = sample.stats()
    assert {"pages", "ranges", "nodes", "leaves", "bytes"} <= set(stats)
    assert stats["pages"] == 15
    assert stats["ranges"] == 3
    assert stats["bytes"] == sample.nbytes
    assert sum(stats["leaves"].values()) >= 1
    assert PageSet().stats()["pages"] == 0


def test_huge_results_are_a_memory_error() -> None:
    everything = PageSet.from_ranges(ranges((0, GFN_LIMIT)))
    with pytest.raises(MemoryError):
        everything.pages()
    with pytest.raises(MemoryError):
        everything.to_bitmap(0, GFN_LIMIT)
    assert len(everything) == 2**52
