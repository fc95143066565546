"""Answers that are made from arrays of ranges: pure functions, safe in any thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["COUNTED", "gaps", "pages", "pages_reversed", "shown"]

COUNTED: Final = 4096
"""Ranges from which a set's text does not say how many there are: counting takes a walk."""
_SHOWN_RANGES: Final = 4


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


def shown(name: str, npages: int, batches: Iterable[NDArray[np.uint64]]) -> str:
    """A set in one line, however large: its size, and the first of its ranges.

    Looks at the first batch alone, which has all ranges of a set of fewer than COUNTED.
    """
    table = next(iter(batches), np.empty((0, 2), np.uint64))
    many = len(table) >= COUNTED
    first = [f"[{start:#x}, {stop:#x})" for start, stop in table[:_SHOWN_RANGES].tolist()]
    first += ["..."] * (len(table) > _SHOWN_RANGES)
    count = f"{COUNTED} or more" if many else f"{len(table)}"
    return f"<{name} {npages} pages in {count} ranges: {' '.join(first)}>".replace(": >", ">")
