"""Conversions: one at a time, held by a snapshot or not, in batches, and very large ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libraries as lib
import numpy as np
import pytest
import rivals
from measure import Contender, clocked, compare
from numpy.typing import NDArray
from pyroaring import BitMap64
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import (
    ENGINE,
    GIB,
    TERABYTE,
    TIB,
    Ranges,
    bitmap_of,
    events,
    random_gfns,
    ranges_of,
    shared,
    size_of,
    some,
    toggles,
    tracker_of,
)

from pysharedpages import PageSet, SharedPages

LARGE = 24 * TIB
TRACKERS = 500
CONVERSIONS = 400
SHARING = ("boot", "fragmented", "huge", "mmio")
"""Workloads whose conversions all share, and are enough and not too many for Python calls."""
APPLY_TARGET = {"boot": 40e-9, "firmware": 40e-9, "fragmented": 100e-9, "huge": None, "mmio": None}
LISTS_SURVIVE = ("boot", "firmware", "mmio")


def pairs(table: NDArray[np.void]) -> list[tuple[int, int]]:
    """Events that share, as arguments of share()."""
    return list(zip(table["start"].tolist(), table["npages"].tolist(), strict=True))


def spans(table: NDArray[np.void]) -> list[tuple[int, int]]:
    """Events that share, as arguments of add_range()."""
    return [(start, start + npages) for start, npages in pairs(table)]


def get_list(tracker: SharedPages) -> Ranges:
    """The answer of ours."""
    return tracker.get_list()


def each(name: str, arguments: list[tuple[int, int]]) -> Callable[[Any], Any]:
    """Calls a method of what it is given with each of the arguments; returns what it was given."""

    def run(subject: Any) -> Any:
        method = getattr(subject, name)
        for first, second in arguments:
            method(first, second)
        return subject

    return run


def clocked_each(
    name: str, arguments: list[tuple[int, int]], between: str | None = None
) -> Callable[[Any], tuple[float, Any]]:
    """The same by an own clock, what the method `between` returns held during each call."""

    def run(subject: Any) -> tuple[float, Any]:
        hold = getattr(subject, between) if between else object
        return clocked(getattr(subject, name), arguments, hold), subject

    return run


@pytest.mark.parametrize("name", some("boot", "fragmented", full=SHARING))
def test_share(benchmark: BenchmarkFixture, name: str) -> None:
    table = events(name)
    n, cls = len(table), lib.roaring_class(size_of(name))
    compare(
        benchmark,
        f"share(gfn, n) from Python, {name}, {n:,} calls",
        Contender(
            "pysharedpages",
            each("share", pairs(table)),
            lambda: (SharedPages(engine=ENGINE),),
            get_list,
            calls=n,
        ),
        [
            Contender(
                "pyroaring add_range",
                each("add_range", spans(table)),
                lambda: (cls(),),
                lib.roaring_ranges,
                calls=n,
                least=1,
            )
        ],
        ranges=n,
    )


@pytest.mark.parametrize("name", some("boot", "fragmented", full=SHARING))
def test_share_under_a_snapshot(benchmark: BenchmarkFixture, name: str) -> None:
    table = events(name)[:50_000]
    n, cls = len(table), lib.roaring_class(size_of(name))
    compare(
        benchmark,
        f"share(gfn, n) from Python, a fresh snapshot held, {name}, {n:,} calls",
        Contender(
            "pysharedpages",
            clocked_each("share", pairs(table), "snapshot"),
            lambda: (SharedPages(engine=ENGINE),),
            get_list,
            calls=n,
            own_clock=True,
        ),
        [
            Contender(
                "pyroaring add_range, no copy held",
                clocked_each("add_range", spans(table)),
                lambda: (cls(),),
                lib.roaring_ranges,
                calls=n,
                own_clock=True,
                most=2,
            )
        ],
        ranges=n,
    )


@pytest.mark.parametrize("name", some("boot", "fragmented", full=TERABYTE))
def test_one_conversion(benchmark: BenchmarkFixture, name: str) -> None:
    ranges = shared(name)
    table = toggles(random_gfns(CONVERSIONS // 2, TIB))
    touched = bitmap_of(ranges_of(np.unique(table["start"])), TIB)
    dirty = PageSet.from_bitmap(touched)
    tracker = tracker_of(ranges)
    listed = rivals.KvmList()
    listed.load(ranges)
    attributes = rivals.AttrArray.load(TIB, ranges)
    roaring = lib.roaring_of(ranges)

    def split(changed: SharedPages) -> tuple[Ranges, Ranges]:
        transfer = changed.snapshot().merge(dirty)
        return transfer.shared, transfer.private

    def rival_split(changed: Any) -> tuple[Ranges, Ranges]:
        return tuple(changed.merge(touched))

    target = 1000 if name == "fragmented" else None
    one_by_one = [(int(start), 1, int(on)) for start, _, on in table.tolist()]

    def convert(share: Callable[..., Any], unshare: Callable[..., Any], subject: Any) -> Any:
        for start, npages, on in one_by_one:
            (share if on else unshare)(start, npages)
        return subject

    def flip() -> lib.Roaring:
        for start, _, _ in one_by_one:
            roaring.flip_inplace(start, start + 1)
        return roaring

    compare(
        benchmark,
        f"one conversion of a page from Python, 1 TiB, {name}",
        Contender(
            "pysharedpages",
            lambda: convert(tracker.share, tracker.unshare, tracker),
            answer=split,
            calls=CONVERSIONS,
        ),
        [
            Contender(
                "KVM's and QEMU's list",
                lambda: convert(listed.share, listed.unshare, listed),
                answer=rival_split,
                calls=CONVERSIONS,
                least=target,
            ),
            Contender(
                "one entry a page",
                lambda: convert(attributes.share, attributes.unshare, attributes),
                answer=rival_split,
                calls=CONVERSIONS,
                least=target,
            ),
            Contender("pyroaring flip", flip, calls=CONVERSIONS),
        ],
        ranges=len(ranges),
    )


def test_a_gigabyte_in_one_call(benchmark: BenchmarkFixture) -> None:
    npages, start, again = 64 * GIB, 32 * GIB, 1000
    ranges = shared("boot")
    ranges = ranges[ranges[:, 1] <= npages]
    tracker, roaring = tracker_of(ranges), lib.roaring_of(ranges)
    kernel, batched = (
        rivals.AttrArray.load(npages, ranges, batched=batched) for batched in (False, True)
    )
    bitmap = rivals.EncBitmap(npages)

    def there_and_back(subject: Any, times: int) -> Contender:
        def run() -> None:
            for _ in range(times):
                subject.share(start, GIB)
                subject.unshare(start, GIB)

        return Contender("pysharedpages", run, calls=2 * times)

    def named(name: str, subject: Any, least: float | None = None) -> Contender:
        contender = there_and_back(subject, 1)
        contender.name, contender.least = name, least
        return contender

    def by_roaring() -> None:
        roaring.add_range(start, start + GIB)
        roaring.remove_range(start, start + GIB)

    compare(
        benchmark,
        "1 GiB in one call from Python, 64 GiB of boot",
        there_and_back(tracker, again),
        [
            named("one entry a page", kernel, 1000),
            named("one entry a page, batched", batched),
            named("encryption bitmap", bitmap),
            Contender("pyroaring add_range, remove_range", by_roaring, calls=2),
        ],
    )


@pytest.mark.parametrize("name", APPLY_TARGET)
def test_apply(benchmark: BenchmarkFixture, name: str) -> None:
    table = events(name)
    n, cls = len(table), lib.roaring_class(size_of(name))
    steps = [(start, start + npages, on) for start, npages, on in table.tolist()]

    def ours(tracker: SharedPages) -> SharedPages:
        tracker.apply(table)
        return tracker

    def by_roaring(bitmap: lib.Roaring) -> lib.Roaring:
        for start, stop, on in steps:
            (bitmap.add_range if on else bitmap.remove_range)(start, stop)
        return bitmap

    def by_list(listed: rivals.KvmList) -> rivals.KvmList:
        listed.apply(table)
        return listed

    others = [
        Contender(
            "pyroaring add_range, remove_range",
            by_roaring,
            lambda: (cls(),),
            lib.roaring_ranges,
            calls=n,
        )
    ]
    if name in LISTS_SURVIVE:
        others.append(
            Contender(
                "KVM's list",
                by_list,
                lambda: (rivals.KvmList(),),
                rivals.KvmList.ranges,
                calls=n,
            )
        )
    compare(
        benchmark,
        f"apply(events), an event of {name}'s {n:,}",
        Contender("pysharedpages", ours, lambda: (SharedPages(engine=ENGINE),), get_list, calls=n),
        others,
        most=APPLY_TARGET[name],
        bytes=table.nbytes,
    )


@pytest.mark.parametrize("shared_before", [False, True], ids=["share", "unshare"])
def test_24_tib_in_one_call(benchmark: BenchmarkFixture, shared_before: bool) -> None:
    initial, verb = ("shared", "unshare") if shared_before else ("private", "share")

    def trackers() -> tuple[list[SharedPages]]:
        return ([SharedPages(LARGE, initial=initial, engine=ENGINE) for _ in range(TRACKERS)],)

    def converting(start: int, npages: int) -> Callable[[list[SharedPages]], SharedPages]:
        def run(fresh: list[SharedPages]) -> SharedPages:
            for tracker in fresh:
                getattr(tracker, verb)(start, npages)
            return fresh[-1]

        return run

    def by_roaring() -> lib.Roaring:
        bitmap = BitMap64()
        bitmap.add_range(0, LARGE)
        if shared_before:
            bitmap.remove_range(0, LARGE)
        return bitmap

    compare(
        benchmark,
        f"{verb}(0, 24 TiB) in one call, all pages {initial} before",
        Contender("pysharedpages", converting(0, LARGE), trackers, answer=len, calls=TRACKERS),
        [
            Contender(
                f"{verb}(gfn, 1 page)",
                converting(5 * TIB + 12_345, 1),
                trackers,
                calls=TRACKERS,
                most=2,
            ),
            Contender("pyroaring, from nothing", by_roaring, answer=len),
        ],
    )
