"""Answers that are made from arrays of ranges: pure functions, safe in any thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaps", "pages", "pages_reversed", "shown"]

_SHOWN_RANGES = 4


def gaps(ranges: NDArray[np.uint64], start: int, stop: int) -> NDArray[np.uint64]:
    """The complement within [start, stop) of `ranges`, which lie in it."""
    ends = np.empty(ranges.size + 2, np.uint64)
    ends[0], ends[-1] = start, stop
    ends[1:-1] = ranges.reshape(-1)
    table = ends.reshape(-1, 2)
    return table[table[:, 0] < table[:, 1]]


def pages(batches: Iterable[NDArray[np.uint64]]) -> Iterator[int]:
    """Every page of batches of ranges, one by one."""
    for batch in batches:
        for start, stop in batch.tolist():
            yield from range(start, stop)


def pages_reversed(ranges: NDArray[np.uint64]) -> Iterator[int]:
    """Every page of an array of ranges, the last first."""
    for start, stop in reversed(ranges.tolist()):
        yield from reversed(range(start, stop))


def shown(name: str, npages: int, nranges: int, batches: Iterable[NDArray[np.uint64]]) -> str:
    """A set in one line, however large: its first ranges and its sizes."""
    first: list[str] = []
    for batch in batches:
        first += [f"[{start:#x}, {stop:#x})" for start, stop in batch[:_SHOWN_RANGES].tolist()]
        break
    first = first[:_SHOWN_RANGES] + ["..."] * (nranges > _SHOWN_RANGES)
    return f"<{name} {npages} pages in {nranges} ranges: {' '.join(first)}>".replace(": >", ">")
