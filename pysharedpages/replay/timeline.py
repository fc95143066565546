"""How conversions and the number of shared pages went over time, in a fixed number of columns."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi.traces import NO_TIME

__all__ = ["Strip", "Timeline"]

_MOST_POINTS: Final = 1 << 20
_JITTER: Final = 10**9
"""Threads write a log a little out of order; a step back by more is another clock."""


class Strip(NamedTuple):
    """A timeline in columns of equal width between `first` and `last`.

    `axis` is "time" (nanoseconds) or "line"; `conversions` is how many changed a page within
    each column, `shared` how many pages are shared at its end.
    """

    axis: str
    first: int
    last: int
    conversions: list[int]
    shared: list[int]


class Timeline:
    """A point for each conversion, or for several in a row once there are too many."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = []
        self._count = 0
        self._timed = True
        self._newest = NO_TIME

    def add(
        self,
        time: NDArray[np.int64],
        line: NDArray[np.int64],
        changed: NDArray[np.bool_],
        shared: NDArray[np.int64],
    ) -> None:
        """Append conversions in the order of the trace: whether each changed a page, and how many
        were shared then."""
        if not len(line):
            return
        newest = np.maximum.accumulate(np.maximum(time, self._newest))
        in_order = (newest - time <= _JITTER).all() and time.min() != NO_TIME
        self._timed &= bool(in_order)
        self._newest = int(newest[-1])
        self._parts.append(np.stack((newest, line, changed, shared)))
        self._count += len(line)
        if self._count > _MOST_POINTS:
            self._halve()

    def strip(self, columns: int) -> Strip | None:
        """The whole of it in so many columns; None if nothing was converted."""
        if not self._parts:
            return None
        points = np.concatenate(self._parts, axis=1)
        axis = "time" if self._timed else "line"
        where, conversions, shared = points[0 if self._timed else 1], points[2], points[3]
        first, last = int(where[0]), int(where[-1])
        width = max(1, -(-(last - first + 1) // columns))
        stops = np.searchsorted(where, first + width * np.arange(1, columns + 1))
        sums = np.concatenate(([0], np.cumsum(conversions)))
        within = np.diff(sums[stops], prepend=0)
        return Strip(axis, first, last, within.tolist(), shared[stops - 1].tolist())

    def _halve(self) -> None:
        points = np.concatenate(self._parts, axis=1)
        kept = points[:, 1::2].copy()
        kept[2] += points[2, 0::2][: kept.shape[1]]
        odd = points[:, -1:] if points.shape[1] % 2 else points[:, :0]
        self._parts = [kept, odd]
        self._count = kept.shape[1] + odd.shape[1]
