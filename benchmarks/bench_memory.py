"""Memory: heap bytes of trackers and of what snapshots hold, beside rivals on the same heap.

Ours and pyroaring's are what malloc handed out more than before, the mean of several built; the
other rivals count their own structure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libraries as lib
import pytest
import rivals
from measure import Rival, in_rounds, record
from pyroaring import BitMap64
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import (
    FULL,
    GIB,
    TIB,
    alternate,
    random_gfns,
    shared,
    shown,
    size_of,
    toggle,
    tracker_of,
)

from pysharedpages import SharedPages

COPIES = 20
SNAPSHOTS = 1000
ROARING_TARGET = {"boot": 0.7, "fragmented": 1.5}
LIST_TARGET = {"fragmented": 2.0}
ENTRIES_TARGET = {"boot": 1000.0}
ENTRIES_SURVIVE = ("boot", "fragmented")


def heap_of(build: Callable[[], Any], copies: int) -> float:
    """Heap bytes of what `build` returns: the mean of several."""
    first = build()
    before = rivals.heap_bytes()
    built = [build() for _ in range(copies)]
    after = rivals.heap_bytes()
    del built, first
    return (after - before) / copies


def measured(benchmark: BenchmarkFixture, build: Callable[[], Any], copies: int) -> float:
    """The heap bytes of ours, and the time it took to build one as the benchmark's."""
    in_rounds(benchmark, build, 3)
    return heap_of(build, copies)


@pytest.mark.parametrize("name", ["private", "boot", "fragmented", "huge", "mmio"])
def test_tracker(benchmark: BenchmarkFixture, name: str) -> None:
    ranges, npages = shared(name), size_of(name)
    listed = rivals.KvmList()
    listed.load(ranges)
    heap = heap_of(lambda: lib.roaring_of(ranges, BitMap64), COPIES)
    others = [
        Rival("CRoaring, run-optimised", heap, most=ROARING_TARGET.get(name)),
        Rival("KVM's list, its nodes", listed.nbytes, least=LIST_TARGET.get(name)),
        Rival("a bit a page", npages / 8),
    ]
    if name in ENTRIES_SURVIVE:
        entries = rivals.AttrArray.load(npages, ranges)
        least = ENTRIES_TARGET.get(name)
        others.append(Rival("one entry a page", entries.nbytes, least=least))
    record(
        benchmark,
        f"heap of a tracker, {shown(npages)}, {name}",
        "bytes",
        measured(benchmark, lambda: tracker_of(ranges), COPIES),
        others,
        ranges=len(ranges),
        counted=tracker_of(ranges).nbytes,
    )


@pytest.mark.parametrize("npages", [64 * GIB, *([TIB] if FULL else [])], ids=shown)
def test_hostile(benchmark: BenchmarkFixture, npages: int) -> None:
    ranges = alternate(npages)
    copies = 3 if npages < TIB else 1
    ours = measured(benchmark, lambda: tracker_of(ranges), copies)
    heap = heap_of(lambda: lib.roaring_of(ranges, BitMap64), copies)
    record(
        benchmark,
        f"heap of a tracker, {shown(npages)}, hostile, bits a page",
        "bits",
        8 * ours / npages,
        [
            Rival("CRoaring, run-optimised", 8 * heap / npages),
            Rival("ranges of 16 bytes", 8 * ranges.nbytes / npages),
        ],
        most=1.1,
        ranges=len(ranges),
        counted=tracker_of(ranges).nbytes,
    )


@pytest.mark.parametrize("name", ["boot", "fragmented"])
def test_snapshots(benchmark: BenchmarkFixture, name: str) -> None:
    ranges, gfns = shared(name), random_gfns(SNAPSHOTS, TIB)
    tracker = tracker_of(ranges)
    bitmap = lib.roaring_of(ranges, BitMap64)

    def retain() -> list[Any]:
        held = []
        for gfn in gfns:
            held.append(tracker.snapshot())
            toggle(tracker, gfn)
        return held

    before = rivals.heap_bytes()
    held = in_rounds(benchmark, retain, 1)
    ours = (rivals.heap_bytes() - before) / SNAPSHOTS
    held.clear()
    at_rest(tracker)
    record(
        benchmark,
        f"heap a snapshot held, a write after each of {SNAPSHOTS}, 1 TiB, {name}",
        "bytes",
        ours,
        [Rival("CRoaring copy", heap_of(bitmap.copy, COPIES))],
        ranges=len(ranges),
    )


def at_rest(tracker: SharedPages) -> None:
    """AssertionError if nodes are left that nothing reaches."""
    tracker.snapshot().close()
    stats = tracker.stats()
    assert stats["live_nodes"] == stats["nodes"], stats
