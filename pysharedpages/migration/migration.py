"""The protocol: harvest, then list, then merge with what was converted since the last round.

A conversion C is recorded before the guest's first write W under the new type (rule R1). A round
harvests (D) before it lists (L), so every page that it found dirty has C < W < D < L: the list is
right for it (R2). A conversion alone counts as dirty (R4), reckoned from the list of the last round
that arrived: what is converted while its pages travel is newer than that list, and comes again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from pysharedpages._core import PageSet, Snapshot, Transfer
from pysharedpages.dirty import DirtyLog, GuestMemory, Harvest
from pysharedpages.migration.errors import MigrationForbiddenError, StillDirtyError
from pysharedpages.migration.round import Round, RoundRecord

__all__ = ["DirtySource", "Migration", "Tracker"]

_FINAL_ROUNDS: Final = 16


class DirtySource(Protocol):
    """What is asked of a source of dirty pages."""

    @property
    def complete(self) -> bool:
        """Whether the first collection reports every page that ever held data."""

    def collect(self, log: DirtyLog, /) -> object:
        """Add what is dirty since the last call, and re-arm."""


class Tracker(Protocol):
    """What is asked of the tracker: a `SharedPages`, or something that stands before one."""

    @property
    def migration_allowed(self) -> bool | None:
        """See `SharedPages.migration_allowed`."""

    def snapshot(self) -> Snapshot:
        """See `SharedPages.snapshot`."""


class Migration:
    """One guest's migration, round by round.

    The first round sends all of the log's memory unless every source is `complete`; each round
    after sends what was written or converted since the one before. One thread runs a migration;
    conversions and `DirtyLog.add_*` come from any.
    """

    def __init__(
        self,
        pages: Tracker,
        log: DirtyLog,
        sources: Iterable[DirtySource],
        *,
        threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pages = pages
        self._log = log
        self._sources = tuple(sources)
        self._threads = threads
        self._clock = clock
        self._history: list[RoundRecord] = []
        self._number = 0
        self._round: Round | None = None
        self._harvest: Harvest | None = None
        self._harvested = 0.0
        self._previous = pages.snapshot()
        # Rerouting: which pages may lie on the destination, and how those of rounds that were
        # aborted since `previous` may have been sent.
        self._sent = PageSet()
        self._tried_shared = PageSet()
        self._tried_private = PageSet()
        if not all(source.complete for source in self._sources):
            log.add_ranges(log.memory.pages().ranges())

    @property
    def log(self) -> DirtyLog:
        """Where the sources report."""
        return self._log

    @property
    def memory(self) -> GuestMemory:
        """What is RAM."""
        return self._log.memory

    @property
    def history(self) -> tuple[RoundRecord, ...]:
        """The rounds that arrived."""
        return tuple(self._history)

    @property
    def snapshot(self) -> Snapshot:
        """The list of the last round that arrived; before the first, of when this was made."""
        return self._previous

    def rounds(
        self, most: int | None = None, *, until: Callable[[Round], bool] | None = None
    ) -> Iterator[Round]:
        """Rounds with the guest running: at most `most`, and none after `until(round)` is true.

        Reaching the end of the loop's body commits a round; an exception aborts it, as does
        `break` unless `round.commit()` was called before.
        """
        done = 0
        while most is None or done < most:
            round_ = self._begin(is_final=False)
            with round_:
                yield round_
            done += 1
            if until is not None and until(round_):
                return

    def final(self, most: int = _FINAL_ROUNDS, *, force: bool = False) -> Iterator[Round]:
        """Rounds with the guest stopped, until one finds nothing: the guest may go on elsewhere.

        The first is yielded even if it is empty. Raises StillDirtyError, with the pages `left`,
        if after `most` rounds there is more; MigrationForbiddenError while the guest forbids its
        migration, unless `force`.
        """
        if self._pages.migration_allowed is False and not force:
            raise MigrationForbiddenError("the guest forbids its migration: migration_allowed")
        return self._final(most)

    def _final(self, most: int) -> Iterator[Round]:
        for number in range(most + 1):
            round_ = self._begin(is_final=True)
            if number and not round_.pages:
                round_.commit()
                return
            if number == most:
                left = PageSet.from_ranges(round_.shared) | PageSet.from_ranges(round_.private)
                round_.abort()
                raise StillDirtyError(f"{len(left)} pages are dirty after {most} rounds", left=left)
            with round_:
                yield round_

    # -- one round

    def _begin(self, *, is_final: bool) -> Round:
        if self._round is not None and self._round.is_open:
            self._round.abort()
        harvest = self._collect()
        try:
            self._harvested = self._clock()
            snapshot = self._pages.snapshot()
            transfer = self._merge(snapshot, harvest)
            rerouted = self._rerouted(snapshot, transfer)
        except BaseException:
            harvest.abort()
            raise
        self._harvest = harvest
        self._number += 1
        self._round = Round(self._number, is_final, snapshot, transfer, rerouted, self._settle)
        return self._round

    def _collect(self) -> Harvest:
        for source in self._sources:
            source.collect(self._log)
        return self._log.take()

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        return snapshot.merge(harvest, since=self._previous, threads=self._threads)

    def _rerouted(self, snapshot: Snapshot, transfer: Transfer) -> PageSet:
        """Pages of the transfer that may lie on the destination as they came on the other path.

        A page whose status is not that of the last round that arrived was converted since, so it
        is among the converted.
        """
        converted = transfer.converted
        flipped = converted & self._sent & (snapshot ^ self._previous)
        tried = (self._tried_private & snapshot) | (self._tried_shared - snapshot)
        return flipped | (tried & converted)

    def _settle(self, round_: Round, arrived: bool) -> None:
        harvest = self._harvest
        assert harvest is not None
        transfer = round_.transfer
        shared = PageSet.from_ranges(transfer.shared)
        private = PageSet.from_ranges(transfer.private)
        if not arrived:
            self._tried_shared |= shared
            self._tried_private |= private
            harvest.abort()
            round_.snapshot.close()
        else:
            harvest.commit()
            self._sent |= shared | private
            self._tried_shared = self._tried_private = PageSet()
            self._previous.close()
            self._previous = round_.snapshot
            self._history.append(self._record(round_))
        self._harvest = None

    def _record(self, round_: Round) -> RoundRecord:
        transfer = round_.transfer
        return RoundRecord(
            number=round_.number,
            is_final=round_.is_final,
            harvested=self._harvested,
            committed=self._clock(),
            shared_pages=transfer.shared_pages,
            private_pages=transfer.private_pages,
            converted_pages=len(transfer.converted),
            rerouted_pages=len(round_.rerouted),
        )
