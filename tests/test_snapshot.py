# tier: unit
"""Snapshot: a PageSet of one epoch, and what was converted between two, against literals."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model import GFN_LIMIT, canonical, events, ranges

from pysharedpages import ClosedError, PageSet, SharedPages, Snapshot, SnapshotLimitError

Make = Callable[..., SharedPages]


def test_a_snapshot_is_a_page_set(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(10, 5)
    snap = pages.snapshot()
    assert isinstance(snap, Snapshot)
    assert isinstance(snap, PageSet)
    assert snap.epoch == 1
    assert len(snap) == 5
    assert list(snap) == [10, 11, 12, 13, 14]
    assert snap[-1] == 14
    assert snap.rank(12) == 2
    assert snap == PageSet.from_ranges(ranges((10, 15)))
    assert hash(snap) == hash(PageSet.from_ranges(ranges((10, 15))))
    assert type(snap | PageSet()) is PageSet


def test_comparisons_with_page_sets(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(10, 5)
    snap, same = pages.snapshot(), PageSet.from_ranges(ranges((10, 15)))
    more, other = PageSet.from_ranges(ranges((9, 15))), PageSet.from_ranges(ranges((90, 99)))
    assert snap <= same and same <= snap and snap >= same and same >= snap
    assert not snap < same and not same < snap and not snap > same and not same > snap
    assert snap < more and snap <= more and more > snap and more >= snap
    assert not more < snap and not more <= snap and not snap > more and not snap >= more
    assert not snap <= other and not other <= snap and not snap >= other and not other >= snap


def test_a_snapshot_does_not_change(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(10, 5)
    snap = pages.snapshot()
    pages.unshare(12)
    pages.share(900, 50)
    pages.reset("shared")
    assert canonical(snap.ranges()) == [(10, 15)]
    assert snap.epoch == 1
    assert len(snap) == 5
    assert canonical(pages.get_list()) == [(0, 1000)]


def test_a_snapshot_of_every_epoch(tracker: Make) -> None:
    pages = tracker(1000)
    held = [pages.snapshot()]
    for gfn in range(100):
        pages.share(gfn * 10)
        held.append(pages.snapshot())
    assert [snap.epoch for snap in held] == list(range(101))
    assert [len(snap) for snap in held] == list(range(101))
    assert all(list(snap) == [gfn * 10 for gfn in range(snap.epoch)] for snap in held)


def test_latest_is_some_published_state(tracker: Make) -> None:
    pages = tracker(1000)
    assert pages.latest().epoch == 0
    seen = []
    for gfn in range(50):
        pages.share(gfn)
        snap = pages.latest()
        assert list(snap) == list(range(snap.epoch))
        seen.append(snap.epoch)
    assert seen == sorted(seen)
    assert seen[-1] <= 50
    assert pages.snapshot().epoch == 50
    assert pages.latest().epoch == 50


def test_latest_lags_by_one_change_at_most_when_it_is_read(tracker: Make) -> None:
    pages = tracker(1000)
    for epoch in range(1, 20):
        before = pages.latest().epoch
        pages.share(epoch)
        assert before < pages.latest().epoch <= epoch


def test_converted_since(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(10, 5)
    older = pages.snapshot()
    pages.share(20, 2)
    pages.share(12, 10)
    pages.unshare(10)
    snap = pages.snapshot()
    converted = snap.converted_since(older)
    assert type(converted) is PageSet
    assert canonical(converted.ranges()) == [(10, 11), (15, 22)]


def test_converted_there_and_back(tracker: Make) -> None:
    pages = tracker(1000)
    older = pages.snapshot()
    pages.share(7)
    pages.unshare(7)
    snap = pages.snapshot()
    assert snap == older
    assert snap.epoch == 2
    assert canonical(snap.converted_since(older).ranges()) == [(7, 8)]


def test_converted_there_and_back_in_a_full_guest(tracker: Make) -> None:
    pages = tracker("24TiB", initial="shared")
    older = pages.snapshot()
    pages.unshare(2**32)
    pages.share(2**32)
    snap = pages.snapshot()
    assert canonical(snap.ranges()) == [(0, 24 * 2**28)]
    assert canonical(snap.converted_since(older).ranges()) == [(2**32, 2**32 + 1)]


def test_repeating_a_status_converts_nothing(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(10, 5)
    older = pages.snapshot()
    pages.share(11, 2)
    pages.unshare(500, 100)
    pages.set_list(ranges((10, 15)))
    snap = pages.snapshot()
    assert snap.epoch == older.epoch
    assert len(snap.converted_since(older)) == 0


def test_converted_since_itself_and_its_twin(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(1)
    snap, twin = pages.snapshot(), pages.snapshot()
    assert len(snap.converted_since(snap)) == 0
    assert len(snap.converted_since(twin)) == 0
    assert len(twin.converted_since(snap)) == 0


def test_converted_before_the_older_one_is_left_out(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(1)
    pages.unshare(1)
    older = pages.snapshot()
    pages.share(2)
    assert canonical(pages.snapshot().converted_since(older).ranges()) == [(2, 3)]


def test_converted_after_the_snapshot_is_left_out(tracker: Make) -> None:
    pages = tracker(1000)
    older = pages.snapshot()
    pages.share(1)
    snap = pages.snapshot()
    pages.share(2)
    newest = pages.snapshot()
    assert canonical(snap.converted_since(older).ranges()) == [(1, 2)]
    assert canonical(newest.converted_since(older).ranges()) == [(1, 3)]
    assert canonical(newest.converted_since(snap).ranges()) == [(2, 3)]


@pytest.mark.parametrize("keep", range(9))
def test_converted_across_dropped_snapshots(tracker: Make, keep: int) -> None:
    pages = tracker(1000)
    held = {}
    for epoch in range(9):
        held[epoch] = pages.snapshot()
        pages.share(epoch * 10)
        pages.unshare(epoch * 10)
    held[9] = pages.snapshot()
    for epoch in (4, 1, 7, 8, 2, 6, 0, 3, 5):
        if epoch not in (keep, 9):
            held.pop(epoch).close()
    expected = [(epoch * 10, epoch * 10 + 1) for epoch in range(keep, 9)]
    assert canonical(held[9].converted_since(held[keep]).ranges()) == expected


def test_converted_by_set_list_and_reset(tracker: Make) -> None:
    pages = tracker(100)
    pages.share(10, 10)
    first = pages.snapshot()
    pages.set_list(ranges((15, 25)))
    second = pages.snapshot()
    pages.reset("shared")
    third = pages.snapshot()
    assert canonical(second.converted_since(first).ranges()) == [(10, 15), (20, 25)]
    assert canonical(third.converted_since(second).ranges()) == [(0, 15), (25, 100)]
    assert canonical(third.converted_since(first).ranges()) == [(0, 15), (20, 100)]


def test_a_failed_call_converts_nothing(tracker: Make) -> None:
    pages = tracker(100)
    older = pages.snapshot()
    with pytest.raises(ValueError, match="100"):
        pages.apply(events((3, 1, True), (99, 2, True)))
    pages.share(7)
    assert canonical(pages.snapshot().converted_since(older).ranges()) == [(7, 8)]


def test_converted_since_a_newer_one(tracker: Make) -> None:
    pages = tracker(1000)
    older = pages.snapshot()
    pages.share(1)
    newer = pages.snapshot()
    with pytest.raises(ValueError, match="1"):
        older.converted_since(newer)


def test_converted_since_one_of_another_tracker(tracker: Make) -> None:
    pages, other = tracker(1000), tracker(1000)
    with pytest.raises(ValueError, match="tracker"):
        pages.snapshot().converted_since(other.snapshot())


@pytest.mark.parametrize("older", [None, 0, PageSet(), "snapshot"])
def test_converted_since_something_else(tracker: Make, older: Any) -> None:
    with pytest.raises(TypeError):
        tracker(1000).snapshot().converted_since(older)


def test_converted_since_a_closed_one(tracker: Make) -> None:
    pages = tracker(1000)
    older, snap = pages.snapshot(), pages.snapshot()
    older.close()
    with pytest.raises(ClosedError):
        snap.converted_since(older)


@pytest.mark.parametrize(
    "use",
    [
        len,
        hash,
        list,
        lambda snap: snap.epoch,
        lambda snap: snap.ranges(),
        lambda snap: snap.pages(),
        lambda snap: snap.nranges,
        lambda snap: snap.nbytes,
        lambda snap: snap.stats(),
        lambda snap: 5 in snap,
        lambda snap: snap[0],
        lambda snap: snap | PageSet(),
        lambda snap: PageSet() | snap,
        lambda snap: snap == PageSet(),
        lambda snap: snap.isdisjoint(PageSet()),
        lambda snap: snap.to_bitmap(0, 64),
        lambda snap: snap.converted_since(snap),
        lambda snap: snap.merge(ranges((0, 1))),
        lambda snap: list(snap.iter_merge(ranges((0, 1)))),
        lambda snap: list(snap.iter_ranges()),
        lambda snap: pickle.dumps(snap, protocol=5),
    ],
    ids=[
        *(
            "len",
            "hash",
            "iter",
            "epoch",
            "ranges",
            "pages",
            "nranges",
            "nbytes",
            "stats",
            "in",
            "index",
        ),
        *("or", "ror", "eq", "isdisjoint", "to_bitmap", "converted_since", "merge", "iter_merge"),
        *("iter_ranges", "pickle"),
    ],
)
def test_use_after_close(tracker: Make, use: Callable[[Snapshot], object]) -> None:
    pages = tracker(1000)
    pages.share(5)
    snap = pages.snapshot()
    snap.close()
    with pytest.raises(ClosedError):
        use(snap)
    snap.close()
    assert canonical(pages.snapshot().ranges()) == [(5, 6)]


def test_closing_one_leaves_its_twin(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(5)
    snap, twin = pages.snapshot(), pages.snapshot()
    snap.close()
    assert canonical(twin.ranges()) == [(5, 6)]


def test_snapshots_outlive_their_tracker(engine: str) -> None:
    pages = SharedPages(1000, engine=engine)
    older = pages.snapshot()
    pages.share(5)
    pages.share(6)
    pages.unshare(5)
    snap = pages.snapshot()
    pages.close()
    del pages
    gc.collect()
    assert canonical(snap.ranges()) == [(6, 7)]
    assert snap.epoch == 3
    assert canonical(snap.converted_since(older).ranges()) == [(5, 7)]
    older.close()
    assert canonical(snap.ranges()) == [(6, 7)]
    assert canonical(snap.merge(ranges((5, 8))).shared) == [(6, 7)]


def test_results_outlive_their_snapshot(engine: str) -> None:
    pages = SharedPages(2**20, engine=engine)
    pages.apply(events(*((gfn, 1, True) for gfn in range(0, 2**17, 2))))
    snap = pages.snapshot()
    table = snap.ranges()
    other = snap | PageSet()
    walk = iter(snap)
    assert next(walk) == 0
    snap.close()
    pages.close()
    del snap, pages
    gc.collect()
    assert np.array_equal(table[:, 0], np.arange(0, 2**17, 2))
    assert len(other) == 2**16


def test_an_iteration_keeps_its_snapshot(engine: str) -> None:
    pages = SharedPages(1000, engine=engine)
    pages.share(5, 3)
    walk = iter(pages.snapshot())
    parts = pages.snapshot().iter_ranges(batch=1)
    pages.close()
    del pages
    gc.collect()
    assert list(walk) == [5, 6, 7]
    assert [canonical(part) for part in parts] == [[(5, 8)]]


def test_pickle(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(5, 3)
    back = pickle.loads(pickle.dumps(pages.snapshot(), protocol=5))
    assert isinstance(back, PageSet)
    assert canonical(back.ranges()) == [(5, 8)]
    assert back == pages.snapshot()


def test_cost(tracker: Make) -> None:
    pages = tracker(2**20)
    pages.apply(events(*((gfn, 1, True) for gfn in range(0, 2**17, 2))))
    snap = pages.snapshot()
    assert snap.stats()["pages"] == 2**16
    assert snap.stats()["bytes"] == snap.nbytes
    assert snap.nbytes >= 2**17 // 8
    assert sys.getsizeof(snap) >= snap.nbytes


def test_unchanged_snapshots_cost_nothing(tracker: Make) -> None:
    pages = tracker(2**20)
    pages.apply(events(*((gfn, 1, True) for gfn in range(0, 2**17, 2))))
    held = [pages.snapshot()]
    live = pages.stats()["live_nodes"]
    for _ in range(100):
        pages.share(0)
        held.append(pages.snapshot())
    assert pages.stats()["live_nodes"] == live
    assert {snap.epoch for snap in held} == {1}


def test_too_many_snapshots(tracker: Make) -> None:
    pages = tracker(1000)
    held = []
    with pytest.raises(SnapshotLimitError, match="65"):
        for epoch in range(70_000):
            pages.convert(5, 1, epoch % 2 == 0)
            held.append(pages.snapshot())
    assert 65_000 < len(held) <= 65_536
    epoch = pages.epoch
    assert pages.share(700, 3) == 3
    assert pages.epoch == epoch + 1
    assert all(list(snap) == ([5] if snap.epoch % 2 else []) for snap in held[::97])
    del held[1000:2000]
    gc.collect()
    assert pages.snapshot().epoch == epoch + 1
    assert pages.snapshot().contains(ranges((700, 702)).ravel()).tolist() == [True, True]


def test_the_last_page(tracker: Make) -> None:
    pages = tracker()
    older = pages.snapshot()
    pages.share(GFN_LIMIT - 1)
    snap = pages.snapshot()
    assert snap.max() == GFN_LIMIT - 1
    assert canonical(snap.converted_since(older).ranges()) == [(GFN_LIMIT - 1, GFN_LIMIT)]


def test_closing_a_copy_leaves_the_original(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(5)
    snap = pages.snapshot()
    for twin in (copy.copy(snap), copy.deepcopy(snap)):
        assert twin == snap
        twin.close()
    assert canonical(snap.ranges()) == [(5, 6)]
