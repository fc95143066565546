# tier: model
"""merge by several threads against the oracle, over guests of several leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from model import Ranges, bitmap, canonical, from_set, names, ranges, size, to_set

from pysharedpages import DirtyLog, GuestMemory, RangeError, SharedPages, Transfer

Make: TypeAlias = Callable[..., SharedPages]

LEAF = 2**16


def of_leaves(rng: np.random.Generator) -> tuple[DirtyLog, set[int], set[int]]:
    """A log of several leaves, what it holds, and pages to share; all with runs across borders."""
    first, npages = int(rng.integers(100)), 6 * LEAF + int(rng.integers(100))
    log, pages = DirtyLog(GuestMemory([(0, first, npages)])), list[set[int]]()
    for _ in range(2):
        alone = rng.integers(first, first + npages, int(rng.integers(5000)))
        borders = LEAF * rng.integers(1, 6, 4) - rng.integers(0, 200, 4)
        runs = ((int(at), int(at) + int(rng.integers(400))) for at in borders)
        pages.append(set(alone.tolist()) | to_set(runs))
    log.add_bitmap(0, bitmap(npages, {gfn - first for gfn in pages[0]}))
    return log, pages[0], pages[1]


def check(transfer: Transfer, expected: tuple[Ranges, Ranges]) -> None:
    """Compare the lists and their counts."""
    assert canonical(transfer.shared) == expected[0]
    assert canonical(transfer.private) == expected[1]
    assert transfer.shared_pages == size(expected[0])
    assert transfer.private_pages == size(expected[1])


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_do_not_change_the_merge(
    tracker: Make, rng: np.random.Generator, scale: float, threads: int
) -> None:
    for _ in range(max(1, round(5 * scale))):
        log, dirty, shared = of_leaves(rng)
        pages = tracker()
        pages.set_list(ranges(*from_set(shared)))
        snap = pages.snapshot()
        expected = from_set(dirty & shared), from_set(dirty - shared)
        check(snap.merge(log, threads=threads), expected)
        table = ranges(*from_set(dirty))
        check(snap.merge(table, threads=threads), expected)


@pytest.mark.parametrize("threads", [-1, 0, 257, 2**64])
def test_a_number_of_threads_that_cannot_be(tracker: Make, threads: int) -> None:
    pages = tracker()
    with pytest.raises(RangeError) as raised:
        pages.snapshot().merge(ranges((1, 2)), threads=threads)
    names(raised.value, {threads}, {0, 1, 256})
    check(pages.snapshot().merge(ranges((1, 2)), threads=256), ([], [(1, 2)]))


@pytest.mark.parametrize("threads", [1.5, "2", None])
def test_threads_of_another_type(tracker: Make, threads: Any) -> None:
    with pytest.raises(TypeError, match="threads"):
        tracker().snapshot().merge(ranges((1, 2)), threads=threads)
