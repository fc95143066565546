"""The protocol: harvest, then list, then merge with what was converted since the last round.

A conversion C is recorded before the guest's first write W under the new type (rule R1). A round
harvests (D) before it lists (L), so every page that it found dirty has C < W < D < L: the list is
right for it (R2). A conversion alone counts as dirty (R4), reckoned from the list of the last round
that arrived: what is converted while its pages travel is newer than that list, and comes again.

Whatever interrupts a step, no page is lost: a harvest that is not committed goes back to its log,
and nothing is taken for arrived before `Outcome.COMMITTED` is stored. What this means for the next
round is worked out when that begins (`_fold`), where running out of memory costs nothing.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

from pysharedpages._core import PageSet, Snapshot, Transfer
from pysharedpages.dirty import DirtyLog, GuestMemory, Harvest
from pysharedpages.errors import ClosedError, RangeError
from pysharedpages.migration.errors import MigrationForbiddenError, StillDirtyError
from pysharedpages.migration.foresight import Foresight
from pysharedpages.migration.interfaces import DirtySource, Tracker, sources_of
from pysharedpages.migration.round import Instants, Outcome, Round, RoundRecord
from pysharedpages.migration.standing import Standing, pages_of

__all__ = ["Migration"]

_FINAL_ROUNDS: Final = 16


class Migration(Foresight):
    """One guest's migration to one destination, round by round.

    The first round sends all of the log's memory unless there are sources and every one of them is
    `complete`; each round after sends what was written or converted since the one before. Pages
    that are converted and are not the log's memory (MMIO) are not sent; those that somebody reports
    as dirty are, and nothing else is known of them.

    `pages` is asked for snapshots, `sources` are collected from in order, and the log is taken from
    by nobody else meanwhile. `threads` (1 to 256) is how many share a merge; `clock` dates the
    rounds in `history`.

    One thread runs a migration; conversions and `DirtyLog.add_*` come from any, at any time. As a
    context manager it closes itself. Beside collecting, taking and merging a round costs O(slots),
    and O(its ranges) where the last was aborted, or until all memory is sent where sources are
    complete.

    Raises TypeError for what is no tracker, log, source or clock; RangeError for `threads` out of
    bounds; ClosedError for a closed tracker; SnapshotLimitError. Nothing has changed then.
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
        if not callable(getattr(pages, "snapshot", None)) or not hasattr(
            pages, "migration_allowed"
        ):
            raise TypeError(f"pages must be SharedPages, not {type(pages).__name__}")
        if not isinstance(log, DirtyLog):
            raise TypeError(f"log must be DirtyLog, not {type(log).__name__}")
        if not callable(clock):
            raise TypeError(f"clock must be callable, not {type(clock).__name__}")
        super().__init__(self._collect, pages, clock)
        self._pages = pages
        self._log = log
        self._sources = sources_of(sources)
        self._threads = operator.index(threads)
        self._clock = clock
        complete = [bool(each.complete) for each in self._sources]
        is_vouched = bool(complete) and all(complete)
        self._has_complete = any(complete)
        self._history: list[RoundRecord] = []
        self._number = 0
        self._is_finished = False
        self._is_closed = False
        # The newest round, until its outcome is in `_standing`, and what was taken for it: noted
        # before anything can go wrong, for a traceback would keep a local from its log.
        self._round: Round | None = None
        self._harvest: Harvest | None = None
        first = pages.snapshot()
        try:
            first.merge(PageSet(), threads=threads)  # which knows how many threads there may be
            self._standing = Standing(first, log.memory, not is_vouched)
            if not is_vouched:
                log.add_ranges(log.memory.pages().ranges())
        except BaseException:
            first.close()
            raise

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
        """The rounds that arrived, oldest first. O(rounds)."""
        return tuple(self._history)

    @property
    def snapshot(self) -> Snapshot:
        """The list of the last round that arrived; before the first, of when this was made.

        After `final` it is what goes to the destination: `set_list(m.snapshot.ranges())`. A
        snapshot of the caller's own, to keep or to close. ClosedError after `close`. O(1).
        """
        self._check_open()
        return copy(self._previous)

    @property
    def is_finished(self) -> bool:
        """Whether a final pass came out empty, and no other round or memory has come since."""
        return self._is_finished

    def rounds(
        self, most: int | None = None, *, until: Callable[[Round], bool] | None = None
    ) -> Iterator[Round]:
        """Rounds with the guest running: at most `most`, and none after `until(round)` is true.

        Reaching the end of the loop's body commits a round; an exception aborts it, as does
        `break` unless `round.commit()` was called before. A body that failed may also call
        `round.abort()` and go on: the next round has its pages again. `until` is asked about rounds
        that have arrived, `most` counts all.

        A round that begins aborts one that is still open, of whatever loop; that loop then ends
        with ClosedError.

        Raises TypeError, RangeError for a negative `most`, ClosedError after `close`; and, when a
        round begins, whatever a source, the tracker or the merge raises: its pages are in the log.
        """
        self._check_open()
        if most is not None:
            most = _at_least(0, most, "most")
        if until is not None and not callable(until):
            raise TypeError(f"until must be callable, not {type(until).__name__}")
        return self._rounds(most, until)

    def _rounds(self, most: int | None, until: Callable[[Round], bool] | None) -> Iterator[Round]:
        for _ in count() if most is None else range(most):
            round_ = self._begin(is_final=False)
            with round_:
                yield round_
            self._check_newest(round_)
            if until is not None and round_.is_committed and until(round_):
                return

    def final(self, most: int = _FINAL_ROUNDS, *, force: bool = False) -> Iterator[Round]:
        """Rounds with the guest stopped, until one finds nothing: the guest may go on elsewhere.

        The caller has stopped all vCPUs and quiesced devices. The first round is yielded even if it
        is empty; the one that finds nothing is not, but it is in `history`. Rounds end as in
        `rounds`. After an error the migration can go on, by `rounds` or by another `final`.

        Raises StillDirtyError, with the pages `left`, if after `most` rounds there is more;
        MigrationForbiddenError, now and at each pass, while the guest forbids its migration, unless
        `force`; RangeError for `most` below 1; and as `rounds`.
        """
        self._check_open()
        most = _at_least(1, most, "most")
        self._check_allowed(force)
        return self._final(most, force)

    def _final(self, most: int, force: bool) -> Iterator[Round]:
        for done in range(most + 1):
            round_ = self._begin(is_final=True)
            if self._concludes(round_, done, most, force):
                return
            with round_:
                yield round_
            self._check_newest(round_)

    def _concludes(self, round_: Round, done: int, most: int, force: bool) -> bool:
        """Whether this final pass is the last. What it found is in the log again if this raises."""
        try:
            self._check_allowed(force)
            if done and not round_.pages:
                round_.commit()
                self._is_finished = True
            elif done == most:
                left = pages_of(round_.transfer)
                raise StillDirtyError(f"{len(left)} pages are dirty after {most} rounds", left=left)
        except BaseException:
            if round_.is_open:
                round_.abort()
            raise
        return self._is_finished

    def set_memory(self, memory: GuestMemory, sources: Iterable[DirtySource] | None = None) -> None:
        """The guest's slots are those of `memory` from now on, as its log's and its sources'.

        All pages of a slot (slot, gfn, npages) that was not there before are dirty. What is no
        longer memory is dropped, wherever it is noted, also from a round that is open: that may end
        either way. Sources that stay are told, if they have a `set_memory`; `sources`, if given,
        replace those there were, and the ones that leave are collected from once more. Threads that
        collect from one by themselves, as of a full dirty ring, wait until this returns. What a
        source forgets with a slot, as KVM its bitmap, is collected by the caller before the slot
        goes: it matters where pages stay memory by a slot of another address space.

        Raises TypeError, ClosedError, MemoryError, and what a source raises: the migration is then
        as it was, sources that were told before excepted, and the call can be made again. O(slots),
        and as `DirtyLog.set_memory`.
        """
        self._check_open()
        if not isinstance(memory, GuestMemory):
            raise TypeError(f"memory must be GuestMemory, not {type(memory).__name__}")
        staying = self._sources if sources is None else sources_of(sources)
        if self._round is None or not self._round.is_open:
            self._fold()
        standing = self._standing.within(memory)
        for source in self._sources:
            if all(source is not other for other in staying):
                source.collect(self._log)
        for source in self._sources:
            tell: Any = getattr(source, "set_memory", None)
            if tell is not None and any(source is other for other in staying):
                tell(memory)
        self._is_finished = False
        self._has_complete |= any(each.complete for each in staying)
        self._log.set_memory(memory)
        self._standing = standing
        self._sources = staying

    def close(self) -> None:
        """Ends the migration: aborts a round that is open and releases the list.

        Where a source is complete, what was sent goes back to the log: nobody reports it twice, and
        the next migration of this guest, over the same log, has another destination. Closing twice
        is nothing. After a MemoryError it can be called again. O(1), or O(ranges sent).
        """
        if self._is_closed:
            return
        self._abandon()
        if self._has_complete:
            self._fold()
            for ranges in self._standing.sent.iter_ranges():
                self._log.add_ranges(ranges)
        self._previous.close()
        self._is_closed = True

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "finished" if self._is_finished else "under way"
        return f"<Migration, {state}: {len(self._history)} rounds arrived>"

    # -- one round

    def _begin(self, *, is_final: bool) -> Round:
        self._check_open()
        self._abandon()
        self._fold()
        self._is_finished = False
        began = self._clock()
        self._harvest = self._collect()
        try:
            return self._plan(self._harvest, began, is_final)
        except BaseException:
            self._give_back()
            raise

    def _collect(self) -> Harvest:
        self._check_open()
        for source in self._sources:
            source.collect(self._log)
        return self._log.take()

    def _plan(self, harvest: Harvest, began: float, is_final: bool) -> Round:
        harvested = self._clock()
        snapshot = self._pages.snapshot()
        try:
            listed = self._clock()
            transfer = self._merge(snapshot, harvest)
            round_ = Round(
                self._number + 1,
                is_final,
                snapshot,
                transfer,
                self._rerouted(snapshot, transfer),
                harvest=harvest,
                instants=Instants(began, harvested, listed, self._clock()),
                settle=self._settle,
            )
        except BaseException:
            snapshot.close()
            raise
        self._number += 1
        self._round = round_
        return round_

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        return snapshot.merge(harvest, since=self._previous, threads=self._threads)

    def _rerouted(self, snapshot: Snapshot, transfer: Transfer) -> PageSet:
        return self._standing.rerouted(snapshot, transfer.converted)

    def _settle(self, round_: Round, arrived: bool) -> None:
        """Ends a round. Interrupted before its outcome is stored it is open still."""
        if arrived:
            record = round_._record(self._clock())
            round_._outcome = Outcome.COMMITTED
            self._history.append(record)
            round_._harvest.commit()
            self._standing.list.close()
        else:
            round_._outcome = Outcome.ABORTED
            self._give_back()
            round_.snapshot.close()
            round_._list.close()

    # -- between rounds

    @property
    def _previous(self) -> Snapshot:
        """The list of the last round that arrived, this migration's own."""
        round_ = self._round
        if round_ is not None and round_.is_committed:
            return round_._list
        return self._standing.list

    def _abandon(self) -> None:
        """Aborts a round that is open; what an interrupted step has left out goes back."""
        if self._round is not None and self._round.is_open:
            self._round.abort()
        self._sampler.give_back()
        self._give_back()

    def _give_back(self) -> None:
        """Puts what was taken last back into the log, unless that harvest has ended."""
        if self._harvest is not None:
            with suppress(ClosedError):
                self._harvest.abort()

    def _fold(self) -> None:
        """Takes the outcome of the newest round, which has ended, into what is known."""
        standing = self._standing.within(self._log.memory)
        round_ = self._round
        if round_ is not None and round_.is_committed:
            standing = standing.arrived(round_._list, round_.transfer, round_._memory)
        elif round_ is not None and round_._is_out:
            standing = standing.tried(round_.transfer)
        self._standing, self._round = standing, None

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the migration is closed")

    def _check_newest(self, round_: Round) -> None:
        if round_.number != self._number:
            raise ClosedError(
                f"round {round_.number} was ended when round {round_.number + 1} began: go on there"
            )

    def _check_allowed(self, force: bool) -> None:
        if self._pages.migration_allowed is False and not force:
            raise MigrationForbiddenError("the guest forbids its migration: migration_allowed")


def _at_least(least: int, value: int, name: str) -> int:
    number = operator.index(value)
    if number < least:
        raise RangeError(f"{name} is {number}: the least is {least}")
    return number
