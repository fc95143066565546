"""The wrong order of a round, which `Migration` has no way to make, beside the right one.

The list is taken first, then the log is harvested, and conversions are forgotten: race 2. What was
converted between the two travels on the path of its old type.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from pysharedpages._core import SharedPages
from pysharedpages.dirty import DirtyLog, Harvest
from pysharedpages.migration import DirtySource
from pysharedpages.softguest.host import Link
from pysharedpages.softguest.rounds import Observer, Rounds, Row, ioctl_us
from pysharedpages.softguest.scenario import DIRTY_THEN_LIST, LIST_THEN_DIRTY

__all__ = ["ROUNDS", "ListThenDirty"]

T = TypeVar("T")


class ListThenDirty:
    """As `rounds.Rounds`, in the wrong order."""

    def __init__(
        self,
        pages: SharedPages,
        log: DirtyLog,
        source: DirtySource,
        link: Link,
        *,
        between: Callable[[], None],
        observer: Observer,
    ) -> None:
        self._pages = pages
        self._log = log
        self._source = source
        self._link = link
        self._between = between
        self._observer = observer
        self._number = 0
        self._previous = pages.snapshot()

    def live(self) -> list[Row]:
        """One round with the guest running."""
        return [self._round(None)]

    def final(self, stop: Callable[[], None]) -> list[Row]:
        """The last round, amid which `stop` stops the guest; then its list goes over."""
        row = self._round(stop)
        self._link.send_list(self._previous.ranges())
        return [row]

    def _round(self, stop: Callable[[], None] | None) -> Row:
        snapshot, snapshot_us = _timed(self._pages.snapshot)
        self._between()
        if stop is not None:
            stop()
        harvest, harvest_us = _timed(self._harvest)
        with harvest:
            transfer, merge_us = _timed(lambda: snapshot.merge(harvest))
            sent = transfer.shared_pages + transfer.private_pages
            self._number += 1
            self._observer.phase(f"round {self._number}" if stop is None else "final", sent)
            self._link.send(transfer, self._observer.advance)
        converted = len(snapshot.converted_since(self._previous))
        self._previous.close()
        self._previous = snapshot
        return Row(
            final=stop is not None,
            dirty=sent,
            converted=converted,
            sent_shared=transfer.shared_pages,
            sent_private=transfer.private_pages,
            harvest_us=harvest_us,
            snapshot_us=snapshot_us,
            merge_us=merge_us,
            ioctl_us=ioctl_us(self._source),
        )

    def _harvest(self) -> Harvest:
        self._source.collect(self._log)
        return self._log.take()


ROUNDS: Final[dict[str, type[Rounds] | type[ListThenDirty]]] = {
    DIRTY_THEN_LIST: Rounds,
    LIST_THEN_DIRTY: ListThenDirty,
}
"""The rounds of each of `scenario.ORDERS`."""


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter_ns()
    result = call()
    return result, (time.perf_counter_ns() - start) / 1000
