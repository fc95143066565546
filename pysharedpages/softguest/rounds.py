"""The rounds of a migration, in the right order and in the wrong one.

Right: harvest what is dirty, then take the list, then merge with what was converted since the
last round's list. Wrong: take the list first, then harvest, and forget about conversions.
`between` is called between those two halves, where a conversion hurts most, while the guest runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import SharedPages, Snapshot, Transfer
from pysharedpages.dirty import DirtyLog, Harvest
from pysharedpages.softguest.host import Link
from pysharedpages.softguest.scenario import LIST_THEN_DIRTY

__all__ = ["DirtySource", "Observer", "Round", "Rounds"]

T = TypeVar("T")


class DirtySource(Protocol):
    """What is asked of a source of dirty pages."""

    @property
    def complete(self) -> bool:
        """Whether the first collection reports every page that ever held data."""

    def collect(self, log: DirtyLog, /) -> object:
        """Add what is dirty since the last call, and re-arm."""


class Observer(Protocol):
    """Is told how far a migration has come."""

    def phase(self, name: str, npages: int) -> None:
        """A phase of `npages` pages of work begins."""

    def advance(self, npages: int) -> None:
        """`npages` more pages of the phase are done."""


@dataclass(frozen=True)
class Round:
    """What one round found and sent, in pages, and the microseconds of its three steps.

    `ioctl_us` is the part of the harvest that the kernel's calls took; None where it is not known.
    """

    final: bool
    dirty: int
    converted: int
    sent_shared: int
    sent_private: int
    harvest_us: float
    snapshot_us: float
    merge_us: float
    ioctl_us: float | None = None


class Rounds:
    """The source VMM's part of one migration; one thread runs it."""

    def __init__(
        self,
        pages: SharedPages,
        log: DirtyLog,
        source: DirtySource,
        link: Link,
        *,
        order: str,
        between: Callable[[], None],
        observer: Observer,
    ) -> None:
        self._pages = pages
        self._log = log
        self._source = source
        self._link = link
        self._round = self._list_then_dirty if order == LIST_THEN_DIRTY else self._dirty_then_list
        self._between = between
        self._observer = observer
        self._number = 0
        self._previous = pages.snapshot()

    def add_all(self, ranges: NDArray[np.uint64]) -> None:
        """Have the first round send all of `ranges`, for a source that cannot vouch for them."""
        self._log.add_ranges(ranges)

    def live(self) -> Round:
        """One round with the guest running."""
        return self._round(None)

    def final(self, stop: Callable[[], None]) -> Round:
        """The last round, for which `stop` stops the guest; then the list goes over too."""
        last = self._round(stop)
        self._link.send_list(self._previous.ranges())
        return last

    def _dirty_then_list(self, stop: Callable[[], None] | None) -> Round:
        if stop is not None:
            stop()
        harvest, harvest_us = _timed(self._harvest)
        with harvest:
            if stop is None:
                self._between()
            snapshot, snapshot_us = _timed(self._pages.snapshot)
            since = self._previous
            transfer, merge_us = _timed(lambda: snapshot.merge(harvest, since=since))
            dirty = len(harvest)
            self._send(transfer, stop is not None)
        converted = len(transfer.converted)
        self._succeed(snapshot)
        return self._row(stop, dirty, converted, transfer, (harvest_us, snapshot_us, merge_us))

    def _list_then_dirty(self, stop: Callable[[], None] | None) -> Round:
        snapshot, snapshot_us = _timed(self._pages.snapshot)
        self._between()
        if stop is not None:
            stop()
        harvest, harvest_us = _timed(self._harvest)
        with harvest:
            transfer, merge_us = _timed(lambda: snapshot.merge(harvest))
            self._send(transfer, stop is not None)
        converted = len(snapshot.converted_since(self._previous))
        self._succeed(snapshot)
        return self._row(
            stop, _pages(transfer), converted, transfer, (harvest_us, snapshot_us, merge_us)
        )

    def _harvest(self) -> Harvest:
        self._source.collect(self._log)
        return self._log.take()

    def _send(self, transfer: Transfer, final: bool) -> None:
        self._number += 1
        self._observer.phase("final" if final else f"round {self._number}", _pages(transfer))
        self._link.send(transfer, self._observer.advance)

    def _succeed(self, snapshot: Snapshot) -> None:
        self._previous.close()
        self._previous = snapshot

    def _row(
        self,
        stop: Callable[[], None] | None,
        dirty: int,
        converted: int,
        transfer: Transfer,
        microseconds: tuple[float, float, float],
    ) -> Round:
        harvest_us, snapshot_us, merge_us = microseconds
        ioctl_ns: int | None = getattr(self._source, "ioctl_ns", None)
        return Round(
            final=stop is not None,
            dirty=dirty,
            converted=converted,
            sent_shared=transfer.shared_pages,
            sent_private=transfer.private_pages,
            harvest_us=harvest_us,
            snapshot_us=snapshot_us,
            merge_us=merge_us,
            ioctl_us=None if ioctl_ns is None else ioctl_ns / 1000,
        )


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter_ns()
    result = call()
    return result, (time.perf_counter_ns() - start) / 1000


def _pages(transfer: Transfer) -> int:
    return transfer.shared_pages + transfer.private_pages
