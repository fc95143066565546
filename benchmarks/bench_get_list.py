"""GET_LIST: what is shared, as an array of ranges."""

from __future__ import annotations

import libraries as lib
import pytest
import rivals
from measure import Contender, compare, fresh_copy, repeated
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import (
    EVERY_PAGE_SURVIVES,
    FULL,
    SHARED,
    TIB,
    Ranges,
    alternate,
    bitmap_of,
    shared,
    shown,
    size_of,
    tracker_of,
)

MANY_RANGES = 100_000
CALLS = 20


@pytest.mark.parametrize("name", SHARED)
def test_get_list(benchmark: BenchmarkFixture, name: str) -> None:
    npages, ranges = size_of(name), shared(name)
    snapshot = tracker_of(ranges).snapshot()
    listed = rivals.KvmList()
    listed.load(ranges)
    calls = 1 if len(ranges) >= MANY_RANGES else CALLS
    others = [
        copying(ranges, calls),
        Contender(
            "KVM's list, exported", repeated(listed.ranges, calls), answer=array, calls=calls
        ),
    ]
    if name in EVERY_PAGE_SURVIVES:
        roaring = lib.roaring_of(ranges, lib.roaring_class(npages))
        by_pages = Contender(
            "pyroaring, by pages", lambda: lib.roaring_ranges(roaring), answer=array
        )
        others.append(by_pages)
    if name in EVERY_PAGE_SURVIVES and npages <= TIB:
        words = bitmap_of(ranges, npages)
        by_words = Contender(
            "NumPy bitmap, by words", lambda: lib.runs_by_words(words), answer=array
        )
        others.append(by_words)
    compare(
        benchmark,
        f"get_list, {shown(npages)}, {name}, {len(ranges):,} ranges",
        Contender("pysharedpages", repeated(snapshot.ranges, calls), answer=array, calls=calls),
        others,
        bytes=ranges.nbytes,
        ranges=len(ranges),
    )


@pytest.mark.skipif(not FULL, reason="2 GiB of ranges: SCALE=full")
def test_get_list_of_a_hostile_terabyte(benchmark: BenchmarkFixture) -> None:
    ranges = alternate(TIB)
    snapshot = tracker_of(ranges).snapshot()
    compare(
        benchmark,
        f"get_list, 1 TiB, hostile, {len(ranges):,} ranges",
        Contender("pysharedpages", snapshot.ranges, answer=array),
        [copying(ranges, 1)],
        bytes=ranges.nbytes,
        ranges=len(ranges),
    )


def copying(ranges: Ranges, calls: int) -> Contender:
    """The physical limit: a copy of the output."""
    most = 2.0 if len(ranges) >= MANY_RANGES else None
    run = repeated(lambda: fresh_copy(ranges), calls)
    return Contender("copy of the output", run, answer=array, calls=calls, most=most, limit=True)


def array(ranges: Ranges) -> Ranges:
    """The answer: the ranges themselves."""
    return ranges
