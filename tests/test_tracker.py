# tier: unit
"""SharedPages: conversions, epochs, notification and the end, against values written by hand."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model import EVENT, GFN_LIMIT, canonical, events, gfns, ranges

from pysharedpages import EVENT_DTYPE, ClosedError, FormatError, RangeError, SharedPages
from pysharedpages.abi import tdx

Make = Callable[..., SharedPages]


def test_the_event_layout() -> None:
    assert EVENT_DTYPE.itemsize == 24
    assert EVENT_DTYPE == EVENT
    assert EVENT_DTYPE.names == ("start", "npages", "shared")
    bits = np.array([(1, 2, 1)], dtype=EVENT_DTYPE).tobytes()
    assert bits[:17].hex() == "01" + "00" * 7 + "02" + "00" * 7 + "01"


def test_a_new_tracker_is_private(tracker: Make) -> None:
    pages = tracker(1000)
    assert len(pages) == 0
    assert pages.epoch == 0
    assert canonical(pages.get_list()) == []
    assert 0 not in pages and 999 not in pages


def test_initially_shared(tracker: Make) -> None:
    pages = tracker(1000, initial="shared")
    assert len(pages) == 1000
    assert pages.epoch == 0
    assert canonical(pages.get_list()) == [(0, 1000)]
    assert pages.unshare(0, 10) == 10


def test_the_default_guest_is_every_gfn(tracker: Make) -> None:
    pages = tracker()
    assert pages.share(GFN_LIMIT - 1) == 1
    assert canonical(pages.get_list()) == [(GFN_LIMIT - 1, GFN_LIMIT)]
    assert len(tracker(initial="shared")) == GFN_LIMIT


@pytest.mark.parametrize(
    ("text", "page_size", "npages"),
    [
        ("1TiB", 4096, 2**28),
        ("512MiB", 4096, 2**17),
        ("4KiB", 4096, 1),
        ("24TiB", 4096, 24 * 2**28),
        ("1GiB", 2**16, 2**14),
        ("2MiB", 2**14, 128),
    ],
)
def test_sizes_as_text(tracker: Make, text: str, page_size: int, npages: int) -> None:
    pages = tracker(text, page_size=page_size)
    assert pages.share(npages - 1) == 1
    with pytest.raises(RangeError):
        pages.share(npages)
    assert canonical(pages.get_list()) == [(npages - 1, npages)]


def test_share_and_unshare_count_what_changed(tracker: Make) -> None:
    pages = tracker(1000)
    assert pages.share(10, 5) == 5
    assert pages.share(12) == 0
    assert pages.share(8, 4) == 2
    assert pages.unshare(0, 9) == 1
    assert pages.unshare(500, 100) == 0
    assert pages.unshare(11, 2) == 2
    assert canonical(pages.get_list()) == [(9, 11), (13, 15)]
    assert len(pages) == 4
    assert [gfn for gfn in range(20) if gfn in pages] == [9, 10, 13, 14]


def test_arguments_of_numpy(tracker: Make) -> None:
    pages = tracker(1000)
    assert pages.share(np.uint64(10), np.int32(5)) == 5
    assert pages.share(True) == 1
    assert np.int64(14) in pages
    assert canonical(pages.get_list()) == [(1, 2), (10, 15)]


def test_zero_length_ranges_do_nothing(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(10, 5)
    assert pages.share(3, 0) == 0
    assert pages.unshare(12, 0) == 0
    assert pages.share(1000, 0) == 0
    assert pages.apply(events((3, 0, True), (12, 0, False))) == 0
    assert canonical(pages.convert(12, 0, False)) == []
    assert pages.epoch == 1
    assert canonical(pages.get_list()) == [(10, 15)]


def test_convert_returns_the_changed_ranges(tracker: Make) -> None:
    pages = tracker(1000)
    assert canonical(pages.convert(10, 10, True)) == [(10, 20)]
    assert canonical(pages.convert(30, 10, True)) == [(30, 40)]
    assert canonical(pages.convert(0, 50, True)) == [(0, 10), (20, 30), (40, 50)]
    assert canonical(pages.convert(5, 20, True)) == []
    assert canonical(pages.convert(45, 10, False)) == [(45, 50)]
    assert canonical(pages.get_list()) == [(0, 45)]
    assert pages.epoch == 4


def test_the_epoch_counts_changing_calls(tracker: Make) -> None:
    pages = tracker(1000)
    seen = []
    for change in (
        lambda: pages.share(5, 10),
        lambda: pages.share(5, 10),
        lambda: pages.unshare(100),
        lambda: pages.unshare(7),
        lambda: pages.apply(events((1, 1, True), (2, 1, True), (3, 1, True))),
        lambda: pages.apply(events((1, 1, True))),
        lambda: pages.apply(events()),
        lambda: pages.set_list(ranges((0, 4))),
        lambda: pages.set_list(ranges((0, 2), (2, 4))),
        lambda: pages.reset("shared"),
        lambda: pages.reset("shared"),
        lambda: pages.convert(0, 1, False),
    ):
        change()
        seen.append(pages.epoch)
    assert seen == [1, 1, 1, 2, 3, 3, 3, 4, 4, 5, 5, 6]


def test_apply_is_in_order(tracker: Make) -> None:
    pages = tracker(1000)
    changed = pages.apply(events((0, 100, True), (10, 10, False), (15, 2, True), (99, 2, True)))
    assert changed == 100 + 10 + 2 + 1
    assert canonical(pages.get_list()) == [(0, 10), (15, 17), (20, 101)]
    assert pages.epoch == 1


def test_apply_that_flips_there_and_back(tracker: Make) -> None:
    pages = tracker(1000)
    before = pages.snapshot()
    assert pages.apply(events((5, 1, True), (5, 1, False))) == 2
    assert canonical(pages.get_list()) == []
    assert pages.epoch == 1
    assert canonical(pages.snapshot().converted_since(before).ranges()) == [(5, 6)]


def test_apply_is_all_or_nothing(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(50, 5)
    before = pages.snapshot()
    with pytest.raises(RangeError):
        pages.apply(events((0, 100, True), (52, 1, False), (999, 2, True)))
    assert canonical(pages.get_list()) == [(50, 55)]
    assert pages.epoch == 1
    assert len(pages) == 5
    assert len(pages.snapshot().converted_since(before)) == 0


def test_apply_takes_strided_and_read_only_events(tracker: Make) -> None:
    pages = tracker(1000)
    batch = events((1, 1, True), (500, 1, True), (2, 1, True), (600, 1, True))
    batch.flags.writeable = False
    assert pages.apply(batch[::2]) == 2
    assert canonical(pages.get_list()) == [(1, 3)]


def test_set_list(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(10, 10)
    assert pages.set_list(ranges((15, 25), (30, 31))) == 5 + 5 + 1
    assert canonical(pages.get_list()) == [(15, 25), (30, 31)]
    assert pages.set_list(ranges()) == 11
    assert len(pages) == 0


def test_the_list_is_byte_compatible(tracker: Make) -> None:
    pages, copy = tracker(), tracker()
    pages.share(2**40, 3)
    pages.share(7)
    entries = pages.get_list().tobytes()
    assert entries == b"".join(gfn.to_bytes(8, "little") for gfn in (7, 8, 2**40, 2**40 + 3))
    assert copy.set_list(entries) == 4
    assert canonical(copy.get_list()) == [(7, 8), (2**40, 2**40 + 3)]


def test_reset(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(10, 10)
    assert pages.reset("shared") == 990
    assert canonical(pages.get_list()) == [(0, 1000)]
    assert pages.reset("private") == 1000
    assert canonical(pages.get_list()) == []


def test_shared_bitmaps_round_trip(tracker: Make) -> None:
    pages = tracker(128)
    pages.share(3, 2)
    pages.share(64, 8)
    assert pages.snapshot().to_bitmap(0, 128).tobytes().hex() == "18" + "00" * 7 + "ff" + "00" * 7


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("share", 10, 10), ("unshare", 10, 2)], [(12, 20)]),
        ([("share", 10, 10), ("unshare", 14, 2)], [(10, 14), (16, 20)]),
        ([("share", 10, 90), ("share", 20, 10)], [(10, 100)]),
        ([("share", 0, 10), ("share", 20, 10), ("share", 5, 20)], [(0, 30)]),
        ([("share", 0, 10), ("share", 20, 10), ("unshare", 5, 20)], [(0, 5), (25, 30)]),
        ([("share", 0, 5), ("share", 10, 5), ("share", 20, 5), ("unshare", 0, 25)], []),
        (
            [("share", 2**32, 4), ("unshare", 2**32 + 1, 1)],
            [(2**32, 2**32 + 1), (2**32 + 2, 2**32 + 4)],
        ),
        ([("share", 0, 1), ("share", 2**32, 1)], [(0, 1), (2**32, 2**32 + 1)]),
    ],
    ids=["trim", "split", "inside", "bridge", "span two", "span three", "16 TiB", "above 16 TiB"],
)
def test_what_other_trackers_got_wrong(
    tracker: Make, steps: list[tuple[str, int, int]], expected: list[tuple[int, int]]
) -> None:
    pages = tracker()
    for step, start, npages in steps:
        getattr(pages, step)(start, npages)
    assert canonical(pages.get_list()) == expected


def readable(fd: int) -> bool:
    """Whether select finds the descriptor readable now."""
    return bool(select.select([fd], [], [], 0)[0])


def test_fileno_with_select(tracker: Make) -> None:
    pages = tracker(1000)
    fd = pages.fileno()
    assert pages.fileno() == fd
    assert not readable(fd)
    pages.share(5)
    assert readable(fd)
    os.read(fd, 8)
    assert not readable(fd)
    pages.share(5)
    assert not readable(fd)
    pages.apply(events((6, 1, True)))
    assert select.select([pages], [], [], 0)[0] == [pages]


def test_reading_an_idle_fileno_does_not_block(tracker: Make) -> None:
    with pytest.raises(BlockingIOError):
        os.read(tracker(1000).fileno(), 8)


def test_a_failed_call_does_not_notify(tracker: Make) -> None:
    pages = tracker(1000)
    fd = pages.fileno()
    with pytest.raises(RangeError):
        pages.apply(events((0, 1, True), (1000, 1, True)))
    assert not readable(fd)


def test_fileno_with_asyncio(tracker: Make) -> None:
    pages = tracker(1000)

    async def converted() -> int:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[int] = loop.create_future()
        fd = pages.fileno()

        def on_change() -> None:
            os.read(fd, 8)
            loop.remove_reader(fd)
            told.set_result(pages.epoch)

        loop.add_reader(fd, on_change)
        threading.Thread(target=pages.share, args=(5,)).start()
        return await asyncio.wait_for(told, 30)

    assert asyncio.run(converted()) == 1


def test_wait_returns_at_once_when_the_epoch_moved(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(1)
    pages.share(2)
    assert pages.wait(0) == 2
    assert pages.wait(1, timeout=30) == 2


def test_wait_returns_the_same_epoch_on_timeout(tracker: Make) -> None:
    pages = tracker(1000)
    assert pages.wait(0, timeout=0) == 0
    pages.share(1)
    assert pages.wait(1, timeout=0.01) == 1


def test_wait_is_woken_by_another_thread(tracker: Make) -> None:
    pages = tracker(1000)
    answers: list[int] = []
    waiter = threading.Thread(target=lambda: answers.append(pages.wait(0)), daemon=True)
    waiter.start()
    pages.share(1)
    waiter.join(30)
    assert answers == [1]


def test_wait_does_not_drain_fileno(tracker: Make) -> None:
    pages = tracker(1000)
    fd = pages.fileno()
    pages.share(1)
    assert pages.wait(0) == 1
    assert readable(fd)


def test_cost(tracker: Make) -> None:
    pages = tracker()
    small = pages.nbytes
    pages.apply(events(*((gfn, 1, True) for gfn in range(0, 2**16, 2))))
    assert pages.nbytes > small
    stats = pages.stats()
    assert {"pages", "ranges", "nodes", "live_nodes", "leaves", "bytes"} <= set(stats)
    assert stats["pages"] == 2**15
    assert stats["ranges"] == 2**15


def hints(pages: SharedPages) -> tuple[int, int]:
    """The events given untrusted, and the pages that they changed."""
    stats = pages.stats()
    return stats["hint_events"], stats["hint_pages"]


def test_hints_convert_as_all_events_and_are_counted(tracker: Make) -> None:
    pages = tracker(1000)
    assert hints(pages) == (0, 0)
    pages.apply(events((0, 10, True)))
    pages.apply(events((100, 10, True)), trusted=True)
    pages.share(200)
    assert hints(pages) == (0, 0)
    batch = events((5, 10, True), (0, 2, False), (0, 2, False), (300, 0, True))
    assert pages.apply(batch, trusted=False) == 7
    assert hints(pages) == (4, 7)
    assert canonical(pages.get_list()) == [(2, 15), (100, 110), (200, 201)]
    epoch = pages.epoch
    assert pages.apply(events((2, 13, True)), trusted=False) == 0
    assert (hints(pages), pages.epoch) == ((5, 7), epoch)
    assert pages.apply(events(), trusted=False) == 0
    pages.set_list(ranges((1, 2)))
    pages.reset()
    assert hints(pages) == (5, 7)


def test_hints_that_are_refused_count_nothing(tracker: Make) -> None:
    pages = tracker(1000)
    pages.apply(events((1, 2, True)), trusted=False)
    bad = events((0, 1, True))
    bad["shared"] = 2
    calls: list[tuple[Any, type[Exception]]] = [
        (events((5, 1, True), (999, 2, True)), RangeError),
        (bad, RangeError),
        (np.zeros(3, np.float64), TypeError),
        (np.zeros((2, 2), events().dtype), FormatError),
    ]
    for given, error in calls:
        with pytest.raises(error):
            pages.apply(given, trusted=False)
    assert hints(pages) == (1, 2)
    assert canonical(pages.get_list()) == [(1, 3)]
    with pytest.raises(TypeError):
        pages.apply(events((5, 1, True)), False)  # type: ignore[call-arg]
    pages.close()
    with pytest.raises(ClosedError):
        pages.apply(events((5, 1, True)), trusted=False)


def test_a_map_gpa_is_a_hint(tracker: Make) -> None:
    request = tdx.decode_map_gpa(0, 0x10001, 0x800000010000, 0x3000)
    pages = tracker()
    assert pages.apply(request.events, trusted=request.trusted) == 3
    assert hints(pages) == (1, 3)


@pytest.mark.parametrize(
    "use",
    [
        lambda pages: pages.share(1),
        lambda pages: pages.unshare(1),
        lambda pages: pages.convert(1, 1, True),
        lambda pages: pages.apply(events((1, 1, True))),
        lambda pages: pages.set_list(ranges((1, 2))),
        lambda pages: pages.reset("shared"),
        lambda pages: pages.snapshot(),
        lambda pages: pages.latest(),
        lambda pages: pages.get_list(),
        lambda pages: 1 in pages,
        len,
        lambda pages: pages.epoch,
        lambda pages: pages.fileno(),
        lambda pages: pages.wait(0, timeout=0),
        lambda pages: pages.nbytes,
        lambda pages: pages.stats(),
        lambda pages: pages.__enter__(),
    ],
    ids=[
        *(
            "share",
            "unshare",
            "convert",
            "apply",
            "set_list",
            "reset",
            "snapshot",
            "latest",
            "get_list",
        ),
        *("in", "len", "epoch", "fileno", "wait", "nbytes", "stats", "with"),
    ],
)
def test_use_after_close(tracker: Make, use: Callable[[SharedPages], object]) -> None:
    pages = tracker(1000)
    pages.share(5)
    held = pages.snapshot()
    pages.close()
    with pytest.raises(ClosedError):
        use(pages)
    assert canonical(held.ranges()) == [(5, 6)]


def test_close_twice_and_as_a_context(engine: str) -> None:
    with SharedPages(1000, engine=engine) as pages:
        pages.share(5)
        assert 5 in pages
    with pytest.raises(ClosedError):
        pages.share(6)
    pages.close()


def test_close_frees_the_descriptor(engine: str) -> None:
    pages = SharedPages(1000, engine=engine)
    fd = pages.fileno()
    pages.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_default_engine() -> None:
    with SharedPages("1GiB") as pages:
        assert pages.share(10, 5) == 5
        assert pages.snapshot().contains(gfns(9, 10, 14, 15)).tolist() == [False, True, True, False]
