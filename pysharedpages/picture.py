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
from typing import Final, Protocol

__all__ = ["ASCII", "BLOCKS", "Bin", "Pages", "bins", "line", "stretches"]

BLOCKS: Final = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
"""None, seven heights, all."""
ASCII: Final = " .:-=+*#@"
CUT: Final = "//"
"""What stands in a line for a gap that is left out."""

_PLACES: Final = 256
_WIDE: Final = 8
"""A gap is cut out if it is more than one part in so many of what is left."""


class Pages(Protocol):
    """What is asked of a set; PageSet and Snapshot have it."""

    def __len__(self) -> int: ...
    def count(self, start: int | None = ..., stop: int | None = ..., /) -> int: ...
    def rank(self, gfn: int, /) -> int: ...
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


def line(pages: Pages, width: int = 64, blocks: str = BLOCKS) -> str:
    """A line of `width` blocks, and a CUT for each gap that is left out.

    A blank is a bin without a member, and the last block one with nothing else.
    """
    return CUT.join("".join(_block(each, blocks) for each in row) for row in bins(pages, width))


def _block(each: Bin, blocks: str) -> str:
    if each.share in (0.0, 1.0):
        return blocks[-1 if each.share else 0]
    return blocks[1 + int(each.share * (len(blocks) - 2))]
