"""Where each container of a 64-bit Roaring vector lies in a file, read from its headers alone.

A header has a key and a count for every 2^16 gfns that have a member, eight bytes; what the
containers hold is not read but for the counts of runs that tell where the next one begins.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.io.framing import Place

__all__ = ["Index", "index_of"]

_PLAIN: Final = 12346
_WITH_RUNS: Final = 12347
_FEW: Final = 4
"""So many containers of a part that has runs come with offsets."""
_MOST_VALUES: Final = 4096
_BITMAP_BYTES: Final = 8192
_MOST_PARTS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Index:
    """One row a container, by gfn."""

    keys: NDArray[np.uint64]
    """gfn / 2^16."""
    counts: NDArray[np.uint64]
    """Pages, 1 to 65,536."""
    runs: NDArray[np.bool_]
    """Whether it is one of runs."""
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    """The bytes of the file that are the container."""

    @property
    def nbytes(self) -> int:
        """Bytes that the index takes."""
        return 33 * len(self.keys)


def index_of(place: Place) -> Index:
    """The containers of the vector there. Reads the headers; FormatError if they are none."""
    reader = _Reader(place)
    (parts,) = struct.unpack("<Q", reader.take(8))
    if parts > _MOST_PARTS:
        raise reader.error(f"{parts} sets of 32 bits", place.start)
    before, found = -1, []
    for _ in range(parts):
        (high,) = struct.unpack("<I", reader.take(4))
        if not before < high < _MOST_PARTS:
            raise reader.error(f"the high half {high} after {before}", reader.at - 4)
        before = high
        found.append(reader.part(high))
    if reader.at != place.stop:
        raise reader.error("bytes beyond the end of the set", reader.at)
    columns = list(zip(*found, strict=True)) or [(np.empty(0),)] * 5
    keys, counts, runs, starts, stops = map(np.concatenate, columns)
    return Index(
        keys.astype(np.uint64),
        counts.astype(np.uint64),
        runs.astype(np.bool_),
        starts.astype(np.int64),
        stops.astype(np.int64),
    )


class _Reader:
    """A place in a file that moves on."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.at = place.start
        self.error = place.source.error

    def take(self, count: int) -> bytes:
        if count > self.place.stop - self.at:
            raise self.error("the vector ends within a header", self.place.stop)
        data = self.place.source.read(self.at, count)
        self.at += count
        return data

    def part(self, high: int) -> tuple[NDArray[np.generic], ...]:
        """The columns of the index for the 32-bit set that begins here."""
        start = self.at
        (cookie,) = struct.unpack("<I", self.take(4))
        runs = np.zeros(0, np.bool_)
        if cookie & 0xFFFF == _WITH_RUNS:
            count = (cookie >> 16) + 1
            flags = np.frombuffer(self.take((count + 7) // 8), np.uint8)
            runs = np.unpackbits(flags, bitorder="little", count=count).view(np.bool_)
        elif cookie == _PLAIN:
            (count,) = struct.unpack("<I", self.take(4))
            if count > 1 << 16:
                raise self.error(f"{count} containers of a set of 32 bits", self.at - 4)
            runs = np.zeros(count, np.bool_)
        else:
            raise self.error("no cookie of the Roaring format", start)
        keys_at = self.at
        table = np.frombuffer(self.take(4 * count), "<u2").reshape(-1, 2).astype(np.int64)
        falls = np.flatnonzero(np.diff(table[:, 0]) <= 0)
        if len(falls):
            what = "a key is not above the one before it"
            raise self.error(what, keys_at + 4 * (int(falls[0]) + 1))
        counts = table[:, 1] + 1
        if cookie == _PLAIN or count >= _FEW:
            edges = self._edges_told(start, counts, runs)
        else:
            edges = self._edges_found(counts, runs)
        self.at = int(edges[-1])
        return table[:, 0] + (high << 16), counts, runs, edges[:-1], edges[1:]

    def _edges_told(
        self, start: int, counts: NDArray[np.int64], runs: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Where containers begin, by their offsets, and where the last one ends."""
        offsets_at = self.at
        told = np.frombuffer(self.take(4 * len(counts)), "<u4").astype(np.int64) + start
        if not len(told):
            return np.array([self.at])
        end = int(told[-1])
        if self.at <= end <= self.place.stop:
            end = self._end_of(end, int(counts[-1]), bool(runs[-1]))
        edges = np.append(told, end)
        sizes = np.diff(edges)
        right = np.where(runs, (sizes >= 6) & (sizes % 4 == 2), sizes == _plain_sizes(counts))
        right &= edges[:-1] >= self.at
        right[0] &= edges[0] == self.at
        if not right.all():
            wrong = int(np.flatnonzero(~right)[0])
            what = "offsets between which its container does not fit"
            raise self.error(what, offsets_at + 4 * wrong)
        return edges

    def _edges_found(self, counts: NDArray[np.int64], runs: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The same for a few containers without offsets."""
        edges = [self.at]
        for count, of_runs in zip(counts.tolist(), runs.tolist(), strict=True):
            edges.append(self._end_of(edges[-1], count, of_runs))
        return np.array(edges)

    def _end_of(self, start: int, count: int, of_runs: bool) -> int:
        size = int(_plain_sizes(np.array([count]))[0])
        if of_runs:
            if self.place.stop - start < 2:
                raise self.error("the vector ends where a count of runs begins", self.place.stop)
            (n,) = struct.unpack("<H", self.place.source.read(start, 2))
            size = 2 + 4 * n
        if size > self.place.stop - start:
            raise self.error("the vector ends within a container", self.place.stop)
        return start + size


def _plain_sizes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of containers of so many pages that are not of runs."""
    return np.where(counts <= _MOST_VALUES, 2 * counts, _BITMAP_BYTES)
