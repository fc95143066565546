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
    SHARED,
    TIB,
    random_gfns,
    shared,
    shown,
    size_of,
    some,
    toggle,
    tracker_of,
)

from pysharedpages import SharedPages, Snapshot

COPIES = 20
SNAPSHOTS = 1000
PATH = 5
"""Nodes on the way to one page, of which a write makes anew those that a snapshot holds: at most
three inner ones (of 32 TiB), a leaf, and a block of it."""
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


@pytest.mark.parametrize("name", [name for name in SHARED if name != "hostile"])
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


def test_hostile(benchmark: BenchmarkFixture) -> None:
    ranges, npages, copies = shared("hostile"), size_of("hostile"), 3
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


@pytest.mark.parametrize("name", some("boot", "fragmented"))
def test_snapshots(benchmark: BenchmarkFixture, name: str) -> None:
    ranges = shared(name)
    tracker = tracker_of(ranges)
    bitmap = lib.roaring_of(ranges, BitMap64)
    before = rivals.heap_bytes()
    held = in_rounds(benchmark, lambda: history(tracker), 1)
    ours = (rivals.heap_bytes() - before) / len(held)
    record(
        benchmark,
        f"heap a snapshot held, a write after each of {len(held)}, {shown(size_of(name))}, {name}",
        "bytes",
        ours,
        [Rival("CRoaring copy", heap_of(bitmap.copy, COPIES))],
        ranges=len(ranges),
    )


@pytest.mark.parametrize("name", some("boot", "fragmented"))
def test_retained_nodes(benchmark: BenchmarkFixture, name: str) -> None:
    """AssertionError if nodes are left that nothing reaches once the snapshots are gone."""
    tracker = tracker_of(shared(name))
    held = in_rounds(benchmark, lambda: history(tracker), 1)
    ours = unreached(tracker) / len(held)
    record(
        benchmark,
        f"nodes a snapshot held, a write after each of {len(held)}, {shown(size_of(name))}, {name}",
        "nodes",
        ours,
        most=PATH,
        ranges=len(shared(name)),
    )
    held.clear()
    tracker.snapshot().close()
    assert not unreached(tracker)


def history(tracker: SharedPages) -> list[Snapshot]:
    """Snapshots, one page converted after each."""
    held = []
    for gfn in random_gfns(SNAPSHOTS, TIB):
        held.append(tracker.snapshot())
        toggle(tracker, gfn)
    return held


def unreached(tracker: SharedPages) -> int:
    """Nodes that live though the present does not reach them."""
    stats = tracker.stats()
    return stats["live_nodes"] - stats["nodes"]
