"""Conversions of a trace applied to a tracker, and what they did to it."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet, SharedPages
from pysharedpages.abi.traces import NO_TIME, Batch, BlockState, Origin, Refusal
from pysharedpages.replay.flips import Flips
from pysharedpages.replay.timeline import Timeline

__all__ = ["Moment", "Replay", "Tally"]

_HALF: Final = np.uint64(26)


class Tally:
    """Conversions of one origin in one direction: lines, pages asked for, pages changed."""

    def __init__(self) -> None:
        self.lines = 0
        self.pages = 0
        self.changed = 0


class Moment(NamedTuple):
    """A time in nanoseconds: of the trace's clock, or after its first conversion that has one."""

    nanoseconds: int
    relative: bool = False


class Replay:
    """Applies batches in order. One thread at a time.

    With `until`, nothing later is applied. A line without a time happens at that of the line
    before it, and no line happens before one that precedes it. Each conversion costs what it costs
    the tracker; what is kept beside is bounded by the distinct edges of the ranges that changed.
    """

    def __init__(self, *, initial: str = "private", until: Moment | None = None) -> None:
        self._pages = SharedPages(initial=initial)
        self._until = until
        self._shared = len(self._pages)
        self.flips = Flips()
        self.timeline = Timeline()
        self.tallies: dict[tuple[Origin, bool], Tally] = {}
        self.refused: Counter[tuple[Origin, Refusal]] = Counter()
        self.dirty: Counter[int] = Counter()
        """Dirty reports by slot."""
        self.blocks: Counter[tuple[BlockState, BlockState]] = Counter()
        """Changes within RAM blocks, by the states before and after."""
        self.allowed: bool | None = None
        """What the guest last said of being migrated; None if it said nothing."""
        self.newest_time = NO_TIME
        """The time of the last conversion; NO_TIME if none had one so far."""
        self.reached = False
        """Whether a conversion after `until` was met, so that no more is of interest."""

    def apply(self, batch: Batch) -> None:
        """Apply a batch: all of it, or what is not later than `until`."""
        batch, newest = self._cut(batch)
        if len(batch.events):
            self._convert(batch.events)
            self.newest_time = int(newest[-1])
        self._count(batch)

    def _cut(self, batch: Batch) -> tuple[Batch, NDArray[np.int64]]:
        """What of the batch is not later than `until`, and the time that each event happens at."""
        time = batch.events["time"]
        if self._until is not None and self._until.relative and (time != NO_TIME).any():
            first = int(time[time != NO_TIME][0])
            self._until = Moment(first + self._until.nanoseconds)
        newest = np.maximum.accumulate(np.maximum(time, self.newest_time))
        if self._until is None or self._until.relative:
            return batch, newest
        until = self._until.nanoseconds
        upto = int(np.searchsorted(newest, until, side="right"))
        if upto < len(newest):
            self.reached = True
            line = batch.events["line"][upto]
            batch = Batch(*(rows[rows["line"] < line] for rows in batch))
        others = (rows[rows["time"] <= until] for rows in batch[1:])
        return Batch(batch.events, *others), newest[:upto]

    def final(self) -> PageSet:
        """The pages that are shared now."""
        return self._pages.snapshot()

    def _convert(self, events: NDArray[np.void]) -> None:
        start, npages = events["start"].tolist(), events["npages"].tolist()
        to_shared = events["shared"].tolist()
        changed = np.empty(len(events), np.int64)
        alone = []
        share, unshare, convert = self._pages.share, self._pages.unshare, self._pages.convert
        for index, (first, count, shared) in enumerate(zip(start, npages, to_shared, strict=True)):
            if count == 1:
                changed[index] = share(first) if shared else unshare(first)
                continue
            ranges = convert(first, count, shared).astype(np.int64)
            changed[index] = (ranges[:, 1] - ranges[:, 0]).sum()
            alone.append(ranges)
        single = events["start"][(events["npages"] == 1) & (changed == 1)].astype(np.int64)
        self.flips.add(np.concatenate((np.stack((single, single + 1), axis=1), *alone)))
        self._tally(events, changed)
        signed = np.where(events["shared"] == 1, changed, -changed)
        shared_after = self._shared + np.cumsum(signed)
        self._shared = int(shared_after[-1])
        line = events["line"].astype(np.int64)
        self.timeline.add(events["time"], line, changed > 0, shared_after)

    def _tally(self, events: NDArray[np.void], changed: NDArray[np.int64]) -> None:
        for origin in np.unique(events["origin"]):
            for shared in (0, 1):
                mask = (events["origin"] == origin) & (events["shared"] == shared)
                if mask.any():
                    tally = self.tallies.setdefault((Origin(int(origin)), bool(shared)), Tally())
                    tally.lines += int(mask.sum())
                    tally.pages += _total(events["npages"][mask])
                    tally.changed += _total(changed[mask].astype(np.uint64))

    def _count(self, batch: Batch) -> None:
        for (origin, reason), count in _counted(batch.refused, "origin", "reason"):
            self.refused[Origin(origin), Refusal(reason)] += count
        for (slot,), count in _counted(batch.dirty, "slot"):
            self.dirty[slot] += count
        for (before, after), count in _counted(batch.blocks, "before", "after"):
            self.blocks[BlockState(before), BlockState(after)] += count
        if len(batch.permits):
            self.allowed = bool(batch.permits["allowed"][-1])


def _total(pages: NDArray[np.uint64]) -> int:
    """The sum of counts up to 2^52, which 64 bits need not hold: by halves."""
    high = int((pages >> _HALF).sum())
    low = int((pages & np.uint64((1 << 26) - 1)).sum())
    return (high << 26) + low


def _counted(rows: NDArray[np.void], *names: str) -> list[tuple[tuple[int, ...], int]]:
    """How often each combination of the columns occurs."""
    if not len(rows):
        return []
    columns = np.stack([rows[name].astype(np.int64) for name in names])
    values, counts = np.unique(columns, axis=1, return_counts=True)
    return list(zip(map(tuple, values.T.tolist()), counts.tolist(), strict=True))
