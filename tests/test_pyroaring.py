# tier: model
"""Each pair of docs/pyroaring.md on random sets: pyroaring's answer, and ours from the same pages.

Answers are compared as integers, floats, lists of pages or, for what changes a bitmap, as the pages
that are left. A pair that the table has and this file has not fails the first test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given
from hypothesis import seed as seeded
from model import GFN_LIMIT, SEAMS, events
from pyroaring import BitMap64
from test_parity_table import ROWS

from pysharedpages import PageSet, SharedPages

LOW = 1 << 17
Pages = frozenset[int]
Theirs = Callable[[BitMap64, BitMap64, int, int], Any]
Ours = Callable[[PageSet, PageSet, int, int], Any]
Change = Callable[[BitMap64, BitMap64, int, int], Any]
Changed = Callable[[SharedPages, PageSet, int, int], Any]


def listed(answer: Any) -> Any:
    """An answer in a form that both sides have."""
    if isinstance(answer, (BitMap64, PageSet)):
        return list(answer)
    if isinstance(answer, float) and math.isnan(answer):
        return "nan"
    return answer.tolist() if isinstance(answer, np.ndarray) else answer


def raised(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or "nothing" where pyroaring raises for want of one."""
    try:
        return ask(*arguments)
    except (ValueError, IndexError):
        return "nothing"


def shifted(b: BitMap64, offset: int) -> list[int]:
    """pyroaring's shift, without what is no gfn."""
    return [page for page in b.shift(offset) if page < GFN_LIMIT]


def next_member(s: PageSet, x: int) -> Any:
    found = s.next_member(x)
    return "nothing" if found is None else found


# b, c and s, t hold the same pages; x <= y are gfns below LOW + 1, mostly about the members.
ASKED: dict[str, tuple[Theirs, Ours]] = {
    "contains_range": (
        lambda b, c, x, y: b.contains_range(x, y),
        lambda s, t, x, y: s.contains_range(x, y),
    ),
    "copy": (lambda b, c, x, y: b.copy(), lambda s, t, x, y: s.copy()),
    "deserialize": (
        lambda b, c, x, y: BitMap64.deserialize(b.serialize()),
        lambda s, t, x, y: PageSet.from_roaring(s.to_roaring()),
    ),
    "difference": (lambda b, c, x, y: b.difference(c), lambda s, t, x, y: s.difference(t)),
    "difference_cardinality": (
        lambda b, c, x, y: b.difference_cardinality(c),
        lambda s, t, x, y: s.difference_cardinality(t),
    ),
    "flip": (lambda b, c, x, y: b.flip(x, y), lambda s, t, x, y: s.flip(x, y)),
    "get_statistics": (
        lambda b, c, x, y: b.get_statistics()["cardinality"],
        lambda s, t, x, y: s.stats()["pages"],
    ),
    "intersect": (lambda b, c, x, y: b.intersect(c), lambda s, t, x, y: s.intersect(t)),
    "intersection": (
        lambda b, c, x, y: b.intersection(c, b),
        lambda s, t, x, y: s.intersection(t, s),
    ),
    "intersection_cardinality": (
        lambda b, c, x, y: b.intersection_cardinality(c),
        lambda s, t, x, y: s.intersection_cardinality(t),
    ),
    "isdisjoint": (lambda b, c, x, y: b.isdisjoint(c), lambda s, t, x, y: s.isdisjoint(t)),
    "issubset": (lambda b, c, x, y: (b & c).issubset(c), lambda s, t, x, y: (s & t).issubset(t)),
    "issuperset": (lambda b, c, x, y: b.issuperset(c), lambda s, t, x, y: s.issuperset(t)),
    "iter_equal_or_larger": (
        lambda b, c, x, y: list(b.iter_equal_or_larger(x)),
        lambda s, t, x, y: s.pages(x),
    ),
    "jaccard_index": (
        lambda b, c, x, y: b.jaccard_index(c),
        lambda s, t, x, y: s.jaccard_index(t),
    ),
    "max": (lambda b, c, x, y: raised(b.max), lambda s, t, x, y: raised(s.max)),
    "min": (lambda b, c, x, y: raised(b.min), lambda s, t, x, y: raised(s.min)),
    "next_set_bit": (
        lambda b, c, x, y: raised(b.next_set_bit, x),
        lambda s, t, x, y: next_member(s, x),
    ),
    "range_cardinality": (
        lambda b, c, x, y: b.range_cardinality(x, y),
        lambda s, t, x, y: s.range_cardinality(x, y),
    ),
    "rank": (
        lambda b, c, x, y: [b.rank(x), b.rank(y)],
        lambda s, t, x, y: s.rank([x + 1, y + 1]),
    ),
    "serialize": (
        lambda b, c, x, y: BitMap64.deserialize(b.serialize()),
        lambda s, t, x, y: BitMap64.deserialize(s.to_roaring()),
    ),
    "shift": (
        lambda b, c, x, y: [shifted(b, x - LOW // 2), shifted(b, y)],
        lambda s, t, x, y: [list(s.shift(x - LOW // 2)), list(s.shift(y))],
    ),
    "symmetric_difference": (
        lambda b, c, x, y: b.symmetric_difference(c),
        lambda s, t, x, y: s.symmetric_difference(t),
    ),
    "symmetric_difference_cardinality": (
        lambda b, c, x, y: b.symmetric_difference_cardinality(c),
        lambda s, t, x, y: s.symmetric_difference_cardinality(t),
    ),
    "to_array": (lambda b, c, x, y: b.to_array().tolist(), lambda s, t, x, y: s.pages()),
    "union": (lambda b, c, x, y: b.union(c, b), lambda s, t, x, y: s.union(t, s)),
    "union_cardinality": (
        lambda b, c, x, y: b.union_cardinality(c),
        lambda s, t, x, y: s.union_cardinality(t),
    ),
}

CHANGES: dict[str, tuple[Change, Changed]] = {
    "add": (lambda b, c, x, y: b.add(x), lambda p, t, x, y: p.share(x)),
    "add_checked": (
        lambda b, c, x, y: None if x in b else b.add_checked(x),
        lambda p, t, x, y: p.share(x),
    ),
    "add_range": (lambda b, c, x, y: b.add_range(x, y), lambda p, t, x, y: p.share(x, y - x)),
    "clear": (lambda b, c, x, y: b.clear(), lambda p, t, x, y: p.reset()),
    "difference_update": (
        lambda b, c, x, y: b.difference_update(c),
        lambda p, t, x, y: p.apply(as_events(t, False)),
    ),
    "discard": (lambda b, c, x, y: b.discard(x), lambda p, t, x, y: p.unshare(x)),
    "flip_inplace": (
        lambda b, c, x, y: b.flip_inplace(x, y),
        lambda p, t, x, y: p.set_list(p.snapshot().flip(x, y).ranges()),
    ),
    "intersection_update": (
        lambda b, c, x, y: b.intersection_update(c),
        lambda p, t, x, y: p.set_list((p.snapshot() & t).ranges()),
    ),
    "overwrite": (
        lambda b, c, x, y: b.overwrite(c),
        lambda p, t, x, y: p.set_list(t.ranges()),
    ),
    "remove": (
        lambda b, c, x, y: b.remove(x) if x in b else None,
        lambda p, t, x, y: p.unshare(x),
    ),
    "remove_range": (
        lambda b, c, x, y: b.remove_range(x, y),
        lambda p, t, x, y: p.unshare(x, y - x),
    ),
    "symmetric_difference_update": (
        lambda b, c, x, y: b.symmetric_difference_update(c),
        lambda p, t, x, y: p.set_list((p.snapshot() ^ t).ranges()),
    ),
    "update": (
        lambda b, c, x, y: b.update(c),
        lambda p, t, x, y: p.apply(as_events(t, True)),
    ),
}


def as_events(pages: PageSet, shared: bool) -> Any:
    return events(*[(start, stop - start, shared) for start, stop in pages.ranges().tolist()])


def test_every_pair_is_run() -> None:
    paired = {name for name, here, _ in ROWS if here != "-" and not name.startswith("__")}
    assert set(ASKED) | set(CHANGES) == paired


@st.composite
def sets(draw: st.DrawFn) -> Pages:
    """Runs and strides about the seams, enough pages at times for every kind of leaf."""
    found: set[int] = set()
    for _ in range(draw(st.integers(0, 4))):
        seam = draw(st.sampled_from((0, 0, 1000, *SEAMS[:6])))
        start = max(0, seam + draw(st.integers(-3000, 3000)))
        count = draw(st.sampled_from((1, 2, 7, 100, 3000, 5000)))
        stride = draw(st.sampled_from((1, 1, 2, 3, 20)))
        found.update(range(start, start + count * stride, stride))
    return frozenset(found)


bounds = st.tuples(st.integers(0, LOW), st.integers(0, LOW)).map(sorted)


def both(pages: Pages) -> tuple[BitMap64, PageSet]:
    ordered = np.array(sorted(pages), np.uint64)
    return BitMap64(pages), PageSet.from_pages(ordered)


def test_answers(seed: int) -> None:
    @seeded(seed)
    @given(sets(), sets(), bounds)
    def check(first: Pages, second: Pages, at: list[int]) -> None:
        (b, s), (c, t) = both(first), both(second)
        for name, (theirs, ours) in ASKED.items():
            assert listed(ours(s, t, *at)) == listed(theirs(b, c, *at)), name
        assert (list(s), list(t)) == (sorted(first), sorted(second))

    check()


def test_changes(seed: int, engine: str) -> None:
    @seeded(seed)
    @given(sets(), sets(), bounds)
    def check(first: Pages, second: Pages, at: list[int]) -> None:
        c, t = both(second)
        with SharedPages(engine=engine) as pages:
            for name, (theirs, ours) in CHANGES.items():
                b, s = both(first)
                pages.set_list(s.ranges())
                changed = ours(pages, t, *at)
                theirs(b, c, *at)
                left = pages.snapshot()
                assert left.pages().tolist() == b.to_array().tolist(), name
                assert changed == left.symmetric_difference_count(s), name

    check()


def test_neighbours_and_arrays_against_python_sets(seed: int, engine: str) -> None:
    @seeded(seed)
    @given(sets(), st.lists(st.integers(0, LOW), min_size=1, max_size=20))
    def check(pages: Pages, asked: list[int]) -> None:
        ordered = sorted(pages)
        with SharedPages(engine=engine) as tracker:
            tracker.set_list(both(pages)[1].ranges())
            s = tracker.snapshot()
        assert s.rank(asked).tolist() == [sum(page < x for page in ordered) for x in asked]
        places = [x % len(ordered) for x in asked] if ordered else []
        assert s.select(places).tolist() == [ordered[i] for i in places]
        for x in asked[:4]:
            assert s.next_member(x) == min((page for page in ordered if page >= x), default=None)
            assert s.prev_member(x) == max((page for page in ordered if page <= x), default=None)
            assert s.next_gap(x) == next(gfn for gfn in count(x) if gfn not in pages)
            below = (gfn for gfn in range(x, -1, -1) if gfn not in pages)
            assert s.prev_gap(x) == next(below, None)
        assert list(s.shift(asked[0])) == [page + asked[0] for page in ordered]
        assert list(s.shift(-asked[0])) == [p - asked[0] for p in ordered if p >= asked[0]]

    check()
