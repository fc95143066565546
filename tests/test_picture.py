# tier: unit
"""The bins that pictures of a set are drawn from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from model import GFN_LIMIT, ranges

from pysharedpages import PageSet
from pysharedpages.picture import ASCII, BLOCKS, CUT, bins, line, stretches

TIB = 1 << 28


def guest() -> PageSet:
    """A little of 1 TiB of RAM, and device memory at 70 TiB."""
    ram = [(i * (TIB // 100), i * (TIB // 100) + 16) for i in range(100)]
    return PageSet.from_ranges(ranges(*ram, (70 * TIB, 70 * TIB + 4096)))


def test_nothing_of_nothing() -> None:
    assert stretches(PageSet()) == []
    assert bins(PageSet()) == []
    assert line(PageSet()) == ""


def test_memory_far_above_does_not_hide_what_is_below() -> None:
    pages = guest()
    low, high = bins(pages, 64)
    assert (low[0].start, low[-1].stop) == (0, 99 * (TIB // 100) + 16)
    assert (high[0].start, high[-1].stop) == (70 * TIB, 70 * TIB + 4096)
    assert len(low) + len(high) == 64
    assert sum(1 for each in low if each.members) > 50
    assert all(each.share == 1.0 for each in high)
    assert line(pages, 64, ASCII).split(CUT)[1].strip("@") == ""


@pytest.mark.parametrize(
    ("pairs", "width", "expected"),
    [
        ([(5, 6)], 8, "@"),
        ([(0, 4), (12, 16)], 4, "@@//@@"),
        ([(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)], 9, "@ @ @ @ @"),
        ([(0, 50), (51, 100)], 10, "@@@@@#@@@@"),
        ([(0, GFN_LIMIT)], 5, "@@@@@"),
        ([(0, 1), (GFN_LIMIT - 1, GFN_LIMIT)], 5, "@//@"),
    ],
)
def test_lines(pairs: list[tuple[int, int]], width: int, expected: str) -> None:
    assert line(PageSet.from_ranges(ranges(*pairs)), width, ASCII) == expected


def test_bins_are_the_set(rng: np.random.Generator, scale: float) -> None:
    for _ in range(round(60 * scale)):
        spread = 1 << int(rng.integers(1, 53))
        starts = rng.integers(0, spread, int(rng.integers(1, 60)), dtype=np.uint64)
        table = np.stack([starts, np.minimum(starts + np.uint64(9), np.uint64(GFN_LIMIT))], 1)
        pages = PageSet.from_ranges(table)
        count = int(rng.integers(1, 80))
        most = int(rng.integers(1, 12))
        rows = bins(pages, count, most)
        flat = [each for row in rows for each in row]
        assert 1 <= len(rows) <= most
        assert len(flat) <= count
        assert sum(each.members for each in flat) == len(pages)
        assert [(row[0].start, row[-1].stop) for row in rows] == stretches(pages, min(most, count))
        for row in rows:
            assert row[0].start in pages and row[-1].stop - 1 in pages
            assert all(one.stop == two.start for one, two in pairwise(row))
        for each in flat:
            assert each.members == pages.count(each.start, each.stop) <= each.stop - each.start
            assert each.share == each.members / (each.stop - each.start)


def test_a_block_is_blank_only_for_none_and_full_only_for_all() -> None:
    pages = PageSet.from_ranges(ranges((0, 1), (600, 8192), (8193, 12288)))
    assert line(pages, 3) == BLOCKS[6] + BLOCKS[8] + BLOCKS[7]
    assert line(PageSet.from_ranges(ranges((0, 1), (4999, 5000))), 2, ASCII) == "@//@"
