"""A set's address space as a row of bins: what pictures of it are drawn from.

The members of a large guest lie in few places far apart: RAM from 0, device memory tens of TiB
above. A row in which each bin is as wide as any other would show two dots. So the widest gaps are
cut out first, and only the stretches between them are cut into bins.

Pure functions of an immutable set, safe in any thread; O(most) looks at each of some hundred
places, whatever the set's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ASCII",
    "BLOCKS",
    "LEVELS",
    "Bin",
    "Pages",
    "bins",
    "edges",
    "levels",
    "line",
    "shares",
    "size_of",
    "stretches",
]

BLOCKS: Final = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
"""None, seven heights, all."""
ASCII: Final = " .:-=+*#@"
CUT: Final = "//"
"""What stands in a line for a gap that is left out."""

LEVELS: Final = ("0.01 %", "0.1 %", "1 %", "10 %", "< 100 %", "100 %")
"""What is at most the members' part of a bin of level 1 to 6: powers of ten, since a guest shares
little of a large memory, and a picture that is as dark as a bin is full would be blank."""
_STEPS: Final = (1e-4, 1e-3, 1e-2, 1e-1, float(np.nextafter(1, 0)))
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_PLACES: Final = 256
_WIDE: Final = 8
"""A gap is cut out if it is more than one part in so many of what is left."""


class Pages(Protocol):
    """What is asked of a set; PageSet and Snapshot have it."""

    def __len__(self) -> int: ...
    def count(self, start: int | None = ..., stop: int | None = ..., /) -> int: ...
    def rank(self, gfn: Any, /) -> Any: ...
    def select(self, index: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Bin:
    """The gfns [start, stop), of which so many are members."""

    start: int
    stop: int
    members: int

    @property
    def share(self) -> float:
        """The members' part of it, 0.0 to 1.0."""
        return self.members / (self.stop - self.start)


def stretches(pages: Pages, most: int = 8) -> list[tuple[int, int]]:
    """At most `most` ranges, by gfn, that hold all members; each begins and ends with one.

    Between them are the widest gaps.
    """
    if not len(pages):
        return []
    found = [(pages.select(0), pages.select(len(pages) - 1) + 1)]
    gaps = [_widest_gap(pages, *found[0])]
    while len(found) < most:
        at = max(range(len(found)), key=lambda i: gaps[i][1] - gaps[i][0])
        (start, stop), (low, high) = found[at], gaps[at]
        if (high - low) * _WIDE <= sum(end - begin for begin, end in found):
            break
        found[at : at + 1] = [(start, low), (high, stop)]
        gaps[at : at + 1] = [_widest_gap(pages, start, low), _widest_gap(pages, high, stop)]
    return found


def _widest_gap(pages: Pages, start: int, stop: int) -> tuple[int, int]:
    """A gap between two members as wide as any, but for those that hide between two places."""
    step = -(-(stop - start) // _PLACES)
    best = (start, start)
    low = start
    for place in range(start, stop, step):
        if pages.count(place, min(place + step, stop)):
            low = place + step
        elif place + step - low > best[1] - best[0]:
            best = (low, place + step)
    if best[0] == best[1]:
        return best
    before = pages.rank(best[0])
    return pages.select(before - 1) + 1, pages.select(before)


def bins(pages: Pages, count: int = 64, most: int = 8) -> list[list[Bin]]:
    """`count` bins, fewer where there are not so many gfns, in a list for each stretch.

    A stretch gets at least one, and else by its length. An empty set has none.
    """
    found = stretches(pages, max(1, min(most, count)))
    total = sum(stop - start for start, stop in found)
    rows = []
    left = count
    for i, (start, stop) in enumerate(found):
        spare = len(found) - 1 - i
        number = max(1, min(left - spare, round(count * (stop - start) / total), stop - start))
        if not spare:
            number = min(left, stop - start)
        left -= number
        edges = [start + (stop - start) * j // number for j in range(number + 1)]
        rows.append([Bin(low, high, pages.count(low, high)) for low, high in pairwise(edges)])
    return rows


def edges(start: int, stop: int, count: int) -> NDArray[np.uint64]:
    """The borders of `count` bins (below 4,096) of [start, stop), or one a gfn."""
    count = min(count, stop - start)
    steps = np.arange(count + 1, dtype=np.uint64) * np.uint64(stop - start)
    return np.uint64(start) + steps // np.uint64(count)


def shares(pages: Pages, borders: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The members' part, 0.0 to 1.0, of each bin between two borders, which ascend."""
    return np.asarray(np.diff(pages.rank(borders)) / np.diff(borders), np.float64)


def levels(parts: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each part of a bin how dark it is shown: 0 for none, else 1 to len(LEVELS)."""
    return np.where(parts > 0, np.searchsorted(_STEPS, parts) + 1, 0)


def size_of(npages: int) -> str:
    """Pages of 4 KiB as a size of at most four digits."""
    size, unit = npages * 4.0, 0
    while round(size) >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.4g} {_UNITS[unit]}"


def line(pages: Pages, width: int = 64, blocks: str = BLOCKS) -> str:
    """A line of `width` blocks, and a CUT for each gap that is left out.

    A blank is a bin without a member, and the last block one with nothing else.
    """
    return CUT.join("".join(_block(each, blocks) for each in row) for row in bins(pages, width))


def _block(each: Bin, blocks: str) -> str:
    if each.share in (0.0, 1.0):
        return blocks[-1 if each.share else 0]
    return blocks[1 + int(each.share * (len(blocks) - 2))]
