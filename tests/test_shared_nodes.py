# tier: unit
"""Results of set algebra: what they take, whom they outlive, and that content alone tells them.

Sizes are those of the nodes: an inner node has a header of 16 bytes, a count and 64 references; a
bitmap leaf 184 bytes and its 8 KiB of words; both are rounded up to 16.
"""

from __future__ import annotations

import gc
import itertools
import operator as op
from collections.abc import Callable

import numpy as np
import pytest
from model import GFN_LIMIT, canonical, ranges
from numpy.typing import NDArray

from pysharedpages import PageSet, SharedPages

Make = Callable[..., SharedPages]

LEAF_PAGES = 2**16
INNER = 544
BITMAP = 8384


def comb_pages(*leaves: int) -> NDArray[np.uint64]:
    """Every third page of the two leaves from each of these on."""
    one = np.arange(0, 2 * LEAF_PAGES - 2, 3, dtype=np.uint64)
    return np.concatenate([one + np.uint64(leaf * LEAF_PAGES) for leaf in leaves])


def comb(leaf: int) -> PageSet:
    """These pages as a set: two bitmaps under an inner node."""
    return PageSet.from_pages(comb_pages(leaf))


def test_nbytes_are_those_of_what_is_reached() -> None:
    low, high = comb(0), comb(3)
    both = low | high
    assert low.nbytes == high.nbytes == INNER + 2 * BITMAP
    assert both.nbytes == INNER + 4 * BITMAP
    assert (both - high).nbytes == low.nbytes
    assert (both & low).nbytes == low.nbytes
    assert (low | PageSet()).nbytes == low.nbytes
    assert (low ^ low).nbytes == PageSet().nbytes == 0
    del low, high
    assert both.nbytes == INNER + 4 * BITMAP


def test_nbytes_of_heights() -> None:
    low, far = comb(0), PageSet.from_ranges(ranges((GFN_LIMIT - 5, GFN_LIMIT)))
    assert far.nbytes == 6 * INNER
    both = low | far
    # Four nodes join the low set's root to the highest, which is one of far's six anew.
    assert both.nbytes == 11 * INNER + 2 * BITMAP
    assert (both - far).nbytes == low.nbytes
    assert (both - low).nbytes == far.nbytes
    assert (both & PageSet.from_ranges(ranges((0, 2**40)))).nbytes == low.nbytes


@pytest.mark.parametrize("infix", [op.or_, op.and_, op.sub, op.xor])
def test_results_outlive_their_operands(infix: Callable[..., PageSet]) -> None:
    left, right = comb(0) | comb(3), comb(3) | comb(7)
    expected = {op.or_: (0, 3, 7), op.and_: (3,), op.sub: (0,), op.xor: (0, 7)}[infix]
    result = infix(left, right)
    del left, right
    gc.collect()
    # Whatever was freed is written over.
    others = [comb(9) for _ in range(8)]
    assert np.array_equal(result.pages(), comb_pages(*expected))
    assert len(set(others)) == 1


def test_each_of_a_long_chain_may_go_first() -> None:
    chain = [comb(0)]
    for leaf in range(2, 60, 2):
        chain.append(chain[-1] | comb(leaf))
    for leaf in range(2, 58, 2):
        chain.append(chain[-1] - comb(leaf))
    last = chain[-1]
    while chain:
        del chain[len(chain) // 2]
    assert last == comb(0) | comb(58)
    assert last.nbytes == INNER + 4 * BITMAP


def test_a_result_holds_no_version_of_a_tracker(tracker: Make) -> None:
    pages = tracker(2**20)
    pages.set_list(comb(0).ranges())
    snap = pages.snapshot()
    results = [snap | PageSet(), snap & snap, snap - comb(3), comb(3) ^ snap]
    pages.unshare(0, 2**20)
    assert pages.stats()["versions"] == 2
    assert pages.stats()["live_nodes"] > pages.stats()["nodes"]
    snap.close()
    pages.snapshot().close()
    stats = pages.stats()
    assert stats["versions"] == 1
    assert stats["live_nodes"] == stats["nodes"] == 0
    pages.close()
    assert results[0] == results[1] == results[2] == comb(0)
    assert results[3] == comb(0) | comb(3)
    assert results[0].nbytes == INNER + 2 * BITMAP


def test_equality_and_hash_of_shared_and_of_copied_nodes(tracker: Make) -> None:
    low, high = comb(0), comb(3)
    both = low | high
    pages = tracker(2**20)
    pages.set_list(both.ranges())
    alike = [
        both,
        high | low,
        low ^ high,
        both | low,
        (both | comb(7)) - comb(7),
        (both ^ comb(0)) | comb(0),
        both & PageSet.from_ranges(ranges((0, GFN_LIMIT))),
        PageSet.from_ranges(both.ranges()),
        PageSet.from_bitmap(both.to_bitmap(0, 5 * LEAF_PAGES)),
        pages.snapshot(),
        pages.snapshot() | PageSet(),
    ]
    for one, other in itertools.product(alike, alike):
        assert one == other
        assert one <= other and not one < other
    assert len({hash(one) for one in alike}) == 1
    unlike = PageSet.from_ranges(ranges((0, 1)))
    assert all(one ^ unlike != one for one in alike)
    assert canonical((both ^ both).ranges()) == []
