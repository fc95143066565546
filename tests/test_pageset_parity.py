# tier: unit
"""Methods that PageSet has for those who come from pyroaring, against values written by hand."""

from __future__ import annotations

import array
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model import GFN_LIMIT, canonical, gfns, names, ranges

from pysharedpages import ClosedError, PageSet, RangeError, SharedPages, Snapshot

LAST = GFN_LIMIT - 1
Pairs = list[tuple[int, int]]


def made(*pairs: tuple[int, int]) -> PageSet:
    """The set of these ranges."""
    return PageSet.from_ranges(ranges(*pairs))


SAMPLE = made((3, 7), (10, 11), (20, 30))
"""3 4 5 6, 10, 20 to 29: fifteen pages in three ranges."""


# Neighbours.


@pytest.mark.parametrize(
    ("gfn", "expected"),
    [(0, 3), (3, 3), (6, 6), (7, 10), (10, 10), (11, 20), (29, 29), (30, None), (LAST, None)],
)
def test_next_member(gfn: int, expected: int | None) -> None:
    assert SAMPLE.next_member(gfn) == expected


@pytest.mark.parametrize(
    ("gfn", "expected"), [(0, 0), (3, 7), (6, 7), (7, 7), (10, 11), (20, 30), (LAST, LAST)]
)
def test_next_gap(gfn: int, expected: int) -> None:
    assert SAMPLE.next_gap(gfn) == expected


@pytest.mark.parametrize(
    ("gfn", "expected"),
    [(0, None), (2, None), (3, 3), (6, 6), (9, 6), (10, 10), (19, 10), (30, 29), (LAST, 29)],
)
def test_prev_member(gfn: int, expected: int | None) -> None:
    assert SAMPLE.prev_member(gfn) == expected


@pytest.mark.parametrize(
    ("gfn", "expected"), [(0, 0), (3, 2), (6, 2), (8, 8), (10, 9), (29, 19), (30, 30)]
)
def test_prev_gap(gfn: int, expected: int) -> None:
    assert SAMPLE.prev_gap(gfn) == expected


def test_neighbours_at_the_ends() -> None:
    whole, top, low = made((0, GFN_LIMIT)), made((LAST, GFN_LIMIT)), made((0, 70000))
    assert (whole.next_gap(0), whole.prev_gap(LAST)) == (None, None)
    assert (whole.next_member(LAST), whole.prev_member(0)) == (LAST, 0)
    assert (top.next_gap(LAST), top.prev_gap(LAST), top.next_member(0)) == (None, LAST - 1, LAST)
    assert (low.prev_gap(69999), low.next_gap(0), low.prev_gap(70000)) == (None, 70000, 70000)
    assert (PageSet().next_member(0), PageSet().prev_member(LAST)) == (None, None)


# Ranks and members by the array.


def test_ranks_of_an_array() -> None:
    ranks = SAMPLE.rank(gfns(30, 0, 3, 4, 4, 29, GFN_LIMIT))
    assert ranks.dtype == np.uint64
    assert ranks.tolist() == [15, 0, 0, 1, 1, 14, 15]
    assert SAMPLE.rank([5, 11]).tolist() == [2, 5]
    assert SAMPLE.rank((5,)).tolist() == [2]
    assert SAMPLE.rank([]).shape == (0,)
    assert SAMPLE.rank(array.array("Q", [11])).tolist() == [5]
    assert SAMPLE.rank(np.array([7, 21], np.int32)).tolist() == [4, 6]
    assert SAMPLE.rank(gfns(11).data).tolist() == [5]


def test_members_of_an_array() -> None:
    members = SAMPLE.select(gfns(14, 0, 3, 4, 4))
    assert members.dtype == np.uint64
    assert members.tolist() == [29, 3, 6, 10, 10]
    assert SAMPLE.select([-1, 0, -15]).tolist() == [29, 3, 3]
    assert SAMPLE.select(np.array([-2, 1], np.int8)).tolist() == [28, 4]
    assert SAMPLE.select([]).shape == (0,)
    assert SAMPLE.select(np.arange(15)).tolist() == SAMPLE.pages().tolist()


@pytest.mark.parametrize("scalar", [4, np.int64(4), np.uint64(4), np.array(4)], ids=type)
def test_scalars_stay_scalars(scalar: Any) -> None:
    assert type(SAMPLE.rank(scalar)) is int and SAMPLE.rank(scalar) == 1
    assert type(SAMPLE.select(scalar)) is int and SAMPLE.select(scalar) == 10


@pytest.mark.parametrize("bad", [GFN_LIMIT + 1, 2**64 - 1])
def test_ranks_beyond(bad: int) -> None:
    with pytest.raises(RangeError) as raised:
        SAMPLE.rank(gfns(1, bad, 2))
    names(raised.value, {bad}, {GFN_LIMIT})


@pytest.mark.parametrize(
    ("given", "bad"),
    [
        (gfns(1, 15), 15),
        ([0, -16], -16),
        ([15], 15),
        (gfns(2**64 - 1), 2**64 - 1),
        ([-(2**63)], -(2**63)),
    ],
    ids=str,
)
def test_members_beyond(given: Any, bad: int) -> None:
    with pytest.raises(IndexError) as raised:
        SAMPLE.select(given)
    names(raised.value, {bad}, {15})


@pytest.mark.parametrize("given", [[0.5], ["1"], [True], np.zeros(2), [None]], ids=str)
@pytest.mark.parametrize("ask", [SAMPLE.rank, SAMPLE.select], ids=["rank", "select"])
def test_arrays_of_other_types(ask: Callable[[Any], object], given: Any) -> None:
    with pytest.raises(TypeError):
        ask(given)


@pytest.mark.parametrize("given", [1.0, "1", None, np.float64(1), np.bool_(True)], ids=type)
@pytest.mark.parametrize("ask", [SAMPLE.select, SAMPLE.__getitem__], ids=["select", "[]"])
def test_an_index_is_an_integer(ask: Callable[[Any], object], given: Any) -> None:
    with pytest.raises(TypeError, match="index must be an integer, not "):
        ask(given)


def test_an_array_is_no_index() -> None:
    with pytest.raises(TypeError, match="select"):
        SAMPLE[np.array([1, 2])]


# Other sets of one.


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, [(3, 7), (10, 11), (20, 30)]),
        (5, [(8, 12), (15, 16), (25, 35)]),
        (-4, [(0, 3), (6, 7), (16, 26)]),
        (-29, [(0, 1)]),
        (-30, []),
        (65536 - 25, [(65514, 65518), (65521, 65522), (65531, 65541)]),
        (GFN_LIMIT - 25, [(GFN_LIMIT - 22, GFN_LIMIT - 18), (GFN_LIMIT - 15, GFN_LIMIT - 14)]),
        (LAST, []),
        (2**70, []),
        (-(2**70), []),
    ],
)
def test_shift(offset: int, expected: Pairs) -> None:
    wanted = expected + [(GFN_LIMIT - 5, GFN_LIMIT)] * (offset == GFN_LIMIT - 25)
    assert canonical(SAMPLE.shift(offset).ranges()) == wanted
    assert canonical(SAMPLE.ranges()) == [(3, 7), (10, 11), (20, 30)]


def test_shift_of_every_page() -> None:
    whole = made((0, GFN_LIMIT))
    assert canonical(whole.shift(3).ranges()) == [(3, GFN_LIMIT)]
    assert canonical(whole.shift(-3).ranges()) == [(0, GFN_LIMIT - 3)]
    assert whole.shift(GFN_LIMIT) == PageSet()


@pytest.mark.parametrize("offset", [1, 64, -1, -64, 65536, -65536, 12345, -100000])
def test_shift_of_bitmaps(offset: int) -> None:
    odd = np.arange(200001, 400001, 2, dtype=np.uint64)
    moved = PageSet.from_pages(odd).shift(offset)
    assert np.array_equal(moved.pages(), (odd.astype(np.int64) + offset).astype(np.uint64))


@pytest.mark.parametrize("offset", [1.0, "1", None, [1]], ids=repr)
def test_shift_by_other_types(offset: Any) -> None:
    with pytest.raises(TypeError, match="offset"):
        SAMPLE.shift(offset)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 0, [(3, 7), (10, 11), (20, 30)]),
        (0, 31, [(0, 3), (7, 10), (11, 20), (30, 31)]),
        (5, 25, [(3, 5), (7, 10), (11, 20), (25, 30)]),
        (40, GFN_LIMIT, [(3, 7), (10, 11), (20, 30), (40, GFN_LIMIT)]),
    ],
)
def test_flip(start: int, stop: int, expected: Pairs) -> None:
    assert canonical(SAMPLE.flip(start, stop).ranges()) == expected


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(3, 7, True), (4, 6, True), (3, 8, False), (2, 4, False), (5, 5, True), (8, 8, True)],
)
def test_contains_range(start: int, stop: int, expected: bool) -> None:
    assert SAMPLE.contains_range(start, stop) is expected


# Many sets.

FIRST, SECOND, THIRD = made((0, 10)), made((5, 15)), made((8, 20), (40, 41))


@pytest.mark.parametrize(
    ("name", "one", "all_three"),
    [
        ("union", [(0, 10)], [(0, 20), (40, 41)]),
        ("intersection", [(0, 10)], [(8, 10)]),
        ("difference", [(0, 10)], [(0, 5)]),
        ("symmetric_difference", [(0, 10)], [(0, 5), (8, 10), (15, 20), (40, 41)]),
    ],
)
def test_many_sets(name: str, one: Pairs, all_three: Pairs) -> None:
    assert canonical(getattr(FIRST, name)().ranges()) == one
    assert canonical(getattr(FIRST, name)(SECOND, THIRD).ranges()) == all_three
    for bad in ({1, 2}, [1], 1, None, ranges((1, 2))):
        with pytest.raises(TypeError, match="argument 1"):
            getattr(FIRST, name)(SECOND, bad)


def test_many_sets_of_many() -> None:
    parts = [made((i * 10, i * 10 + 10)) for i in range(101)]
    assert canonical(parts[0].union(*parts[1:]).ranges()) == [(0, 1010)]
    assert canonical(parts[0].symmetric_difference(*parts).ranges()) == [(10, 1010)]
    assert canonical(made((0, 1010)).difference(*parts[1:]).ranges()) == [(0, 10)]
    assert canonical(made((0, 1010)).intersection(*[parts[7]] * 9).ranges()) == [(70, 80)]


def test_relations() -> None:
    assert FIRST.intersect(SECOND) and not FIRST.isdisjoint(SECOND)
    assert not FIRST.intersect(made((10, 12))) and FIRST.isdisjoint(made((10, 12)))
    assert made((5, 10)).issubset(FIRST) and not SECOND.issubset(FIRST)
    assert FIRST.issuperset(made((5, 10))) and not FIRST.issuperset(SECOND)
    assert FIRST.issubset(FIRST) and FIRST.issuperset(FIRST)
    assert PageSet().issubset(PageSet()) and not PageSet().intersect(PageSet())


def test_jaccard_index() -> None:
    assert made((3, 4), (10, 11), (12, 13)).jaccard_index(made((3, 4), (18, 19))) == 0.25
    assert FIRST.jaccard_index(FIRST) == 1.0
    assert FIRST.jaccard_index(PageSet()) == 0.0
    assert math.isnan(PageSet().jaccard_index(PageSet()))


def test_cardinalities() -> None:
    assert FIRST.union_cardinality(SECOND) == 15
    assert FIRST.intersection_cardinality(SECOND) == 5
    assert FIRST.difference_cardinality(SECOND) == 5
    assert FIRST.symmetric_difference_cardinality(SECOND) == 10
    assert FIRST.range_cardinality(4, 40) == 6


@pytest.mark.parametrize("name", ["jaccard_index", "intersect", "issubset", "issuperset"])
def test_other_sets_are_page_sets(name: str) -> None:
    for bad in (None, {1}, [1], 1):
        with pytest.raises(TypeError):
            getattr(SAMPLE, name)(bad)


# Bad gfns, and snapshots.


@pytest.mark.parametrize("name", ["next_member", "next_gap", "prev_member", "prev_gap"])
def test_neighbours_of_what_is_no_gfn(name: str) -> None:
    for bad in (-1, GFN_LIMIT, 2**64, 2**70):
        with pytest.raises(RangeError) as raised:
            getattr(SAMPLE, name)(bad)
        names(raised.value, {bad}, {LAST} if bad > 0 else set())
    for other in (1.0, "1", None, [1]):
        with pytest.raises(TypeError):
            getattr(SAMPLE, name)(other)


@pytest.mark.parametrize("name", ["flip", "contains_range", "range_cardinality"])
def test_windows_that_are_none(name: str) -> None:
    for start, stop in ((5, 4), (0, GFN_LIMIT + 1), (-1, 4)):
        with pytest.raises(RangeError):
            getattr(SAMPLE, name)(start, stop)


CALLS: dict[str, Callable[[Snapshot], object]] = {
    "rank": lambda snap: snap.rank([1]),
    "select": lambda snap: snap.select([0]),
    "next_member": lambda snap: snap.next_member(0),
    "next_gap": lambda snap: snap.next_gap(0),
    "prev_member": lambda snap: snap.prev_member(9),
    "prev_gap": lambda snap: snap.prev_gap(9),
    "contains_range": lambda snap: snap.contains_range(0, 1),
    "range_cardinality": lambda snap: snap.range_cardinality(0, 1),
    "shift": lambda snap: snap.shift(1),
    "flip": lambda snap: snap.flip(0, 1),
    "copy": lambda snap: snap.copy(),
    "union": lambda snap: snap.union(),
    "union of": lambda snap: SAMPLE.union(SAMPLE, snap),
    "intersection": lambda snap: snap.intersection(),
    "intersection with": lambda snap: SAMPLE.intersection(snap),
    "difference": lambda snap: snap.difference(SAMPLE),
    "symmetric_difference": lambda snap: snap.symmetric_difference(SAMPLE),
    "jaccard_index": lambda snap: snap.jaccard_index(SAMPLE),
    "intersect": lambda snap: snap.intersect(SAMPLE),
    "issubset": lambda snap: snap.issubset(SAMPLE),
    "issuperset": lambda snap: SAMPLE.issuperset(snap),
    "union_cardinality": lambda snap: snap.union_cardinality(SAMPLE),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_snapshots_answer_until_they_are_closed(
    call: Callable[[Snapshot], object], tracker: Callable[..., SharedPages]
) -> None:
    pages = tracker(1000)
    pages.share(3, 4)
    snap = pages.snapshot()
    call(snap)
    snap.close()
    with pytest.raises(ClosedError):
        call(snap)


def test_what_is_made_of_a_snapshot(tracker: Callable[..., SharedPages]) -> None:
    pages = tracker(1000)
    pages.share(3, 4)
    snap = pages.snapshot()
    copied, united = snap.copy(), snap.union()
    assert type(copied) is Snapshot and type(united) is PageSet
    assert type(snap.shift(1)) is type(snap.flip(0, 9)) is type(snap.difference()) is PageSet
    snap.close()
    assert canonical(copied.ranges()) == canonical(united.ranges()) == [(3, 7)]
    assert copied.epoch == 1
    assert SAMPLE.copy() is SAMPLE
