# tier: unit
"""Ranges that end on, straddle or fill the places where a leaf, a node or a machine word ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from model import GFN_LIMIT, SEAMS, canonical, events, gfns, ranges

from pysharedpages import PageSet, SharedPages

Make = Callable[..., SharedPages]

HUGE = 24 * 2**28
"""The pages of 24 TiB: more than 2^32."""

INNER_SEAMS = [seam for seam in SEAMS if seam != GFN_LIMIT]


@pytest.mark.parametrize("hole", [0, 1, 2**32 - 1, 2**32, HUGE // 2, HUGE - 1])
def test_one_page_of_a_shared_guest(tracker: Make, hole: int) -> None:
    pages = tracker("24TiB")
    before = pages.snapshot()
    assert pages.share(0, HUGE) == HUGE
    full = pages.snapshot()
    assert pages.unshare(hole) == 1
    pierced = pages.snapshot()

    around = [(a, b) for a, b in ((0, hole), (hole + 1, HUGE)) if a < b]
    assert canonical(pages.get_list()) == around
    assert canonical(before.ranges()) == []
    assert canonical(full.ranges()) == [(0, HUGE)]
    assert len(pierced) == HUGE - 1
    assert hole not in pierced and hole in full
    assert canonical(pierced.converted_since(full).ranges()) == [(hole, hole + 1)]
    assert canonical(full.converted_since(before).ranges()) == [(0, HUGE)]
    assert canonical(pierced.converted_since(before).ranges()) == [(0, HUGE)]
    assert canonical(pierced.gaps(0, HUGE)) == [(hole, hole + 1)]

    assert pages.share(0, HUGE) == 1
    assert pages.unshare(0, HUGE) == HUGE
    assert len(pages) == 0
    assert len(full) == HUGE


def test_both_ends_and_the_middle(tracker: Make) -> None:
    pages = tracker("24TiB", initial="shared")
    middle = HUGE // 2
    assert pages.apply(events((0, 1, False), (middle, 1, False), (HUGE - 1, 1, False))) == 3
    assert canonical(pages.get_list()) == [(1, middle), (middle + 1, HUGE - 1)]
    assert canonical(pages.convert(0, HUGE, True)) == [
        (0, 1),
        (middle, middle + 1),
        (HUGE - 1, HUGE),
    ]


def test_all_of_the_address_space(tracker: Make) -> None:
    pages = tracker()
    assert pages.share(0, GFN_LIMIT) == GFN_LIMIT
    assert len(pages) == GFN_LIMIT
    snap = pages.snapshot()
    assert canonical(snap.ranges()) == [(0, GFN_LIMIT)]
    assert snap.count(1, GFN_LIMIT) == GFN_LIMIT - 1
    assert snap.select(GFN_LIMIT - 1) == GFN_LIMIT - 1
    assert snap[-1] == GFN_LIMIT - 1
    assert pages.unshare(0, GFN_LIMIT) == GFN_LIMIT
    assert len(pages) == 0
    assert len(snap) == GFN_LIMIT


@pytest.mark.parametrize("seam", INNER_SEAMS)
def test_a_range_across_a_seam(tracker: Make, seam: int) -> None:
    pages = tracker()
    assert pages.share(seam - 2, 4) == 4
    snap = pages.snapshot()
    assert canonical(snap.ranges()) == [(seam - 2, seam + 2)]
    assert snap.contains(gfns(seam - 3, seam - 2, seam - 1, seam, seam + 1, seam + 2)).tolist() == [
        *(False, True, True, True, True, False)
    ]
    assert [snap.rank(gfn) for gfn in (seam - 2, seam, seam + 2)] == [0, 2, 4]
    assert list(snap) == [seam - 2, seam - 1, seam, seam + 1]
    assert list(reversed(snap)) == [seam + 1, seam, seam - 1, seam - 2]
    assert canonical(snap.gaps(seam - 4, seam + 4)) == [(seam - 4, seam - 2), (seam + 2, seam + 4)]
    assert snap.to_bitmap(seam - 2, 64).tobytes().hex() == "0f" + "00" * 7
    assert PageSet.from_bitmap(b"\x0f", first=seam - 2) == snap
    assert pages.unshare(seam - 1, 2) == 2
    assert canonical(pages.get_list()) == [(seam - 2, seam - 1), (seam + 1, seam + 2)]


@pytest.mark.parametrize("seam", INNER_SEAMS)
def test_neighbours_join_across_a_seam(tracker: Make, seam: int) -> None:
    pages = tracker()
    assert pages.share(seam - 1) == 1
    assert canonical(pages.convert(seam, 1, True)) == [(seam, seam + 1)]
    assert canonical(pages.get_list()) == [(seam - 1, seam + 1)]
    assert pages.snapshot().nranges == 1
    assert pages.stats()["ranges"] == 1
    assert pages.unshare(seam - 1) == 1
    assert canonical(pages.get_list()) == [(seam, seam + 1)]


@pytest.mark.parametrize("seam", SEAMS)
def test_everything_below_a_seam(tracker: Make, seam: int) -> None:
    pages = tracker()
    assert pages.share(0, seam) == seam
    older = pages.snapshot()
    assert canonical(older.ranges()) == [(0, seam)]
    assert older.max() == seam - 1
    assert pages.unshare(seam - 1) == 1
    assert canonical(pages.get_list()) == [(0, seam - 1)]
    assert canonical(pages.snapshot().converted_since(older).ranges()) == [(seam - 1, seam)]
    assert len(older - pages.snapshot()) == 1


@pytest.mark.parametrize("seam", INNER_SEAMS)
def test_everything_from_a_seam(tracker: Make, seam: int) -> None:
    pages = tracker()
    assert pages.share(seam, GFN_LIMIT - seam) == GFN_LIMIT - seam
    snap = pages.snapshot()
    assert snap.min() == seam
    assert seam - 1 not in snap and seam in snap and GFN_LIMIT - 1 in snap
    rest = PageSet.from_ranges(ranges((0, GFN_LIMIT))) - snap
    assert canonical(rest.ranges()) == [(0, seam)]


@pytest.mark.parametrize("seam", SEAMS)
def test_a_guest_that_ends_at_a_seam(tracker: Make, seam: int) -> None:
    pages = tracker(seam, initial="shared")
    assert len(pages) == seam
    assert pages.unshare(seam - 1) == 1
    assert pages.reset("shared") == 1
    assert pages.reset("private") == seam


def test_a_page_at_each_seam(tracker: Make) -> None:
    pages = tracker()
    below = [seam - 1 for seam in SEAMS]
    assert pages.apply(events(*((gfn, 1, True) for gfn in below))) == len(SEAMS)
    snap = pages.snapshot()
    assert snap.pages().tolist() == below
    assert [snap.select(index) for index in range(len(SEAMS))] == below
    assert [snap.rank(gfn) for gfn in below] == list(range(len(SEAMS)))
    assert snap.pages(2**31, 2**40).tolist() == [2**32 - 1, 2**40 - 1]
    assert snap.count(2**22, 2**32) == 2


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("width", [1, 63, 64, 65, 4095, 4096, 4097, 65535, 65536, 65537])
def test_algebra_beside_a_seam(seam: int, width: int) -> None:
    start = max(0, seam - width)
    left = PageSet.from_ranges(ranges((start, seam)))
    right = PageSet.from_ranges(ranges((seam - 1, seam)))
    assert left | right == left
    assert left & right == right
    assert canonical((left - right).ranges()) == ([(start, seam - 1)] if width > 1 else [])
    assert left ^ right == left - right
    assert left.symmetric_difference_count(right) == seam - start - 1
    assert right <= left


@pytest.mark.parametrize("seam", SEAMS)
def test_a_dense_leaf_beside_a_seam(tracker: Make, seam: int) -> None:
    pages = tracker()
    first = max(0, seam - 2**16)
    every_other = np.arange(first, seam, 2, dtype=np.uint64)
    batch = np.zeros(len(every_other), dtype=events().dtype)
    batch["start"], batch["npages"], batch["shared"] = every_other, 1, 1
    assert pages.apply(batch) == len(every_other)
    snap = pages.snapshot()
    assert snap.nranges == len(every_other)
    assert np.array_equal(snap.pages(), every_other)
    assert np.array_equal(pages.convert(first, seam - first, True)[:, 0], every_other + 1)
    assert canonical(pages.get_list()) == [(first, seam)]
    assert len(snap) == len(every_other)
