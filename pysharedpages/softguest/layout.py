"""Where in a sparse address space the pages in use lie.

A guest uses one run of low memory and, above it, extents spread evenly to the end of its
memory. Pages in use are numbered 0 to `resident_pages` - 1 by rising gfn; that number is the
page's *index*, and everything the stand-in counts by page it counts by index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout"]

# 2 MiB: the size in which a guest's kernel hands out memory, and one page table of the host.
_EXTENT_PAGES: Final = 512
# Small guests keep enough extents to be sparse at all.
_LEAST_EXTENTS: Final = 32


class Layout:
    """The map between indices and gfns; immutable, every look-up O(1)."""

    def __init__(self, memory_pages: int, resident_pages: int) -> None:
        self.memory_pages = memory_pages
        self.resident_pages = resident_pages
        self._low = resident_pages // 4
        scattered = resident_pages - self._low
        self._extent = max(1, min(_EXTENT_PAGES, scattered // _LEAST_EXTENTS))
        self._gap = (memory_pages - resident_pages) // -(-scattered // self._extent)

    def gfn(self, index: int) -> int:
        """The gfn of the page in use number `index`."""
        if index < self._low:
            return index
        return index + self._gap * ((index - self._low) // self._extent + 1)

    def gfns(self, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The gfns of many indices, `(n,)` uint64."""
        gaps = np.where(indices < self._low, 0, (indices - self._low) // self._extent + 1)
        gfns: NDArray[np.uint64] = (indices + self._gap * gaps).astype(np.uint64)
        return gfns

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The indices `[start, stop)` as `(gfn, npages)`, one a contiguous run of gfns."""
        while start < stop:
            end = min(stop, self._end_of_run(start))
            yield self.gfn(start), end - start
            start = end

    def ranges(self) -> NDArray[np.uint64]:
        """All pages in use, `(n, 2)` uint64, sorted and disjoint."""
        runs = [(gfn, gfn + npages) for gfn, npages in self.runs(0, self.resident_pages)]
        return np.array(runs, dtype=np.uint64)

    def _end_of_run(self, index: int) -> int:
        if index < self._low:
            return self._low
        return self._low + ((index - self._low) // self._extent + 1) * self._extent
