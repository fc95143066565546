"""How often each page was converted, from the ranges that conversions changed."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Flipped", "Flips"]

_PENDING: Final = 1 << 17


class Flipped(NamedTuple):
    """Pages [start, stop), each converted `flips` times."""

    start: int
    stop: int
    flips: int


class Flips:
    """A count for every page, kept as the ranges of equal counts.

    Ranges come in any order and are swept together once there are as many new ones as there are
    old: adding n of them takes O(n log n) in all, and memory for at most 2n ranges.
    """

    def __init__(self) -> None:
        self._edges = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)
        self._pending: list[NDArray[np.int64]] = []
        self._npending = 0

    def add(self, ranges: NDArray[np.int64]) -> None:
        """Count the pages of each range of an (n, 2) array once; ranges may overlap."""
        self._pending.append(ranges)
        self._npending += len(ranges)
        if self._npending > max(_PENDING, len(self._edges)):
            self._sweep()

    def top(self, most: int) -> list[Flipped]:
        """The ranges of equal counts with the highest, at most `most`; ties by position."""
        self._sweep()
        order = np.argsort(-self._counts[:-1], kind="stable")[:most]
        order = order[self._counts[order] > 0]
        rows = zip(self._edges[order], self._edges[order + 1], self._counts[order], strict=True)
        return [Flipped(int(start), int(stop), int(flips)) for start, stop, flips in rows]

    def _sweep(self) -> None:
        """Join what is pending: sorted edges, and between them running sums of steps."""
        if not self._npending:
            return
        new = np.concatenate(self._pending)
        steps = np.diff(self._counts, prepend=0)
        edges = np.concatenate((self._edges, new[:, 0], new[:, 1]))
        ones = np.ones(len(new), np.int64)
        steps = np.concatenate((steps, ones, -ones))
        edges, where = np.unique(edges, return_inverse=True)
        total = np.zeros(len(edges), np.int64)
        np.add.at(total, where, steps)
        self._edges, self._counts = edges[total != 0], np.cumsum(total)[total != 0]
        self._pending, self._npending = [], 0
