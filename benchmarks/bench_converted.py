"""converted_since: what changed between two snapshots, whatever the size of the set."""

from __future__ import annotations

import libraries as lib
import numpy as np
import pytest
from measure import Contender, compare, repeated
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import (
    TERABYTE,
    TIB,
    Ranges,
    bitmap_of,
    fragments,
    random_gfns,
    shared,
    some,
    toggle,
    tracker_of,
)

from pysharedpages import PageSet, Snapshot

SMALL, TIMES = 250, 1000
CALLS = 50


def history(ranges: Ranges, gfns: list[int]) -> tuple[Snapshot, Snapshot]:
    """Snapshots before and after converting the pages."""
    tracker = tracker_of(ranges)
    before = tracker.snapshot()
    for gfn in gfns:
        toggle(tracker, gfn)
    return before, tracker.snapshot()


def asking(ranges: Ranges, gfns: list[int], name: str = "pysharedpages") -> Contender:
    """converted_since over the conversions of these pages."""
    before, after = history(ranges, gfns)
    run = repeated(lambda: after.converted_since(before), CALLS)
    return Contender(name, run, answer=PageSet.ranges, calls=CALLS)


@pytest.mark.parametrize("changes", [1, 1000])
def test_size_of_the_set(benchmark: BenchmarkFixture, changes: int) -> None:
    gfns = random_gfns(changes, TIB)
    rival = asking(fragments(SMALL, TIB), gfns, f"the same, {SMALL} runs shared")
    rival.most = 1.3
    compare(
        benchmark,
        f"converted_since, {changes} changes, {SMALL * TIMES:,} runs shared",
        asking(fragments(SMALL * TIMES, TIB), gfns),
        [rival],
        ranges=SMALL * TIMES,
    )


@pytest.mark.parametrize("name", some("boot", "fragmented", full=TERABYTE))
def test_difference(benchmark: BenchmarkFixture, name: str) -> None:
    ranges, gfns = shared(name), random_gfns(1000, TIB)
    before, after = history(ranges, gfns)
    old, new = lib.roaring_of(before.ranges()), lib.roaring_of(after.ranges())
    old_words, new_words = bitmap_of(before.ranges(), TIB), bitmap_of(after.ranges(), TIB)
    compare(
        benchmark,
        f"converted_since, {len(gfns)} changes, 1 TiB, {name}",
        asking(ranges, gfns),
        [
            Contender("pyroaring new ^ old", lambda: new ^ old, answer=lib.roaring_ranges),
            Contender(
                "NumPy new ^ old",
                lambda: np.bitwise_xor(new_words, old_words),
                answer=lib.runs_by_words,
            ),
        ],
        ranges=len(ranges),
    )
