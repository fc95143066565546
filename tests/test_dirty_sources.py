# tier: unit
"""Who reported what to a dirty log: names, counts, provenance; and how much memory a log takes."""

from __future__ import annotations

import linecache
import os
import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
from model import bitmap, gfns, ranges, ring

from pysharedpages import (
    ClosedError,
    DirtyLog,
    GuestMemory,
    Harvest,
    PageSet,
    SharedPages,
    SharedPagesError,
    dirty,
)
from pysharedpages._core import Loan, Log
from pysharedpages.dirty import SourceReport

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
SLOTS = [(0, 100, 200), (1, 1000, 64)]
Reported = dict[str | None, set[int]]


@pytest.fixture
def log() -> DirtyLog:
    """A log with provenance."""
    return DirtyLog(GuestMemory(SLOTS), provenance=True)


def look(dirty: DirtyLog | Harvest) -> set[int]:
    """The pages of a log or a harvest."""
    private = SharedPages().snapshot().merge(dirty).private
    return {gfn for start, stop in private.tolist() for gfn in range(start, stop)}


def who(harvest: Harvest) -> Reported:
    """The reporters of a harvest, and their pages."""
    return {name: set(pages) for name, pages in harvest.sources().items()}


def fill(loan: Loan) -> None:
    np.frombuffer(loan, np.uint8)[:25] = bitmap(200, [3, 5, 64])[:25]  # type: ignore[call-overload]
    np.frombuffer(loan, np.uint8)[25:] = 0xFF  # type: ignore[call-overload]


REPORTS: list[tuple[Callable[[DirtyLog, str | None], object], int, set[int]]] = [
    (lambda log, name: log.add_bitmap(0, bitmap(200, [3, 199]), source=name), 2, {103, 299}),
    (
        lambda log, name: log.add_bitmap(0, b"\xff" * 25, first_page=190, source=name),
        10,
        set(range(290, 300)),
    ),
    (lambda log, name: log.fill_bitmap(0, fill, source=name), 3, {103, 105, 164}),
    (lambda log, name: log.add_ring(ring((0, 3), (1, 5), (0, 3)), source=name), 3, {103, 1005}),
    (
        lambda log, name: log.add_ranges(ranges((5, 9), (8, 10), (7, 7)), source=name),
        6,
        set(range(5, 10)),
    ),
    (
        lambda log, name: log.add_ranges(ranges((10_000, 20_000)), source=name),
        10_000,
        set(range(10_000, 20_000)),
    ),
    (lambda log, name: log.add_pages(gfns(7, 2**40, 7), source=name), 3, {7, 2**40}),
]
REPORT_IDS = ["bitmap", "first page", "fill", "ring", "ranges", "a long range", "pages"]


@pytest.mark.parametrize(("report", "count", "pages"), REPORTS, ids=REPORT_IDS)
@pytest.mark.parametrize("provenance", [False, True])
def test_reports_are_counted_by_name(
    report: Callable[[DirtyLog, str | None], object],
    count: int,
    pages: set[int],
    provenance: bool,
) -> None:
    log = DirtyLog(GuestMemory(SLOTS), provenance=provenance)
    assert (log.provenance, log.sources()) == (provenance, {})
    report(log, None)
    assert log.sources() == {}
    report(log, "a")
    report(log, "a")
    report(log, "b")
    only = 0 if provenance else None
    assert log.sources() == {"a": (2 * count, only), "b": (count, only)}
    assert look(log) == pages
    assert look(log.take()) == pages


@pytest.mark.parametrize(("report", "count", "pages"), REPORTS, ids=REPORT_IDS)
def test_a_harvest_knows_who_reported_what(
    log: DirtyLog,
    report: Callable[[DirtyLog, str | None], object],
    count: int,
    pages: set[int],
) -> None:
    report(log, "a")
    log.add_pages(gfns(7, 103, 500), source="b")
    log.add_pages(gfns(104))
    harvest = log.take()
    assert who(harvest) == {"a": pages, "b": {7, 103, 500}, None: {104}}
    assert set(harvest.only("a")) == pages - {7, 103, 104}
    assert set(harvest.only(None)) == {104} - pages
    assert harvest.only("nobody") == PageSet()
    assert look(harvest) == pages | {7, 103, 104, 500}
    assert len(harvest) == len(pages | {7, 103, 104, 500})
    assert log.sources()["a"] == (count, 0)
    harvest.commit()
    assert log.sources()["a"] == SourceReport(pages=count, only=len(pages - {7, 103, 104}))
    assert look(log) == set()


def test_a_named_loan_is_its_source_s(log: DirtyLog) -> None:
    loan = log.bitmap_buffer(1, source="a")
    np.frombuffer(loan, np.uint8)[:] = bitmap(64, [9])  # type: ignore[call-overload]
    assert who(log.take()) == {"a": {1009}}
    assert log.sources() == {}


def test_aborted_pages_still_have_their_reporters(log: DirtyLog) -> None:
    log.add_pages(gfns(5, 6), source="a")
    log.add_pages(gfns(6), source="b")
    first = log.take()
    log.add_pages(gfns(5), source="b")
    first.abort()
    assert log.sources() == {"a": (2, 0), "b": (2, 0)}
    with log.take() as second:
        assert who(second) == {"a": {5, 6}, "b": {5, 6}}
    log.add_pages(gfns(6), source="b")
    log.take().commit()
    assert log.sources() == {"a": (2, 0), "b": (3, 1)}
    assert who(log.take()) == {}


def test_reporters_outlive_the_harvest(log: DirtyLog) -> None:
    log.add_pages(gfns(5), source="a")
    harvest = log.take()
    harvest.commit()
    assert who(harvest) == {"a": {5}}
    ends: list[Callable[[], object]] = [harvest.commit, harvest.abort, harvest.__len__]
    for end in ends:
        with pytest.raises(ClosedError):
            end()


def test_a_log_without_provenance_has_no_reporters() -> None:
    log = DirtyLog(GuestMemory(SLOTS))
    log.add_pages(gfns(5), source="a")
    harvest = log.take()
    for ask in (harvest.sources, lambda: harvest.only("a")):
        with pytest.raises(SharedPagesError, match="without provenance"):
            ask()
    harvest.commit()
    assert log.sources() == {"a": SourceReport(1, None)}


@pytest.mark.parametrize("provenance", [False, True])
@pytest.mark.parametrize("name", [b"a", 5, ("a",)])
def test_names_of_other_types(provenance: bool, name: Any) -> None:
    log = DirtyLog(GuestMemory(SLOTS), provenance=provenance)
    for report, _, _ in REPORTS:
        with pytest.raises(TypeError, match="source must be str"):
            report(log, name)
    assert look(log) == set()


def test_what_is_refused_is_not_counted(log: DirtyLog) -> None:
    refusals: list[Callable[[], object]] = [
        lambda: log.add_ring(ring((0, 3), (0, 200)), source="a"),
        lambda: log.add_pages(gfns(2**52), source="a"),
        lambda: log.add_ranges(ranges((5, 4)), source="a"),
        lambda: log.add_bitmap(0, bytes(24), source="a"),
    ]
    for refused in refusals:
        with pytest.raises(ValueError):
            refused()
    assert (log.sources(), look(log)) == ({}, set())


def test_new_slots_have_no_reporter_and_old_pages_keep_theirs(log: DirtyLog) -> None:
    log.add_pages(gfns(105, 250, 5000), source="a")
    log.add_bitmap(1, bitmap(64, [4]), source="b")
    harvest = log.take()
    log.add_bitmap(1, bitmap(64, [5]), source="b")
    log.set_memory(GuestMemory([(0, 100, 100), (2, 1005, 10)]))
    harvest.abort()
    log.add_pages(gfns(150), source="c")
    new = {*range(100, 200), *range(1005, 1015)}
    after = log.take()
    assert who(after) == {None: new, "a": {105, 5000}, "b": {1005}, "c": {150}}
    assert look(after) == new | {5000}


def test_slots_that_change_between_the_logs_of_a_take(log: DirtyLog) -> None:
    """One source's pages are taken before the change, the other's after it."""
    log.add_pages(gfns(105, 250), source="a")
    log.add_pages(gfns(105, 5000), source="b")
    log.add_pages(gfns(105, 299), source="c")
    other = GuestMemory([(0, 100, 100), (1, 1000, 64), (3, 400, 2)])

    class Late:
        """The log of source b, which takes after other slots came."""

        def __init__(self, late: Log) -> None:
            self.late = late

        def take(self) -> Any:
            log._logs = logs
            log.set_memory(other)
            return self.late.take()

    logs = log._logs
    late: Any = Late(logs["b"])
    log._logs = {**logs, "b": late}
    harvest = log.take()
    assert harvest.memory is other
    assert look(harvest) == {105, 5000}
    assert who(harvest) == {"a": {105}, "b": {105, 5000}, "c": {105}}
    assert look(log) == {*range(100, 200), 400, 401}
    harvest.abort()
    assert look(log) == {*range(100, 200), 400, 401, 5000}


def test_a_take_that_fails_between_the_logs_takes_nothing(log: DirtyLog) -> None:
    class Failing:
        def take(self) -> Any:
            raise MemoryError

        peek = take

    log.add_pages(gfns(105), source="a")
    log.add_pages(gfns(106), source="b")
    logs = log._logs
    failing: Any = Failing()
    log._logs = {**logs, "c": failing}
    with pytest.raises(MemoryError) as raised:
        log.take()
    log._logs = logs
    assert raised.value.__traceback__ is not None  # which holds what the frames held
    assert look(log) == {105, 106}
    assert who(log.take()) == {"a": {105}, "b": {106}}


class InterruptError(Exception):
    """What a signal's handler raises, anywhere."""


def interrupted_at(step: int, call: Callable[[], object]) -> bool:
    """Make a call, and raise before the given line that it runs in `dirty.py`.

    Not before a `with`: that line comes again when its lock is about to be released, where no
    signal's handler runs.
    """
    left = [step]

    def trace(frame: FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename != dirty.__file__:
            return None
        line = linecache.getline(dirty.__file__, frame.f_lineno).strip()
        if event == "line" and not line.startswith("with "):
            left[0] -= 1
            if left[0] == 0:
                raise InterruptError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except InterruptError:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("provenance", [False, True])
@pytest.mark.parametrize("end", ["take", "commit", "abort"])
def test_an_interrupt_anywhere_loses_nothing(end: str, provenance: bool) -> None:
    log = DirtyLog(GuestMemory(SLOTS), provenance=provenance)
    step, going = 0, True
    while going:
        step += 1
        log.add_pages(gfns(7), source="a")
        log.add_pages(gfns(8), source="b")
        if end == "take":
            going = interrupted_at(step, log.take)
        else:
            harvest = log.take()
            going = interrupted_at(step, getattr(harvest, end))
            assert look(log) in (set(), {7, 8}), "some sources have theirs back, others do not"
            del harvest
        left = look(log)
        assert left == {7, 8} or (end == "commit" and left <= {7, 8})
    assert step > 5
    assert left == (set() if end == "commit" else {7, 8})


@pytest.mark.parametrize("seed", range(int(40 * SCALE)))
def test_counts_and_reporters_against_sets(seed: int) -> None:
    rng = random.Random(SEED * 7919 + seed)
    log = DirtyLog(GuestMemory([(0, 0, 50)]), provenance=True)
    names: list[str | None] = ["a", "b", "c", None]
    inside: Reported = {name: set() for name in names}
    counts = dict.fromkeys(["a", "b", "c"], 0)
    only = dict.fromkeys(["a", "b", "c"], 0)
    held: list[tuple[Harvest, Reported]] = []
    for _ in range(60):
        step = rng.random()
        if step < 0.6:
            name, pages = rng.choice(names), [rng.randrange(50) for _ in range(rng.randrange(9))]
            log.add_pages(gfns(*pages), source=name)
            inside[name] |= set(pages)
            if name is not None and pages:
                counts[name] += len(pages)
        elif step < 0.8:
            harvest = log.take()
            assert who(harvest) == {name: pages for name, pages in inside.items() if pages}
            assert look(harvest) == set().union(*inside.values())
            held.append((harvest, inside))
            inside = {name: set() for name in names}
        elif held:
            harvest, reported = held.pop(rng.randrange(len(held)))
            if step < 0.9:
                harvest.abort()
                inside = {name: inside[name] | reported[name] for name in names}
                continue
            harvest.commit()
            for name in only:
                others = set().union(*(reported[other] for other in names if other != name))
                only[name] += len(reported[name] - others)
        assert look(log) == set().union(*inside.values())
    found = log.sources()
    assert {name: report.pages for name, report in found.items() if report.pages} == {
        name: count for name, count in counts.items() if count
    }
    assert all(report.only == only[name] for name, report in found.items())
