# tier: model
"""A terabyte, thirty rounds: just the pages that were spoilt by hand are found, in a megabyte."""

from __future__ import annotations

import numpy as np
from model import Ranges, canonical

from pysharedpages import DirtyLog, GuestMemory, PageSet, SharedPages
from pysharedpages.migration import Migration
from pysharedpages.verify import Journal, verify

TIB = 1 << 28
GIB = 1 << 18
DIRTY_PAGES = 26_843
"""0.01 % of the pages a round."""
CONVERSIONS = 200
ROUNDS = 30
MEMORY = GuestMemory([(0, 0, TIB)])


class Source:
    """Random pages, and some that are converted, before each harvest."""

    complete = False

    def __init__(self, rng: np.random.Generator, tracker: SharedPages, journal: Journal) -> None:
        self._rng = rng
        self._tracker = tracker
        self._journal = journal
        self.is_stopped = False

    def collect(self, log: DirtyLog) -> None:
        if self.is_stopped:
            return
        log.add_pages(self._rng.integers(0, TIB, DIRTY_PAGES, dtype=np.uint64))
        starts = self._rng.integers(4 * GIB, TIB - 8, CONVERSIONS).tolist()
        sizes = self._rng.integers(1, 8, CONVERSIONS).tolist()
        types = self._rng.integers(0, 2, CONVERSIONS).astype(bool).tolist()
        table = list(zip(starts, sizes, types, strict=True))
        self._journal.converted(table)
        self._tracker.apply(table)


def boot(rng: np.random.Generator, tracker: SharedPages) -> None:
    """A bounce buffer of a gigabyte, and thousands of small buffers."""
    tracker.share(3 * GIB, GIB)
    for gfn, npages in zip(rng.integers(0, TIB - 64, 4160), rng.integers(1, 32, 4160), strict=True):
        tracker.share(int(gfn), int(npages))


def test_a_terabyte(rng: np.random.Generator) -> None:
    tracker = SharedPages(TIB)
    boot(rng, tracker)
    by_events, by_snapshots = Journal(shared=tracker.snapshot()), Journal()
    source = Source(rng, tracker, by_events)
    migration = Migration(tracker, DirtyLog(MEMORY), [source])
    for _ in by_snapshots.follow(by_events.follow(migration.rounds(ROUNDS))):
        pass
    source.is_stopped = True
    for _ in by_snapshots.follow(by_events.follow(migration.final())):
        pass
    # What was sent 26,843 pages at a time is one set by now: memory goes by what is shared.
    most = 1 << 20
    assert by_events.nbytes < most and by_snapshots.nbytes < most

    def found(journal: Journal, final: PageSet) -> dict[str, Ranges]:
        report = verify(
            journal,
            final,
            memory=MEMORY,
            nonzero=MEMORY.pages(),
            destination=migration.snapshot,
        )
        assert report.sent_pages == TIB
        return {each.name: canonical(each.pages.ranges()) for each in report.findings}

    assert found(by_events, by_events.shared) == {}
    assert found(by_snapshots, tracker.snapshot()) == {}

    buffer = 3 * GIB  # which nothing was converted of since the boot
    by_events.sent(private=[(buffer, buffer + 1), (buffer + 1000, buffer + 3000)])
    by_events.converted([(buffer + 5000, 7, False), (buffer + 5001, 2, True)])
    failed = by_events.begin()
    failed.harvested([(17, 19)])
    failed.abort()
    assert found(by_events, by_events.shared) == {
        "shared_sent_private": [(buffer, buffer + 1), (buffer + 1000, buffer + 3000)],
        "private_sent_shared": [(buffer + 5000, buffer + 5001), (buffer + 5003, buffer + 5007)],
        "stale": [(buffer + 5000, buffer + 5007)],
        "dropped": [(17, 19)],
        "wrong_list": [(buffer + 5000, buffer + 5001), (buffer + 5003, buffer + 5007)],
    }
