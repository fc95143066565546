"""The rounds of a demonstrated migration: a `Migration`, and what each of its rounds took and sent.

`between` is called between harvest and list, where a conversion hurts most, while the guest runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from pysharedpages._core import SharedPages, Snapshot
from pysharedpages.dirty import DirtyLog
from pysharedpages.migration import DirtySource, Migration, Round, RoundRecord
from pysharedpages.softguest.host import Link

__all__ = ["Observer", "Rounds", "Row", "ioctl_us"]


class Observer(Protocol):
    """Is told how far a migration has come."""

    def phase(self, name: str, npages: int) -> None:
        """A phase of `npages` pages of work begins."""

    def advance(self, npages: int) -> None:
        """`npages` more pages of the phase are done."""


@dataclass(frozen=True)
class Row:
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
    """The source VMM's part of one migration; one thread runs it.

    Where the source vouches for nothing, the log has all the pages that it left out.
    """

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
        self._tracker = _Threshold(pages)
        self._source = source
        self._migration = Migration(self._tracker, log, [_Vouched(source)], clock=time.perf_counter)
        self._link = link
        self._between = between
        self._observer = observer

    def live(self) -> list[Row]:
        """One round with the guest running."""
        self._tracker.between = self._between
        return list(self._rows(self._migration.rounds(1)))

    def final(self, stop: Callable[[], None]) -> list[Row]:
        """The last rounds, for which `stop` stops the guest; then the list goes over too."""
        stop()
        self._tracker.between = None
        rows = list(self._rows(self._migration.final()))
        self._link.send_list(self._migration.snapshot.ranges())
        return rows

    def _rows(self, rounds: Iterator[Round]) -> Iterator[Row]:
        for round_ in rounds:
            dirty = round_.dirty_pages
            name = "final" if round_.is_final else f"round {round_.number}"
            self._observer.phase(name, round_.pages)
            self._link.send(round_.transfer, self._observer.advance)
            round_.commit()
            yield self._row(self._migration.history[-1], dirty)

    def _row(self, record: RoundRecord, dirty: int) -> Row:
        return Row(
            final=record.is_final,
            dirty=dirty,
            converted=record.converted_pages,
            sent_shared=record.shared_pages,
            sent_private=record.private_pages,
            harvest_us=(record.harvested - record.began) * 1e6,
            snapshot_us=self._tracker.snapshot_us,
            merge_us=(record.merged - record.listed) * 1e6,
            ioctl_us=ioctl_us(self._source),
        )


def ioctl_us(source: object) -> float | None:
    """Microseconds that a source's last collection spent in the kernel's calls, if it knows."""
    nanoseconds: int | None = getattr(source, "ioctl_ns", None)
    return None if nanoseconds is None else nanoseconds / 1000


class _Threshold:
    """The tracker as the migration sees it: something happens before each list, and is not timed
    with it.
    """

    def __init__(self, pages: SharedPages) -> None:
        self._pages = pages
        self.between: Callable[[], None] | None = None
        self.snapshot_us = 0.0

    @property
    def migration_allowed(self) -> bool | None:
        return self._pages.migration_allowed

    def snapshot(self) -> Snapshot:
        if self.between is not None:
            self.between()
        start = time.perf_counter_ns()
        snapshot = self._pages.snapshot()
        self.snapshot_us = (time.perf_counter_ns() - start) / 1000
        return snapshot


class _Vouched:
    """A source for which this VMM vouches: it knows of each page that ever held data.

    Without, the first round would send all of a memory of terabytes, most of which was never used.
    """

    complete: Final = True

    def __init__(self, source: DirtySource) -> None:
        self._source = source

    def collect(self, log: DirtyLog) -> None:
        self._source.collect(log)
