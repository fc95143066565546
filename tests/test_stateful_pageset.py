# tier: model
"""PageSet against a Python set and pyroaring, step by step, on pages about every seam.

Results are operands again, and so are snapshots, whose nodes are not shared but copied, and sets of
either engine.
"""

from __future__ import annotations

import pickle

import hypothesis.strategies as st
import numpy as np
from hypothesis import seed as seeded
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    rule,
    run_state_machine_as_test,
)
from model import GFN_LIMIT, SEAMS, canonical, from_set, ranges
from pyroaring import BitMap64

from pysharedpages import PageSet, SharedPages

Values = tuple[PageSet, frozenset[int]]


def about_seams(reach: int) -> st.SearchStrategy[int]:
    """Gfns at most `reach` pages from a seam or from 0."""
    return st.builds(
        lambda seam, offset: min(max(seam + offset, 0), GFN_LIMIT - 1),
        st.sampled_from((0, *SEAMS)),
        st.integers(-reach, reach),
    )


GFNS = about_seams(70)
STARTS = about_seams(5000)
KINDS = st.sampled_from(("roaring", "interval"))


@st.composite
def runs(draw: st.DrawFn) -> range:
    """Pages at a stride, enough of them at times to make a leaf of any kind."""
    start = draw(STARTS)
    stride = draw(st.sampled_from((1, 1, 2, 3, 64, 65, 4096)))
    count = draw(st.one_of(st.integers(1, 200), st.sampled_from((2047, 2048, 2049, 4096, 5000))))
    return range(start, min(start + count * stride, GFN_LIMIT), stride)


class PageSets(RuleBasedStateMachine):
    """Every set made so far, each beside a Python set that must hold the same pages."""

    made = Bundle("made")

    @rule(target=made, pages=st.lists(GFNS, max_size=60))
    def from_pages(self, pages: list[int]) -> Values:
        return PageSet.from_pages(np.array(pages, dtype=np.uint64)), frozenset(pages)

    @rule(target=made, pages=runs())
    def from_a_run(self, pages: range) -> Values:
        return PageSet.from_pages(np.array(pages, dtype=np.uint64)), frozenset(pages)

    @rule(target=made, spans=st.lists(st.tuples(STARTS, st.integers(0, 500)), max_size=12))
    def from_ranges(self, spans: list[tuple[int, int]]) -> Values:
        pairs = [(start, min(start + length, GFN_LIMIT)) for start, length in spans]
        pages = frozenset(gfn for start, stop in pairs for gfn in range(start, stop))
        return PageSet.from_ranges(ranges(*pairs)), pages

    @rule(target=made, first=GFNS, data=st.binary(max_size=80))
    def from_bitmap(self, first: int, data: bytes) -> Values:
        npages = min(len(data) * 8, GFN_LIMIT - first)
        pages = frozenset(first + bit for bit in range(npages) if data[bit // 8] >> bit % 8 & 1)
        return PageSet.from_bitmap(data, first=first, npages=npages), pages

    @rule(target=made, one=made, engine=KINDS)
    def as_a_snapshot(self, one: Values, engine: str) -> Values:
        with SharedPages(engine=engine) as tracker:
            tracker.set_list(one[0].ranges())
            return tracker.snapshot(), one[1]

    @rule(target=made, one=made, engine=KINDS)
    def held_by_an_engine(self, one: Values, engine: str) -> Values:
        with SharedPages(engine=engine) as tracker:
            tracker.set_list(one[0].ranges())
            return tracker.snapshot() & tracker.snapshot(), one[1]

    @rule(target=made, left=made, right=made, operator=st.sampled_from("|&-^"))
    def combine(self, left: Values, right: Values, operator: str) -> Values:
        name, counter = {
            "|": ("__or__", "union_count"),
            "&": ("__and__", "intersection_count"),
            "-": ("__sub__", "difference_count"),
            "^": ("__xor__", "symmetric_difference_count"),
        }[operator]
        result = getattr(left[0], name)(right[0])
        pages = getattr(left[1], name)(right[1])
        assert getattr(left[0], counter)(right[0]) == len(pages)
        second = getattr(BitMap64(left[1]), name)(BitMap64(right[1]))
        assert np.array_equal(result.pages(), np.array(list(second), dtype=np.uint64))
        assert (len(left[0]), len(right[0])) == (len(left[1]), len(right[1]))
        return result, pages

    @rule(one=made)
    def look(self, one: Values) -> None:
        pages, expected = one[0], sorted(one[1])
        assert len(pages) == len(expected)
        assert bool(pages) == bool(expected)
        assert pages.pages().tolist() == expected
        table = from_set(expected)
        assert canonical(pages.ranges()) == table
        assert pages.nranges == len(table)
        if expected:
            assert (pages.min(), pages.max()) == (expected[0], expected[-1])

    @rule(one=made, gfns=st.lists(GFNS, min_size=1, max_size=20))
    def contains(self, one: Values, gfns: list[int]) -> None:
        pages, expected = one
        answer = [gfn in expected for gfn in gfns]
        assert [gfn in pages for gfn in gfns] == answer
        assert pages.contains(np.array(gfns, dtype=np.uint64)).tolist() == answer
        second = BitMap64(expected)
        assert [pages.rank(gfn) for gfn in gfns] == [
            second.rank(gfn) - (gfn in second) for gfn in gfns
        ]

    @rule(one=made, fraction=st.floats(0, 1, exclude_max=True))
    def select(self, one: Values, fraction: float) -> None:
        pages, expected = one[0], sorted(one[1])
        if expected:
            index = int(fraction * len(expected))
            assert pages.select(index) == pages[index] == expected[index]
            assert pages[index - len(expected)] == expected[index]
            assert pages.rank(expected[index]) == index

    @rule(one=made, edges=st.tuples(STARTS, STARTS))
    def window(self, one: Values, edges: tuple[int, int]) -> None:
        start, stop = sorted(edges)
        inside = sorted(gfn for gfn in one[1] if start <= gfn < stop)
        assert one[0].count(start, stop) == len(inside)
        assert one[0].pages(start, stop).tolist() == inside
        assert canonical(one[0].ranges(start, stop)) == from_set(inside)
        gaps = PageSet.from_ranges(one[0].gaps(start, stop))
        assert len(gaps) == stop - start - len(inside)
        assert gaps.isdisjoint(one[0])

    @rule(one=made, start=GFNS, npages=st.integers(0, 300))
    def to_bitmap(self, one: Values, start: int, npages: int) -> None:
        npages = min(npages, GFN_LIMIT - start)
        bits = one[0].to_bitmap(start, npages)
        assert bits.size == (npages + 63) // 64 * 8
        expected = [start + bit in one[1] for bit in range(npages)]
        assert np.unpackbits(bits, bitorder="little").tolist() == expected + [False] * (
            bits.size * 8 - npages
        )

    @rule(left=made, right=made)
    def compare(self, left: Values, right: Values) -> None:
        assert (left[0] == right[0]) == (left[1] == right[1])
        assert (left[0] != right[0]) == (left[1] != right[1])
        assert (left[0] <= right[0]) == (left[1] <= right[1])
        assert (left[0] < right[0]) == (left[1] < right[1])
        assert (left[0] >= right[0]) == (left[1] >= right[1])
        assert (left[0] > right[0]) == (left[1] > right[1])
        assert left[0].isdisjoint(right[0]) == left[1].isdisjoint(right[1])

    @rule(one=made)
    def rebuild(self, one: Values) -> None:
        twin = PageSet.from_pages(np.array(list(one[1]), dtype=np.uint64))
        assert twin == one[0]
        assert hash(twin) == hash(one[0])
        assert pickle.loads(pickle.dumps(one[0], protocol=5)) == one[0]

    @rule(one=made, batch=st.integers(1, 40))
    def walk(self, one: Values, batch: int) -> None:
        expected = sorted(one[1])
        assert list(one[0]) == expected
        assert list(reversed(one[0])) == expected[::-1]
        parts = [canonical(part) for part in one[0].iter_ranges(batch=batch)]
        assert [pair for part in parts for pair in part] == from_set(expected)
        assert all(0 < len(part) <= batch for part in parts)

    @rule(one=consumes(made))
    def drop(self, one: Values) -> None:
        assert len(one[0]) == len(one[1])


def test_page_sets(seed: int) -> None:
    run_state_machine_as_test(seeded(seed)(PageSets))
