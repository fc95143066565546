# tier: unit
"""Bad input: a typed error that names the value and the bound, and an object that is as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model import GFN_LIMIT, canonical, events, gfns, names, ranges, ring

from pysharedpages import (
    EVENT_DTYPE,
    ClosedError,
    DirtyLog,
    FormatError,
    GuestMemory,
    PageSet,
    RangeError,
    SharedPages,
    SharedPagesError,
    Snapshot,
)

Make = Callable[..., SharedPages]
LIMIT = GFN_LIMIT
NPAGES = 1000
SLOTS = [(0, 100, 200), (3, 1000, 64), (1 << 16, 100, 50)]

SET = PageSet.from_ranges(ranges((3, 7), (10, 11)))
NOT_INTEGERS = [1.0, np.float64(1), "1", b"1", None, [1], 1j]
NOT_BUFFERS = ["pages", None, 3, 1.5, object()]


@pytest.fixture
def pages(tracker: Make) -> SharedPages:
    """A tracker of NPAGES pages, with some shared, at epoch 2."""
    made = tracker(NPAGES)
    made.share(10, 10)
    made.unshare(15)
    return made


def unchanged(pages: SharedPages, before: Snapshot) -> None:
    """Assert that the tracker is as the fixture made it, and that nothing counts as converted."""
    assert canonical(pages.get_list()) == [(10, 15), (16, 20)]
    assert pages.epoch == 2
    assert len(pages) == 9
    assert len(pages.snapshot().converted_since(before)) == 0


@pytest.fixture
def log() -> DirtyLog:
    """A log in which pages 101, 102 and 1063 are dirty."""
    made = DirtyLog(GuestMemory(SLOTS))
    made.add_ring(ring((0, 1), (0, 2), (3, 63)))
    return made


def untouched(log: DirtyLog) -> None:
    """Assert that the log is as the fixture made it."""
    with SharedPages() as private:
        assert canonical(private.snapshot().merge(log).private) == [(101, 103), (1063, 1064)]


SPANS = [
    *((NPAGES, 1), (NPAGES - 1, 2), (0, NPAGES + 1), (5, LIMIT), (LIMIT, 1), (2**63, 1)),
    *((2**64 - 1, 1), (2**64 - 1, 2), (1, 2**64 - 1), (2**64, 1), (2**70, 2**70)),
    *((-1, 1), (-(2**63), 1), (-(2**70), 1), (5, -1), (5, -(2**64))),
]
BOUNDS = {NPAGES, NPAGES - 1, LIMIT, LIMIT - 1, 2**64, 2**64 - 1}


@pytest.mark.parametrize(("start", "npages"), SPANS)
@pytest.mark.parametrize("method", ["share", "unshare", "convert"])
def test_conversions_out_of_bounds(
    pages: SharedPages, method: str, start: int, npages: int
) -> None:
    before = pages.snapshot()
    rest = (True,) if method == "convert" else ()
    with pytest.raises(RangeError) as raised:
        getattr(pages, method)(start, npages, *rest)
    bounds = BOUNDS if start >= 0 and npages >= 0 else ()
    names(raised.value, {start, npages, start + npages, start + npages - 1}, bounds)
    unchanged(pages, before)


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
@pytest.mark.parametrize("method", ["share", "unshare"])
def test_conversions_of_other_types(pages: SharedPages, method: str, value: Any) -> None:
    before = pages.snapshot()
    with pytest.raises(TypeError):
        getattr(pages, method)(value)
    with pytest.raises(TypeError):
        getattr(pages, method)(1, value)
    with pytest.raises(TypeError):
        pages.convert(value, 1, True)
    unchanged(pages, before)


@pytest.mark.parametrize("good", [0, 3])
@pytest.mark.parametrize(
    ("start", "npages"), [span for span in SPANS if 0 <= min(span) <= max(span) < 2**64]
)
def test_events_out_of_bounds(pages: SharedPages, start: int, npages: int, good: int) -> None:
    before = pages.snapshot()
    first = [(0, 50, True), (10, 1, False), (900, 100, True)][:good]
    batch = events(*first, (start, npages, True), (1, 1, True))
    with pytest.raises(RangeError) as raised:
        pages.apply(batch)
    names(raised.value, {start, npages, start + npages, start + npages - 1}, BOUNDS)
    unchanged(pages, before)


@pytest.mark.parametrize(
    "batch",
    [
        *NOT_BUFFERS,
        np.zeros(4, dtype=np.uint64),
        np.zeros(4, dtype=np.float64),
        np.zeros(2, dtype=[("start", "<u8"), ("npages", "<u8")]),
        np.zeros(2, dtype=[("start", ">u8"), ("npages", ">u8"), ("shared", "u1"), ("rest", "V7")]),
        np.zeros(2, dtype=object),
    ],
    ids=lambda batch: str(getattr(batch, "dtype", type(batch).__name__)),
)
def test_events_of_other_types(pages: SharedPages, batch: Any) -> None:
    before = pages.snapshot()
    with pytest.raises(TypeError):
        pages.apply(batch)
    unchanged(pages, before)


@pytest.mark.parametrize("value", [1 << 64, 1 << 70, -(1 << 70), -(1 << 63) - 1])
def test_lists_of_integers_beyond_64_bits(value: int) -> None:
    for given in ([value], [1, value, 2], (value,)):
        with pytest.raises(RangeError) as raised:
            PageSet.from_pages(given)
        names(raised.value, {value}, {1 << 64})
    with pytest.raises(RangeError) as raised:
        PageSet.from_ranges([(0, 1), (1, value)])
    names(raised.value, {value}, {1 << 64})


def test_lists_of_two_signs_and_of_floats() -> None:
    with pytest.raises(RangeError, match="-1"):
        PageSet.from_pages([1 << 63, -1])
    others: list[Any] = [[1 << 70, 0.5], [0.0, 1], [1 << 63, None]]
    for given in others:
        with pytest.raises(TypeError, match="native uint64"):
            PageSet.from_pages(given)


def test_rows_of_different_lengths() -> None:
    with pytest.raises(FormatError, match="lengths"):
        PageSet.from_ranges([(1, 2), (3,)])  # type: ignore[arg-type]


def test_events_of_neither_status(pages: SharedPages) -> None:
    before = pages.snapshot()
    batch = events((1, 1, True), (30, 1, True))
    batch["shared"][1] = 7
    with pytest.raises(ValueError) as raised:
        pages.apply(batch)
    names(raised.value, {7})
    unchanged(pages, before)


def test_events_of_two_dimensions(pages: SharedPages) -> None:
    before = pages.snapshot()
    with pytest.raises(ValueError, match="2"):
        pages.apply(events((1, 1, True), (2, 1, True)).reshape(1, 2))
    unchanged(pages, before)


Use = Callable[[SharedPages, DirtyLog, Any], object]

RANGE_USES: dict[str, Use] = {
    "from_ranges": lambda pages, log, table: PageSet.from_ranges(table),
    "set_list": lambda pages, log, table: pages.set_list(table),
    "add_ranges": lambda pages, log, table: log.add_ranges(table),
    "merge": lambda pages, log, table: pages.snapshot().merge(table),
    "iter_merge": lambda pages, log, table: list(pages.snapshot().iter_merge(table)),
}
PAGE_USES: dict[str, Use] = {
    "from_pages": lambda pages, log, given: PageSet.from_pages(given),
    "contains": lambda pages, log, given: SET.contains(given),
    "add_pages": lambda pages, log, given: log.add_pages(given),
}
BAD_RANGES: dict[str, tuple[Any, type[Exception], set[int]]] = {
    "limit": (ranges((0, LIMIT + 1)), RangeError, {LIMIT + 1}),
    "wrap": (ranges((1, 2), (3, 4), (5, 2**64 - 1)), RangeError, {2**64 - 1}),
    "zero-length": (ranges((LIMIT + 1, LIMIT + 1)), RangeError, {LIMIT + 1}),
    "inverted": (ranges((1, 2), (9, 5)), ValueError, {9}),
    "sign bit": (ranges((2**63, 5)), ValueError, {2**63}),
    "negative": (np.array([[1, 2], [-7, 4]]), RangeError, {-7, 2**64 - 7}),
    "three columns": (np.zeros((2, 3), dtype=np.uint64), ValueError, {3}),
    "one column": (np.zeros((2, 1), dtype=np.uint64), ValueError, {1}),
    "three dimensions": (np.zeros((2, 2, 2), dtype=np.uint64), ValueError, {2, 3}),
    "odd": (np.zeros(3, dtype=np.uint64), ValueError, {3}),
    "odd bytes": (bytes(24), ValueError, {24, 3}),
    "half a word": (bytes(17), ValueError, {17}),
}
BAD_PAGES: dict[str, tuple[Any, type[Exception], set[int]]] = {
    "limit": (gfns(1, 2, LIMIT), RangeError, {LIMIT}),
    "wrap": (gfns(2**64 - 1), RangeError, {2**64 - 1}),
    "negative": (np.array([3, -2, 4]), RangeError, {-2, 2**64 - 2}),
    "two dimensions": (ranges((1, 2)), ValueError, {2}),
    "half a word": (bytes(12), ValueError, {12}),
}
NO_PAGES: dict[str, Any] = {
    **{type(value).__name__: value for value in NOT_BUFFERS},
    "f8": gfns(1, 2).astype(np.float64),
    "big endian": gfns(1, 2).astype(">u8"),
    "objects": gfns(1, 2).astype(object),
    "complex": gfns(1, 2).astype(np.complex128),
}
BAD = [
    *((use, bad) for use in RANGE_USES for bad in BAD_RANGES),
    *((use, bad) for use in PAGE_USES for bad in BAD_PAGES),
]


@pytest.mark.parametrize(("use", "bad"), BAD, ids=str)
def test_bad_ranges_and_pages(pages: SharedPages, log: DirtyLog, use: str, bad: str) -> None:
    before = pages.snapshot()
    given, error, values = (BAD_RANGES if use in RANGE_USES else BAD_PAGES)[bad]
    with pytest.raises(error) as raised:
        (RANGE_USES | PAGE_USES)[use](pages, log, given)
    names(raised.value, values)
    unchanged(pages, before)
    untouched(log)


@pytest.mark.parametrize("given", NO_PAGES.values(), ids=NO_PAGES)
@pytest.mark.parametrize("use", [*RANGE_USES, *PAGE_USES])
def test_ranges_and_pages_of_other_types(
    pages: SharedPages, log: DirtyLog, use: str, given: Any
) -> None:
    before = pages.snapshot()
    if use in RANGE_USES and isinstance(given, np.ndarray):
        given = given.reshape(1, 2)
    with pytest.raises(TypeError):
        (RANGE_USES | PAGE_USES)[use](pages, log, given)
    unchanged(pages, before)
    untouched(log)


@pytest.mark.parametrize("gfn", [LIMIT, 2**63])
def test_the_bound_of_gfns_is_named(log: DirtyLog, gfn: int) -> None:
    for use in (PageSet.from_pages, SET.contains, log.add_pages):
        with pytest.raises(RangeError) as raised:
            use(gfns(1, gfn))
        names(raised.value, {gfn}, {LIMIT, LIMIT - 1})


def test_a_list_beyond_the_guest(pages: SharedPages) -> None:
    before = pages.snapshot()
    with pytest.raises(RangeError) as raised:
        pages.set_list(ranges((1, 2), (990, 1001)))
    names(raised.value, {1001, 990}, {NPAGES})
    unchanged(pages, before)


@pytest.mark.parametrize("gfn", [NPAGES, LIMIT, 2**64, -1])
def test_gfns_that_no_guest_has(pages: SharedPages, gfn: int) -> None:
    with pytest.raises(RangeError) as raised:
        gfn in pages  # noqa: B015
    names(raised.value, {gfn}, set() if gfn < 0 else {NPAGES, NPAGES - 1, 2**64, 2**52})


QUERIES: dict[str, Callable[[int], object]] = {
    "in": lambda value: value in SET,
    "rank": SET.rank,
    "count start": lambda value: SET.count(value, LIMIT),
    "count stop": lambda value: SET.count(0, value),
    "ranges start": lambda value: SET.ranges(value),
    "ranges stop": lambda value: SET.ranges(None, value),
    "pages start": lambda value: SET.pages(value),
    "pages stop": lambda value: SET.pages(0, value),
    "gaps stop": lambda value: SET.gaps(0, value),
    "to_bitmap start": lambda value: SET.to_bitmap(value, 1),
    "to_bitmap npages": lambda value: SET.to_bitmap(1, value),
    "from_bitmap first": lambda value: PageSet.from_bitmap(b"\1", first=value),
}


@pytest.mark.parametrize("value", [LIMIT + 1, 2**64, 2**70, -1, -(2**64)])
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries_out_of_bounds(query: Callable[[int], object], value: int) -> None:
    with pytest.raises(RangeError) as raised:
        query(value)
    derived = {value, value + 1, value + 7, value + 8}
    names(raised.value, derived, set() if value < 0 else {LIMIT, LIMIT - 1, 2**64, 2**64 - 1})
    assert canonical(SET.ranges()) == [(3, 7), (10, 11)]


@pytest.mark.parametrize("value", [1.0, "1", np.float64(1), [1.0]], ids=repr)
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries_of_other_types(query: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(TypeError):
        query(value)


@pytest.mark.parametrize("query", ["count", "ranges", "pages", "gaps"])
def test_inverted_windows(query: str) -> None:
    with pytest.raises(ValueError) as raised:
        getattr(SET, query)(9, 4)
    names(raised.value, {9}, {4})


@pytest.mark.parametrize("index", [5, 2**64, -(2**64)])
def test_select_out_of_bounds(index: int) -> None:
    with pytest.raises(IndexError) as raised:
        SET.select(index)
    names(raised.value, {index}, {5})


@pytest.mark.parametrize("batch", [0, -1])
def test_empty_batches(pages: SharedPages, batch: int) -> None:
    for use in (SET.iter_ranges, lambda batch: pages.snapshot().iter_merge(SET, batch=batch)):
        with pytest.raises(ValueError, match=str(batch)):
            list(use(batch=batch))


def test_bitmaps_of_foreign_byte_order(log: DirtyLog) -> None:
    for use in (PageSet.from_bitmap, lambda bits: log.add_bitmap(3, bits)):
        with pytest.raises(TypeError):
            use(np.array([1], dtype=">u8"))
    untouched(log)


def test_empty_batches_on_a_closed_tracker(pages: SharedPages) -> None:
    pages.close()
    for use in (pages.apply, pages.set_list):
        with pytest.raises(ClosedError):
            use(np.zeros(0, EVENT_DTYPE) if use == pages.apply else ranges())


def test_bitmaps_too_short_for_npages() -> None:
    with pytest.raises(ValueError) as raised:
        PageSet.from_bitmap(b"\xff" * 3, npages=25)
    names(raised.value, {25}, {3, 24})


def test_bitmaps_beyond_the_last_page() -> None:
    with pytest.raises(RangeError) as raised:
        PageSet.from_bitmap(b"\x01\x01", first=LIMIT - 8)
    names(raised.value, {LIMIT - 8, LIMIT + 8, 16}, {LIMIT})


@pytest.mark.parametrize("out", [bytearray(15), np.zeros(15, dtype=np.uint8), bytearray()])
def test_output_buffers_too_short(out: Any) -> None:
    with pytest.raises(ValueError) as raised:
        SET.to_bitmap(0, 65, out=out)
    names(raised.value, {len(out)}, {16})
    assert not any(out)


def test_output_buffers_that_cannot_be_written() -> None:
    locked = np.zeros(8, dtype=np.uint8)
    locked.flags.writeable = False
    for out in (locked, bytes(8)):
        with pytest.raises((TypeError, ValueError, BufferError)):
            SET.to_bitmap(0, 64, out=out)
        assert not any(out)


@pytest.mark.parametrize("out", ["text", 5, 1.5])
def test_outputs_that_are_no_buffers(out: Any) -> None:
    with pytest.raises(TypeError):
        SET.to_bitmap(0, 64, out=out)


@pytest.mark.parametrize("buffer", ["text", None, 5, 1.5])
def test_bitmaps_that_are_no_buffers(log: DirtyLog, buffer: Any) -> None:
    with pytest.raises(TypeError):
        PageSet.from_bitmap(buffer)
    with pytest.raises(TypeError):
        log.add_bitmap(0, buffer)
    untouched(log)


@pytest.mark.parametrize(
    ("arguments", "error", "values"),
    [
        ({"npages": -1}, RangeError, {-1}),
        ({"npages": LIMIT + 1}, RangeError, {LIMIT + 1}),
        ({"npages": 2**70}, RangeError, {2**70}),
        ({"npages": "16777217TiB"}, RangeError, {16777217, 16777217 * 2**28, 16777217 * 2**40}),
        ({"npages": "big"}, ValueError, None),
        ({"npages": ""}, ValueError, None),
        ({"npages": "-1TiB"}, ValueError, None),
        ({"npages": "6KiB"}, ValueError, None),
        ({"npages": "1TiB", "page_size": 3000}, ValueError, {3000}),
        ({"page_size": 0}, ValueError, {0}),
        ({"page_size": -4096}, ValueError, {-4096}),
        ({"initial": "encrypted"}, ValueError, None),
        ({"engine": "list"}, ValueError, None),
        ({"npages": 1.5}, TypeError, None),
        ({"npages": b"1TiB"}, TypeError, None),
        ({"initial": None}, TypeError, None),
        ({"initial": True}, TypeError, None),
        ({"engine": 1}, TypeError, None),
        ({"page_size": 4096.0}, TypeError, None),
    ],
    ids=str,
)
def test_trackers_that_cannot_be(
    arguments: dict[str, Any], error: type[Exception], values: set[int] | None
) -> None:
    with pytest.raises(error) as raised:
        SharedPages(**arguments)
    if values is not None:
        names(raised.value, values)


@pytest.mark.parametrize("bad", [None, 1, b"shared"], ids=repr)
def test_resets_that_cannot_be(pages: SharedPages, bad: Any) -> None:
    before = pages.snapshot()
    with pytest.raises(ValueError, match="encrypted"):
        pages.reset("encrypted")
    with pytest.raises(TypeError):
        pages.reset(bad)
    unchanged(pages, before)


@pytest.mark.parametrize("arguments", [("1",), (1.5,), (None,), (0, "soon"), (0, [1])], ids=repr)
def test_waits_of_other_types(pages: SharedPages, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        pages.wait(*arguments)


@pytest.mark.parametrize("error", [RangeError, FormatError])
def test_the_family_of_errors(error: type[Exception]) -> None:
    assert issubclass(error, SharedPagesError)
    assert issubclass(error, ValueError)
