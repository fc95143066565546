"""Snapshots: taking one at rest, after a write, of guests of any size."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import libraries as lib
import pytest
import rivals
from measure import Contender, clocked, compare, repeated
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import (
    EVERY_PAGE_SURVIVES,
    GIB,
    TERABYTE,
    TIB,
    Ranges,
    bitmap_of,
    fragments,
    random_gfns,
    shared,
    shown,
    size_of,
    some,
    toggle,
    tracker_of,
)

from pysharedpages import PageSet, SharedPages

CALLS = 20_000
WRITES = 5_000
PINS = 100_000
TRIES = 500
UNDISTURBED = 0.9
PIN_TARGET = {1: 10e-9, 2: 40e-9}


def ranges_of_set(pages: PageSet) -> Ranges:
    """The answer of ours: what the snapshot holds."""
    return pages.ranges()


def taking(ranges: Ranges, name: str = "pysharedpages", most: float | None = None) -> Contender:
    """snapshot() of a tracker at rest in which these ranges are shared."""
    run = repeated(tracker_of(ranges).snapshot, CALLS)
    return Contender(name, run, calls=CALLS, most=most)


@pytest.mark.parametrize("name", some("boot", "fragmented"))
def test_at_rest(benchmark: BenchmarkFixture, name: str) -> None:
    ranges, npages = shared(name), size_of(name)
    ours, roaring = taking(ranges), lib.roaring_of(ranges, lib.roaring_class(npages))
    ours.answer = ranges_of_set
    others = [Contender("pyroaring copy", roaring.copy)]
    if name in EVERY_PAGE_SURVIVES:
        others[0].answer = lib.roaring_ranges
    if name in TERABYTE:
        words = bitmap_of(ranges, TIB)
        others.append(Contender("NumPy copy of the bitmap", words.copy, answer=lib.runs_by_words))
    compare(
        benchmark,
        f"snapshot(), nothing written since, {shown(npages)}, {name}",
        ours,
        others,
        most=300e-9,
        ranges=len(ranges),
    )


def test_latest(benchmark: BenchmarkFixture) -> None:
    latest = repeated(tracker_of(shared("boot")).latest, CALLS)
    ours = Contender("pysharedpages", latest, answer=ranges_of_set, calls=CALLS)
    compare(benchmark, "latest(), 1 TiB, boot", ours)


@pytest.mark.parametrize("threads", PIN_TARGET)
def test_in_c(benchmark: BenchmarkFixture, threads: int) -> None:
    if len(os.sched_getaffinity(0)) < threads:
        pytest.skip(f"{threads} threads at once need {threads} processors")
    pins = rivals.Pins()

    def by(name: str, call: Callable[[int], None]) -> Contender:
        return Contender(
            name, lambda: (at_once(threads, call, PINS), None), calls=PINS, own_clock=True
        )

    compare(
        benchmark,
        f"a version acquired and released in C, threads at once: {threads}",
        by("pysharedpages", pins.epoch),
        [
            replace(by("one atomic word, up and down", pins.count), limit=True),
            by("a pthread_rwlock taken and released", pins.lock),
            by("a whole snapshot taken and released", pins.snapshot),
        ],
        most=PIN_TARGET[threads],
    )


@pytest.mark.parametrize(
    ("name", "ranges", "most"),
    [("1 TiB, boot", shared("boot"), 1.1), ("1 GiB, 250 runs", fragments(250, GIB), None)],
    ids=["1 TiB", "1 GiB"],
)
def test_size_of_the_guest(
    benchmark: BenchmarkFixture, name: str, ranges: Ranges, most: float | None
) -> None:
    compare(
        benchmark,
        "snapshot(), nothing written since, 32 TiB, huge",
        taking(shared("huge")),
        [taking(ranges, f"snapshot(), {name}", most)],
        ranges=len(shared("huge")),
    )


@pytest.mark.parametrize("name", some("boot", "fragmented"))
def test_after_a_write(benchmark: BenchmarkFixture, name: str) -> None:
    ranges = shared(name)
    tracker, roaring = tracker_of(ranges), lib.roaring_of(ranges, lib.roaring_class(size_of(name)))
    gfns = random_gfns(WRITES, TIB)

    def ours() -> tuple[float, None]:
        return clocked(tracker.snapshot, [()] * WRITES, toggling(tracker, gfns)), None

    compare(
        benchmark,
        f"snapshot(), one write since, {shown(size_of(name))}, {name}",
        Contender("pysharedpages", ours, calls=WRITES, own_clock=True),
        [Contender("pyroaring copy", roaring.copy)],
        most=1.2e-6,
        ranges=len(ranges),
    )


@pytest.mark.parametrize("name", some("boot", "fragmented"))
def test_write_and_snapshot(benchmark: BenchmarkFixture, name: str) -> None:
    ranges = shared(name)
    gfns = random_gfns(WRITES, TIB)
    tracker, roaring = tracker_of(ranges), lib.roaring_of(ranges, lib.roaring_class(size_of(name)))

    def ours() -> PageSet:
        write, held = toggling(tracker, gfns), tracker.snapshot()
        for _ in range(WRITES):
            write()
            held = tracker.snapshot()
        return held

    def by_roaring(slice_of: list[int]) -> lib.Roaring:
        held = roaring
        for gfn in slice_of:
            roaring.flip_inplace(gfn, gfn + 1)
            held = roaring.copy()
        return held

    few = gfns[:100]
    compare(
        benchmark,
        f"a write and a snapshot() of it, the last one held, {shown(size_of(name))}, {name}",
        Contender("pysharedpages", ours, calls=WRITES),
        [Contender("pyroaring flip and copy, 100", lambda: by_roaring(few), calls=len(few))],
        ranges=len(ranges),
    )


def at_once(threads: int, call: Callable[[int], None], calls: int) -> float:
    """The seconds that the slowest of several threads takes, all at work at the same time.

    Repeated, and at last skipped, while the machine does other things: threads that wait for a
    processor do not meet.
    """
    for _ in range(TRIES):
        spans = side_by_side(threads, call, calls)
        slowest = max(stop - start for start, stop, _ in spans)
        met = min(stop for _, stop, _ in spans) - max(start for start, _, _ in spans)
        if min(met, *(busy for _, _, busy in spans)) >= UNDISTURBED * slowest:
            return slowest
    pytest.skip(f"no {threads} processors were free at once, tried {TRIES} times")


def side_by_side(
    threads: int, call: Callable[[int], None], calls: int
) -> list[tuple[float, float, float]]:
    """For each thread when it began and ended, and how long of that it had a processor."""
    ready, spans = threading.Barrier(threads), [(0.0, 0.0, 0.0)] * threads

    def work(at: int) -> None:
        ready.wait()
        start, busy = time.perf_counter(), time.thread_time()
        call(calls)
        spans[at] = start, time.perf_counter(), time.thread_time() - busy

    others = [threading.Thread(target=work, args=(at,)) for at in range(1, threads)]
    for other in others:
        other.start()
    work(0)
    for other in others:
        other.join()
    return spans


def toggling(tracker: SharedPages, gfns: list[int]) -> Callable[[], None]:
    """A call that converts the next page each time: shared if it was private, else private."""
    following = itertools.cycle(gfns)

    return lambda: toggle(tracker, next(following))
