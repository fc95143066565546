# tier: hostile
"""A log's memory is bounded by the guest, however much is reported."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from model import DIRTY_GFN
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory

SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
NPAGES = 1 << 16
LEAST = 10 << 20
"""Bytes that a log of the smallest guest may take, as its docstring says."""

Pages = NDArray[np.uint64]


def as_pages(log: DirtyLog, gfns: Pages, source: str | None) -> None:
    log.add_pages(gfns, source=source)


def as_ring(log: DirtyLog, gfns: Pages, source: str | None) -> None:
    entries = np.zeros(len(gfns), DIRTY_GFN)
    entries["flags"], entries["offset"] = 1, gfns
    log.add_ring(entries, source=source)


def as_ranges(log: DirtyLog, gfns: Pages, source: str | None) -> None:
    stops = np.minimum(gfns + gfns % np.uint64(300), np.uint64(NPAGES))
    log.add_ranges(np.stack([gfns, stops], axis=1), source=source)


def as_long_ranges(log: DirtyLog, gfns: Pages, source: str | None) -> None:
    starts = gfns[:100] // np.uint64(2)
    log.add_ranges(np.stack([starts, starts + np.uint64(4097)], axis=1), source=source)


def as_bitmap(log: DirtyLog, gfns: Pages, source: str | None) -> None:
    log.add_bitmap(0, gfns.tobytes()[: NPAGES // 8].ljust(NPAGES // 8, b"\1"), source=source)


KINDS: list[Callable[[DirtyLog, Pages, str | None], None]] = [
    as_pages,
    as_ring,
    as_ranges,
    as_long_ranges,
    as_bitmap,
]


@pytest.mark.parametrize("nsources", [0, 4])
@pytest.mark.parametrize("together", [4096, 1_500_000])
def test_millions_of_reports_take_what_the_guest_allows(
    nsources: int, together: int, rng: np.random.Generator
) -> None:
    """With provenance, for four sources, that much a source; twice that with what was aborted."""
    log = DirtyLog(GuestMemory([(0, 0, NPAGES)]), provenance=nsources > 0)
    bound = LEAST * (1 + nsources)
    reported = 0
    while reported < 6_000_000 * SCALE:
        for number, kind in enumerate(KINDS):
            gfns = rng.integers(0, NPAGES, together).astype(np.uint64)
            source = f"source {(reported + number) % nsources}" if nsources else None
            kind(log, gfns, source)
            assert log.nbytes < bound
            reported += together
    log.take().abort()
    for kind in KINDS:
        kind(log, rng.integers(0, NPAGES, together).astype(np.uint64), None)
        assert log.nbytes < 2 * bound
    with log.take() as harvest:
        assert len(harvest) > NPAGES * 0.9
        assert log.nbytes < bound
    assert log.nbytes < bound


def test_a_large_log_takes_four_bits_a_page(rng: np.random.Generator) -> None:
    """A guest of 2^27 pages, 512 GiB, every page of which is reported one by one: 64 MiB."""
    npages = 1 << 27
    log = DirtyLog(GuestMemory([(0, 0, npages)]))
    most = 0
    for _ in range(20):
        for together in (100_000, 1_000_000):
            log.add_pages(rng.integers(0, npages, together).astype(np.uint64))
            most = max(most, log.nbytes)
    assert npages // 8 < most < npages // 2
