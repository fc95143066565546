"""A round of a migration: what `Migration` adds to collecting, taking, listing and merging."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from measure import Contender, compare
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import TIB, Ranges, Words, dirty_bitmap, shared, slots_of, tracker_of

from pysharedpages import DirtyLog, GuestMemory, SharedPages
from pysharedpages.migration import Migration

OWN_TARGET = {"0.01 %": 1.1, "1 %": 1.1}

Lists = tuple[Ranges, Ranges]


class Bitmap:
    """A source that reports the same bitmap every time, as KVM would fill it in."""

    def __init__(self, words: Words, complete: bool) -> None:
        self.complete = complete
        self._words = words

    def collect(self, log: DirtyLog) -> None:
        """Add all of it."""
        lent = np.frombuffer(log.bitmap_buffer(0), np.uint64)  # type: ignore[call-overload]
        np.copyto(lent, self._words)


def rounds_of(pages: SharedPages, source: Bitmap, aborted: bool) -> Callable[[], Lists]:
    """A round of a migration under way, whose last was aborted or not."""
    migration = Migration(pages, DirtyLog(GuestMemory(slots_of(TIB))), [source])

    def run() -> Lists:
        for round_ in migration.rounds(1):
            if aborted:
                round_.abort()
        return round_.shared, round_.private

    for _ in migration.rounds(1):
        pass
    return run


def by_hand(pages: SharedPages, source: Bitmap) -> Callable[[], Lists]:
    """The same steps, with nothing kept but the last snapshot."""
    log = DirtyLog(GuestMemory(slots_of(TIB)))
    previous = pages.snapshot()

    def run() -> Lists:
        nonlocal previous
        source.collect(log)
        with log.take() as harvest:
            snapshot = pages.snapshot()
            transfer = snapshot.merge(harvest, since=previous)
        previous.close()
        previous = snapshot
        return transfer.shared, transfer.private

    return run


@pytest.mark.parametrize("kind", ["0.01 %", "1 %"])
@pytest.mark.parametrize("case", ["", ", after one that was aborted", ", of a complete source"])
def test_round(benchmark: BenchmarkFixture, kind: str, case: str) -> None:
    """A source that is complete has its pages counted until all memory is sent: here, always."""
    pages = tracker_of(shared("boot"))
    source = Bitmap(dirty_bitmap(kind, TIB), "complete" in case)
    ours = Contender("pysharedpages", rounds_of(pages, source, "aborted" in case), answer=tuple)
    most = None if case else OWN_TARGET[kind]
    steps = Contender("its steps by hand", by_hand(pages, source), answer=tuple, most=most)
    lists = steps.run()
    compare(
        benchmark,
        f"a round of a migration{case}, 1 TiB, boot, {kind} dirty",
        ours,
        [steps],
        ranges=sum(map(len, lists)),
    )
