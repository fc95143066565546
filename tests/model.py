"""The oracle: sorted lists of half-open ranges, and Python sets where a set is small.

Slow and obvious; nothing in here calls the library. A range is a pair of ints; a list of ranges is
sorted, disjoint and coalesced. The arrays that the library takes and returns are made and checked
here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

GFN_LIMIT = 2**52
"""Gfns are below this; it is also the greatest stop of a range."""

SEAMS = (2**12, 2**16, 2**22, 2**31, 2**32, 2**40, GFN_LIMIT)
"""Where a block, a leaf, an inner node, or a machine word of some width ends."""

Range = tuple[int, int]
Ranges = list[Range]

EVENT = np.dtype([("start", "<u8"), ("npages", "<u8"), ("shared", "u1")], align=True)
DIRTY_GFN = np.dtype([("flags", "<u4"), ("slot", "<u4"), ("offset", "<u8")])


def ranges(*pairs: Range) -> NDArray[np.uint64]:
    """Pairs as the array that the library takes."""
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


def gfns(*values: int) -> NDArray[np.uint64]:
    """Gfns as the array that the library takes."""
    return np.array(values, dtype=np.uint64)


def events(*triples: tuple[int, int, bool]) -> NDArray[np.void]:
    """(start, npages, shared) triples as an event array."""
    return np.array(list(triples), dtype=EVENT)


def ring(*entries: tuple[int, int]) -> NDArray[np.void]:
    """(slot, offset) pairs as dirty-ring entries with the dirty flag set."""
    return np.array([(1, slot, offset) for slot, offset in entries], dtype=DIRTY_GFN)


def bitmap(npages: int, pages: Iterable[int]) -> NDArray[np.uint8]:
    """A little-endian bitmap of npages bits, rounded up to whole 64-bit words, with `pages` set."""
    data = np.zeros((npages + 63) // 64 * 8, dtype=np.uint8)
    for page in pages:
        data[page // 8] |= 1 << (page % 8)
    return data


def canonical(array: NDArray[Any]) -> Ranges:
    """The pairs of an array of ranges that came from the library, after checking its form."""
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.uint64
    assert array.ndim == 2 and array.shape[1] == 2
    assert array.flags.c_contiguous
    pairs = [(int(start), int(stop)) for start, stop in array.tolist()]
    assert all(start < stop for start, stop in pairs), "an empty or inverted range came out"
    assert all(a[1] < b[0] for a, b in pairwise(pairs)), "not sorted, disjoint and coalesced"
    return pairs


def integers(message: str) -> set[int]:
    """Every integer that an error message states: decimal, hexadecimal or a power."""
    powers = {int(a) ** int(b) for a, b in re.findall(r"(\d+)(?:\^|\*\*)(\d+)", message)}
    plain = re.findall(r"-?0x[0-9a-fA-F]+|-?(?<![\w.])\d+", message)
    return powers | {int(text, 0) for text in plain}


def names(error: BaseException, values: Iterable[int], bounds: Iterable[int] = ()) -> None:
    """Assert that an error's message states one of the values and, if there are any, a bound."""
    stated = integers(str(error))
    assert stated & set(values), f"{error} does not state {values}"
    assert not bounds or stated & set(bounds), f"{error} does not state {bounds}"


def coalesce(pairs: Iterable[Range]) -> Ranges:
    """Any ranges, in any order, overlapping or empty, as a canonical list."""
    out: Ranges = []
    for start, stop in sorted(pair for pair in pairs if pair[0] < pair[1]):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], stop))
        else:
            out.append((start, stop))
    return out


def combine(left: Ranges, right: Ranges, keep: Callable[[bool, bool], bool]) -> Ranges:
    """Every piece between two neighbouring boundaries for which keep(in left, in right)."""
    cuts = sorted({edge for pair in left + right for edge in pair})
    pieces = []
    for start, stop in pairwise(cuts):
        if keep(_covers(left, start), _covers(right, start)):
            pieces.append((start, stop))
    return coalesce(pieces)


def _covers(pairs: Ranges, gfn: int) -> bool:
    return any(start <= gfn < stop for start, stop in pairs)


def union(left: Ranges, right: Ranges) -> Ranges:
    """Pages in either."""
    return coalesce(left + right)


def intersection(left: Ranges, right: Ranges) -> Ranges:
    """Pages in both."""
    return combine(left, right, lambda a, b: a and b)


def difference(left: Ranges, right: Ranges) -> Ranges:
    """Pages of the left that the right has not."""
    return combine(left, right, lambda a, b: a and not b)


def symmetric_difference(left: Ranges, right: Ranges) -> Ranges:
    """Pages of just one."""
    return combine(left, right, lambda a, b: a != b)


def size(pairs: Ranges) -> int:
    """How many pages the ranges hold."""
    return sum(stop - start for start, stop in pairs)


def to_set(pairs: Iterable[Range]) -> set[int]:
    """Small ranges as a Python set."""
    return {gfn for start, stop in pairs for gfn in range(start, stop)}


def from_set(pages: Iterable[int]) -> Ranges:
    """A Python set as ranges."""
    return coalesce((gfn, gfn + 1) for gfn in pages)


@dataclass
class Tracker:
    """What a SharedPages must be: the shared ranges, the epoch, and every conversion by epoch."""

    npages: int = GFN_LIMIT
    shared: Ranges = field(default_factory=list)
    epoch: int = 0
    log: list[tuple[int, Ranges]] = field(default_factory=list)

    def convert(self, start: int, npages: int, shared: bool) -> Ranges:
        """Convert one range; the ranges that changed."""
        return self._commit([self._change(start, npages, shared)])

    def apply(self, batch: Iterable[tuple[int, int, bool]]) -> int:
        """Convert in order, as one epoch; how often a page changed."""
        changes = [self._change(*event) for event in batch]
        self._commit(changes)
        return sum(size(change) for change in changes)

    def replace(self, new: Ranges) -> Ranges:
        """Make the shared ranges `new`; the ranges that changed."""
        change = symmetric_difference(self.shared, new)
        self.shared = new
        return self._commit([change])

    def converted(self, after: int, upto: int) -> Ranges:
        """Every page converted in the epochs (after, upto]."""
        return coalesce(
            pair for epoch, change in self.log if after < epoch <= upto for pair in change
        )

    def _change(self, start: int, npages: int, shared: bool) -> Ranges:
        asked = coalesce([(start, start + npages)])
        if shared:
            change = difference(asked, self.shared)
            self.shared = union(self.shared, asked)
        else:
            change = intersection(asked, self.shared)
            self.shared = difference(self.shared, asked)
        return change

    def _commit(self, changes: list[Ranges]) -> Ranges:
        change = coalesce(pair for ranges_ in changes for pair in ranges_)
        if change:
            self.epoch += 1
            self.log.append((self.epoch, change))
        return change


@dataclass
class Memory:
    """What a GuestMemory must be: slots by their full key."""

    slots: dict[int, Range]

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """(slot, gfn, npages) triples, as the library's constructor takes them."""
        for slot, (gfn, npages) in self.slots.items():
            yield slot, gfn, npages

    def pages(self) -> set[int]:
        """Every gfn that is RAM in some address space."""
        return {gfn + offset for gfn, npages in self.slots.values() for offset in range(npages)}

    def gfns(self, slot: int, offsets: Iterable[int]) -> set[int]:
        """The gfns at slot-relative offsets, those past the slot's end left out."""
        gfn, npages = self.slots[slot]
        return {gfn + offset for offset in offsets if offset < npages}
