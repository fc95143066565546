"""A saved set that is read as it is asked for."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from operator import index
from typing import Final, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet
from pysharedpages.errors import ClosedError, FormatError, RangeError
from pysharedpages.io.framing import Source, locate
from pysharedpages.io.index import Index, index_of

__all__ = ["MappedSet"]

_LIMIT: Final = 1 << 52
_BITS: Final = 16


class MappedSet:
    """A set in a file, of which only the headers have been read: `load(path, mmap=True)`.

    Counts come from the headers; containers, of 2^16 gfns each, are read and checked when an answer
    needs them, and not kept. `pageset()` is all of it in memory. Safe in any thread, but for
    `close`; a context manager.

    The file is read at positions, not through a mapping of it: what others cut off under a mapping
    kills whoever reads there (SIGBUS), and here is a `FormatError`. A file that is replaced, as
    `save` does it, stays readable here as it was. The CRC is over all bytes and so left to
    `verify`: before it, bytes that were damaged into another valid container go unnoticed, as in
    any file that is only mapped.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._source = Source(path)
        try:
            self._place = locate(self._source)
            self._index: Index = index_of(self._place)
            self._before = np.concatenate(([0], np.cumsum(self._index.counts, dtype=np.uint64)))
            self._place.check_count(len(self))
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> MappedSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what needs it is then a ClosedError. Again does nothing."""
        self._source.close()

    def __repr__(self) -> str:
        return f"<MappedSet {self._source.path!r}: {len(self)} pages>"

    def __len__(self) -> int:
        return int(self._before[-1])

    def __bool__(self) -> bool:
        return len(self) > 0

    def __contains__(self, gfn: SupportsIndex) -> bool:
        page = _bounded(gfn, _LIMIT - 1, "gfn")
        at = int(np.searchsorted(self._index.keys, np.uint64(page >> _BITS)))
        if at == len(self._index.keys) or int(self._index.keys[at]) != page >> _BITS:
            return False
        return page in self._read(at, at + 1)

    def count(self, start: SupportsIndex | None = None, stop: SupportsIndex | None = None) -> int:
        """Members in [start, stop). O(log n), and reads at most two containers."""
        first, end = _window(start, stop)
        low, high = self._rows(first, end)
        total = int(self._before[high] - self._before[low])
        for at in {low, high - 1} if low < high else ():
            base = int(self._index.keys[at]) << _BITS
            if base < first or base + (1 << _BITS) > end:
                total += self._read(at, at + 1).count(first, end) - int(self._index.counts[at])
        return total

    def ranges(
        self, start: SupportsIndex | None = None, stop: SupportsIndex | None = None
    ) -> NDArray[np.uint64]:
        """The members in [start, stop) as ranges; reads the containers there alone."""
        first, end = _window(start, stop)
        return self._read(*self._rows(first, end)).ranges(first, end)

    def pageset(
        self, start: SupportsIndex | None = None, stop: SupportsIndex | None = None
    ) -> PageSet:
        """The members in [start, stop) in memory; FormatError for what turns out to be wrong."""
        first, end = _window(start, stop)
        pages = self._read(*self._rows(first, end))
        return (
            pages if first == 0 and end == _LIMIT else pages & PageSet.from_ranges([(first, end)])
        )

    def verify(self) -> None:
        """Read all of the file; FormatError unless its CRC and every container are right."""
        self._place.check(self._bytes(self._place.start, self._place.stop))
        self._read(0, len(self._index.keys))

    @property
    def nbytes(self) -> int:
        """Bytes held in memory: 41 a container."""
        return self._index.nbytes + self._before.nbytes

    def _rows(self, start: int, stop: int) -> tuple[int, int]:
        """Which containers have gfns in [start, stop)."""
        edges = np.array([start >> _BITS, -(-stop >> _BITS)], np.uint64)
        low, high = np.searchsorted(self._index.keys, edges).tolist()
        return low, max(low, high)

    def _bytes(self, start: int, stop: int) -> bytes:
        if self._source.closed:
            raise ClosedError(f"{self!r} is closed")
        return self._source.read(start, stop - start)

    def _read(self, low: int, high: int) -> PageSet:
        """The pages of containers [low, high)."""
        found = PageSet()
        for first, end in self._parts(low, high):
            start = int(self._index.starts[first])
            body = self._bytes(start, int(self._index.stops[end - 1]))
            header = self._header(first, end)
            try:
                found |= PageSet.from_roaring(header + body, bits=64)
            except FormatError as error:
                shift = start - len(header)
                raise self._source.error_in_vector(error, shift) from None
        return found

    def _parts(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """[low, high) by sets of 2^32 gfns, whose containers alone stand in a row."""
        highs = self._index.keys[low:high] >> np.uint64(_BITS)
        edges = [low, *(low + 1 + np.flatnonzero(np.diff(highs))).tolist(), high]
        return ((one, two) for one, two in pairwise(edges) if one < two)

    def _header(self, low: int, high: int) -> bytes:
        """What stands before a vector that has these containers alone, of one set."""
        index, n = self._index, high - low
        keys = np.empty((n, 2), "<u2")
        keys[:, 0] = index.keys[low:high] & np.uint64(0xFFFF)
        keys[:, 1] = index.counts[low:high] - np.uint64(1)
        flags = np.packbits(index.runs[low:high], bitorder="little").tobytes()
        if index.runs[low:high].any():
            head = struct.pack("<I", 12347 | n - 1 << 16) + flags + keys.tobytes()
        else:
            head = struct.pack("<II", 12346, n) + keys.tobytes()
        if n >= 4 or not index.runs[low:high].any():
            offsets = index.starts[low:high] - index.starts[low] + len(head) + 4 * n
            head += offsets.astype("<u4").tobytes()
        return struct.pack("<QI", 1, int(index.keys[low]) >> _BITS) + head


def _window(start: SupportsIndex | None, stop: SupportsIndex | None) -> tuple[int, int]:
    first = 0 if start is None else _bounded(start, _LIMIT, "start")
    end = _LIMIT if stop is None else _bounded(stop, _LIMIT, "stop")
    if first > end:
        raise RangeError(f"the range [{first}, {end}) is inverted")
    return first, end


def _bounded(given: SupportsIndex, most: int, what: str) -> int:
    """An int, whatever kind of integer was given: NumPy's would wrap in what is computed of it."""
    try:
        value = index(given)
    except TypeError:
        raise TypeError(f"{what} must be an integer, not {type(given).__name__}") from None
    if not 0 <= value <= most:
        raise RangeError(f"{what} is {value}, " + ("below 0" if value < 0 else f"above {most}"))
    return value
