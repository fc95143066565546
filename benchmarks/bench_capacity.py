"""Capacity: every other page of 1 TiB shared, 134 million ranges: held, merged, and listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import libraries as lib
import numpy as np
import pytest
from bench_merge import halves, lists, reading, sizes
from measure import RANGE_BYTES, Contender, Rival, compare, in_rounds, record
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import TIB, Ranges, Words, alternate, dirty_bitmap, harvest_of, tracker_of

from pysharedpages import SharedPages

NAME = "1 TiB, hostile"
BATCH = 1 << 16
BOUND = 16 * BATCH * RANGE_BYTES
"""What listing may add to the resident memory, whatever the list: a few batches."""


@pytest.fixture(scope="module")
def tracker() -> Iterator[SharedPages]:
    """The tracker of all tests here; the 2 GiB of ranges it was made from are gone."""
    with tracker_of(alternate(TIB)) as made:
        yield made


def test_held(benchmark: BenchmarkFixture, tracker: SharedPages) -> None:
    nbytes = in_rounds(benchmark, lambda: tracker.nbytes, 1)
    record(
        benchmark,
        f"memory of a tracker, {NAME}, bits a page",
        "bits",
        8 * nbytes / TIB,
        [Rival("a bit a page", 1.0), Rival("ranges of 16 bytes", 8 * RANGE_BYTES / 2)],
        most=1.1,
        ranges=TIB // 2,
        bytes=nbytes,
    )


@pytest.mark.parametrize("kind", ["0.01 %", "1 %"])
def test_merged(benchmark: BenchmarkFixture, tracker: SharedPages, kind: str) -> None:
    bitmap, words = dirty_bitmap(kind, TIB), every_other_bit()
    snapshot, harvest = tracker.snapshot(), harvest_of(bitmap)
    ours = Contender("pysharedpages", lambda: snapshot.merge(harvest), answer=lists)
    compare(
        benchmark,
        f"merge, {NAME}, {kind} dirty",
        ours,
        [
            reading(bitmap),
            Contender("NumPy both halves", lambda: lib.word_halves(bitmap, words), answer=halves),
        ],
        **sizes(ours, bitmap),
    )


def test_listed(benchmark: BenchmarkFixture, tracker: SharedPages) -> None:
    def every_range() -> int:
        n = 0
        for batch in tracker.snapshot().iter_ranges(BATCH):
            assert np.array_equal(batch, listed(n, len(batch)))
            n += len(batch)
        return n

    in_bounded_memory(benchmark, f"listing {NAME}, batch by batch", every_range)


def test_merged_in_batches(benchmark: BenchmarkFixture, tracker: SharedPages) -> None:
    harvest = harvest_of(dirty_bitmap("all", TIB))

    def every_range() -> int:
        n = {"shared": 0, "private": 0}
        for batch in tracker.snapshot().iter_merge(harvest, batch=BATCH):
            for name, ranges in (("shared", batch.shared), ("private", batch.private)):
                expected = listed(n[name], len(ranges)) + np.uint64(name == "private")
                assert np.array_equal(ranges, expected)
                n[name] += len(ranges)
        return sum(n.values())

    in_bounded_memory(benchmark, f"merging {NAME}, all dirty, batch by batch", every_range)


def every_other_bit() -> Words:
    """The bitmap of the set."""
    return np.full(TIB // 64, np.uint64(0x5555555555555555))


def listed(first: int, count: int) -> Ranges:
    """Ranges [first, first + count) of the set."""
    return alternate(2 * count) + np.uint64(2 * first)


def in_bounded_memory(
    benchmark: BenchmarkFixture, what: str, every_range: Callable[[], int]
) -> None:
    """Records how far the resident memory grows meanwhile, beside the list as one array."""
    before = resident("VmRSS", forget_peak=True)
    n = in_rounds(benchmark, every_range, 1)
    record(
        benchmark,
        f"{what}: growth of resident memory",
        "bytes",
        resident("VmHWM") - before,
        [Rival("the list as one array", RANGE_BYTES * n)],
        most=BOUND,
        ranges=n,
    )


def resident(figure: str, *, forget_peak: bool = False) -> int:
    """Bytes of this process that are in memory: VmRSS now, VmHWM at most since it was forgotten.

    Source: Linux Documentation/filesystems/proc.rst, /proc/pid/status and /proc/pid/clear_refs.
    """
    if forget_peak:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(figure))
    return 1024 * int(line.split()[1])
