"""What was sent: for each page its last sending alone, and whether it was converted after that.

Floor: verify. A pass sends by a list of shared pages, so what is converted after that list was read
is newer than the pass, whenever its pages go out. Nothing is kept of a pass once it has ended: a
page is among those last sent as plain bytes, among those last sent through the platform, or was
never sent; and it may be stale (converted since) or dropped (promised, and not sent since).

Where conversions come from is the journal's one choice. By snapshots it believes the tracker's
`converted_since`; by events it replays what the guest asked for, and believes no tracker.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages import _buffers
from pysharedpages._core import PageSet, SharedPages, Snapshot
from pysharedpages.errors import ClosedError, RangeError, SharedPagesError
from pysharedpages.migration import Round

__all__ = ["Journal", "Pass", "as_pageset"]

_GFN_LIMIT: Final = 1 << 52
# Events replayed between two unions: their ranges take a few MiB.
_REPLAY_EVENTS: Final = 65536


def as_pageset(given: Any) -> PageSet:
    """`given` itself if it is a PageSet, else the pages of its ranges."""
    return given if isinstance(given, PageSet) else PageSet.from_ranges(given)


class Journal:
    """What a migration sent; see `verify` for what follows from it.

    * `Journal()` learns of conversions by snapshots: each pass is begun with the snapshot that it
      sends by, and `verify` is given the one taken at the stop. The journal holds one snapshot.
    * `Journal(shared=ranges)` is told of them by `converted`, from the list it begins with on: the
      guest's exits, recorded by the VMM before it tells its tracker. Passes then have no snapshot.
      A conversion that is told between a pass's list and its `begin` is taken for older than the
      list: a right migration is never accused, a wrong one may go free of this one page.

    Memory is four page sets, of any number of passes and pages. Thread-safe; one pass at a time.
    """

    def __init__(self, shared: Any = None) -> None:
        self._lock = threading.Lock()
        self._replay: SharedPages | None = None
        self._base: Snapshot | None = None
        self._open: Pass | None = None
        self._sent_shared = PageSet()
        self._sent_private = PageSet()
        self._stale = PageSet()
        self._dropped = PageSet()
        self._passes = 0
        self._failed = 0
        if shared is not None:
            self._replay = SharedPages()
            self._replay.set_list(as_pageset(shared).ranges())

    @property
    def passes(self) -> int:
        """How many passes have ended, failed ones included."""
        return self._passes

    @property
    def failed_passes(self) -> int:
        """How many passes failed."""
        return self._failed

    @property
    def sent_shared(self) -> PageSet:
        """Pages whose last sending was as plain bytes. What failed passes sent does not count."""
        return self._sent_shared

    @property
    def sent_private(self) -> PageSet:
        """Pages whose last sending was through the platform. Failed passes do not count."""
        return self._sent_private

    @property
    def dropped(self) -> PageSet:
        """Pages that a pass was to send, or a failed one may have sent, and none sent since."""
        return self._dropped

    @property
    def shared(self) -> PageSet:
        """The list of shared pages that the conversions told lead to; TypeError by snapshots."""
        if self._replay is None:
            raise TypeError("this journal is told of no conversions: the list is in its snapshots")
        return self._replay.snapshot()

    @property
    def nbytes(self) -> int:
        """Heap bytes of what is kept; a snapshot held is counted by its tracker."""
        with self._lock:
            sets = (self._sent_shared, self._sent_private, self._stale, self._dropped)
            replay = 0 if self._replay is None else self._replay.nbytes
            return replay + sum(pages.nbytes for pages in sets)

    def converted(self, events: Any) -> None:
        """The guest asked for these conversions, an array of EVENT_DTYPE, in this order.

        Only pages whose status changes are converted. Events during a pass are newer than its list.
        Raises TypeError if the journal goes by snapshots, RangeError for pages at or beyond 2^52
        and a `shared` above 1: nothing has changed then. Some
        microseconds a call, and one an event.
        """
        if self._replay is None:
            raise TypeError("this journal goes by snapshots: make it with Journal(shared=ranges)")
        table = _checked(_buffers.as_events(events))
        with self._lock, self._replay.snapshot() as before:
            later = PageSet() if self._open is None else self._open._later
            try:
                changed = _replayed(self._replay, table)
                stale, later = self._stale | changed, later | changed
            except BaseException:
                self._replay.set_list(before.ranges())
                raise
            self._stale = stale
            if self._open is not None:
                self._open._later = later

    def begin(self, snapshot: Snapshot | None = None) -> Pass:
        """A pass begins: the list that it sends by is `snapshot`, or has just been read.

        A pass that is still open has failed. Raises TypeError unless a snapshot is given to a
        journal of snapshots and to no other, ValueError for one of another tracker.
        """
        if (snapshot is None) == (self._replay is None):
            raise TypeError(
                "a pass needs the snapshot that it sends by: conversions would go unseen"
                if snapshot is None
                else "this journal is told of conversions, and takes no snapshots"
            )
        with self._lock:
            later = PageSet() if snapshot is None else self._follow_list(snapshot)
            if self._open is not None:
                self._settle(self._open, False)
            self._open = Pass(self, later)
            return self._open

    def sent(
        self,
        shared: Any = (),
        private: Any = (),
        snapshot: Snapshot | None = None,
        *,
        dirty: Any = (),
    ) -> None:
        """A whole pass that arrived: `begin`, `Pass.harvested`, `Pass.sent` and `Pass.commit`."""
        plain, platform = _two_paths(shared, private)
        promised = as_pageset(dirty)
        with self.begin(snapshot) as pass_:
            pass_.harvested(promised)
            pass_._add(plain, platform)

    def forget(self, pages: Any) -> None:
        """A memory slot is gone: nothing counts as sent of these ranges, or this PageSet."""
        gone = as_pageset(pages)
        with self._lock:
            self._sent_shared -= gone
            self._sent_private -= gone
            self._dropped -= gone
            if self._open is not None:
                self._open._forget(gone)

    def follow(self, rounds: Iterable[Round]) -> Iterator[Round]:
        """The same rounds, each recorded as a pass: sent if it was committed, else failed.

        `for r in journal.follow(migration.rounds()): ...`; recorded is what a round says is to be
        sent, on the loop's word. A journal of events leaves the snapshots alone.
        """
        last: tuple[Round, Pass] | None = None
        try:
            for round_ in rounds:
                if last is not None:
                    self._close(*last)
                pass_ = self.begin(round_.snapshot if self._replay is None else None)
                last = round_, pass_
                pass_.sent(round_.shared, round_.private)
                yield round_
        finally:
            if last is not None:
                self._close(*last)

    def _close(self, round_: Round, pass_: Pass) -> None:
        with self._lock:
            if self._open is pass_:
                self._settle(pass_, round_.is_committed)

    def stale(self, final: PageSet) -> PageSet:
        """Pages sent by a list that is older than their last conversion.

        By snapshots, `final` is the one taken at the stop: TypeError if it is none, ValueError if
        it is of another tracker, RangeError if it is older than the last pass's list. By events it
        is not looked at. SharedPagesError while a pass is open.
        """
        with self._lock:
            if self._open is not None:
                raise SharedPagesError(f"pass {self._passes + 1} is open: commit or abort it first")
            converted = self._stale
            if self._replay is None:
                converted = converted | self._since_last_list(final)
            return converted & (self._sent_shared | self._sent_private)

    def _since_last_list(self, final: Any) -> PageSet:
        if not isinstance(final, Snapshot):
            raise TypeError(
                f"this journal goes by snapshots: final must be the Snapshot of the stop, not"
                f" {type(final).__name__}"
            )
        if self._base is None:
            return PageSet()
        if final.epoch < self._base.epoch:
            self._base.converted_since(final)  # ValueError if they cannot be compared
            raise RangeError(
                f"final has epoch {final.epoch}, below {self._base.epoch}: a pass sent by a"
                f" newer list"
            )
        converted: PageSet = final.converted_since(self._base)
        return converted

    def _follow_list(self, snapshot: Snapshot) -> PageSet:
        """Takes note of a pass's list; what was converted after it already, if it is an old one."""
        base = self._base
        if base is not None and snapshot.epoch < base.epoch:
            return base.converted_since(snapshot)
        newest = copy.copy(snapshot)
        if base is not None:
            self._stale |= newest.converted_since(base)
            base.close()
        self._base = newest
        return PageSet()

    def _settle(self, pass_: Pass, arrived: bool) -> None:
        """Called with the lock held; all sets are made before one of them is put in its place."""
        shared, private = pass_._shared, pass_._private
        sent = shared | private
        dropped = self._dropped | pass_._dirty
        if arrived:
            sets = (
                (self._sent_shared - private) | shared,
                (self._sent_private - shared) | private,
                (self._stale - sent) | (pass_._later & sent),
                dropped - sent,
            )
        else:
            sets = (self._sent_shared, self._sent_private, self._stale, dropped | sent)
            self._failed += 1
        self._sent_shared, self._sent_private, self._stale, self._dropped = sets
        self._passes += 1
        self._open = None


class Pass:
    """One pass that is under way. As a context manager it commits, or aborts on an exception."""

    def __init__(self, journal: Journal, later: PageSet) -> None:
        self._journal = journal
        self._later = later
        self._dirty = PageSet()
        self._shared = PageSet()
        self._private = PageSet()

    def harvested(self, dirty: Any) -> None:
        """The pass took these pages from its dirty log, so it has to send them.

        Ranges or a PageSet; ClosedError if the pass has ended.
        """
        promised = as_pageset(dirty)
        with self._journal._lock:
            self._check_open()
            self._dirty |= promised

    def sent(self, shared: Any = (), private: Any = ()) -> None:
        """These pages went out: as plain bytes, and through the platform. Ranges or PageSets.

        May be called for every few pages; a later sending of a page supersedes the earlier.
        RangeError if a page is in both, ClosedError if the pass has ended.
        """
        self._add(*_two_paths(shared, private))

    def commit(self) -> None:
        """All that was sent has arrived. ClosedError if the pass has ended."""
        self._end(True)

    def abort(self) -> None:
        """Some of it may not have arrived. ClosedError if the pass has ended."""
        self._end(False)

    def _add(self, shared: PageSet, private: PageSet) -> None:
        with self._journal._lock:
            self._check_open()
            plain, platform = self._shared - private, self._private - shared
            self._shared, self._private = plain | shared, platform | private

    def _forget(self, gone: PageSet) -> None:
        self._shared -= gone
        self._private -= gone
        self._dirty -= gone

    def _end(self, arrived: bool) -> None:
        with self._journal._lock:
            self._check_open()
            self._journal._settle(self, arrived)

    def _check_open(self) -> None:
        if self._journal._open is not self:
            raise ClosedError("the pass was already committed or aborted")

    def __enter__(self) -> Pass:
        with self._journal._lock:
            self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._journal._open is self:
            self._end(kind is None)


def _two_paths(shared: Any, private: Any) -> tuple[PageSet, PageSet]:
    plain, platform = as_pageset(shared), as_pageset(private)
    if not plain.isdisjoint(platform):
        both = (plain & platform).min()
        raise RangeError(f"page {both:#x} is in shared and in private: which was sent last?")
    return plain, platform


def _checked(table: NDArray[np.void]) -> NDArray[np.void]:
    """All events before any is replayed, so that a bad one changes nothing."""
    start, npages, shared = (table[name] for name in ("start", "npages", "shared"))
    limit = np.uint64(_GFN_LIMIT)
    outside = (start > limit) | (npages > limit - np.minimum(start, limit))
    bad = np.flatnonzero(outside | (shared > 1))
    if len(bad):
        index = int(bad[0])
        values = f"start {int(start[index]):#x}, {int(npages[index])} pages"
        if outside[index]:
            raise RangeError(f"event {index}: {values}: pages end at 2^52")
        raise RangeError(f"event {index}: shared is {int(shared[index])}, above 1")
    return table


def _replayed(replay: SharedPages, table: NDArray[np.void]) -> PageSet:
    """Makes the conversions; the pages whose status changed, once or more often."""
    pages = PageSet()
    for first in range(0, len(table), _REPLAY_EVENTS):
        changed = [
            replay.convert(start, npages, bool(shared))
            for start, npages, shared in table[first : first + _REPLAY_EVENTS].tolist()
        ]
        pages |= PageSet.from_ranges(np.concatenate(changed))
    return pages
