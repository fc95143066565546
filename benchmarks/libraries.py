"""The same jobs done with public Python libraries, as well as each can do them.

A merge takes the dirty pages as a KVM bitmap of words, or as ranges where that suits the library
better, and what is shared in the library's own form, made beforehand.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import portion
from bitarray import bitarray
from intervaltree import Interval, IntervalTree
from ncls import NCLS
from numpy.typing import NDArray
from pyroaring import BitMap, BitMap64
from workloads import Ranges, Words, pages_of, ranges_of

Roaring: TypeAlias = Any
"""A pyroaring BitMap or BitMap64: two classes that do not mix and share no base."""
CHUNK_WORDS: Final = 1 << 16
"""Words at a time, so that intermediate arrays stay in the cache."""
LONG: Final = 64
"""Pages from which adding a range beats spelling out its pages."""


def word_halves(dirty: Words, shared: Words) -> tuple[Words, Words]:
    """NumPy: the two halves as bitmaps."""
    return dirty & shared, dirty & ~shared


def runs_by_bits(words: Words) -> Ranges:
    """NumPy: ranges of a bitmap by a byte a page, as most write it."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    edges = np.diff(bits.view(np.int8), prepend=np.int8(0), append=np.int8(0))
    return np.flatnonzero(edges).astype(np.uint64).reshape(-1, 2)


def runs_by_words(words: Words) -> Ranges:
    """NumPy: ranges of a bitmap by toggles of whole words, unpacking only words that have one."""
    parts = []
    carry = np.uint64(0)
    for first in range(0, len(words), CHUNK_WORDS):
        chunk = words[first : first + CHUNK_WORDS]
        toggles = chunk << np.uint64(1)
        toggles[1:] |= chunk[:-1] >> np.uint64(63)
        toggles[0] |= carry
        toggles ^= chunk
        carry = chunk[-1] >> np.uint64(63)
        at = np.flatnonzero(toggles)
        bits = np.unpackbits(toggles[at].view(np.uint8), bitorder="little")
        bit = np.flatnonzero(bits.view(np.bool_))
        parts.append((at[bit >> 6] + first) * 64 + (bit & 63))
    if carry:
        parts.append(np.array([64 * len(words)]))
    return np.concatenate(parts).astype(np.uint64).reshape(-1, 2)


def pages_by_words(words: Words) -> NDArray[np.uint64]:
    """NumPy: members of a bitmap, unpacking only words that have some."""
    at = np.flatnonzero(words)
    bits = np.unpackbits(words[at].view(np.uint8), bitorder="little")
    bit = np.flatnonzero(bits.view(np.bool_))
    pages: NDArray[np.int64] = at[bit >> 6] * 64 + (bit & 63)
    return pages.astype(np.uint64)


def roaring_class(npages: int) -> type[Roaring]:
    """pyroaring: the 32-bit class where it is enough, for it is the faster one."""
    return BitMap if npages <= 1 << 32 else BitMap64


def roaring_of(ranges: Ranges, cls: type[Roaring] = BitMap) -> Roaring:
    """pyroaring: a run-optimised bitmap of ranges."""
    long = ranges[:, 1] - ranges[:, 0] >= LONG
    bitmap = roaring_of_pages(pages_of(ranges[~long]), cls)
    for start, stop in ranges[long].tolist():
        bitmap.add_range(start, stop)
    bitmap.run_optimize()
    return bitmap


def roaring_by_bits(words: Words) -> Roaring:
    """pyroaring: a bitmap from KVM's by a byte a page, as most write it."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return roaring_of_pages(np.flatnonzero(bits))


def roaring_by_words(words: Words) -> Roaring:
    """pyroaring: a bitmap from KVM's, unpacking only words that have members."""
    return roaring_of_pages(pages_by_words(words))


def roaring_halves(dirty: Roaring, shared: Roaring) -> tuple[Roaring, Roaring]:
    """pyroaring: the two halves; they cannot be had as ranges."""
    return dirty & shared, dirty - shared


def roaring_ranges(bitmap: Roaring) -> Ranges:
    """The ranges of a pyroaring bitmap, for comparing answers."""
    return ranges_of(np.asarray(bitmap.to_array(), dtype=np.uint64))


def roaring_of_pages(pages: NDArray[Any], cls: type[Roaring] = BitMap) -> Roaring:
    """pyroaring: a bitmap of pages in any order, by the way that makes no Python integers."""
    return cls(pages.astype(np.uint32 if cls is BitMap else np.uint64).data)


def bitarray_of(words: Words) -> bitarray:
    """bitarray: a copy of KVM's bitmap."""
    bits = bitarray(endian="little")
    bits.frombytes(words.tobytes())
    return bits


def bitarray_halves(dirty: bitarray, shared: bitarray) -> tuple[bitarray, bitarray]:
    """bitarray: the two halves as bitmaps."""
    return dirty & shared, dirty & ~shared


def bitarray_words(bits: bitarray) -> Words:
    """The words of a bitarray, for comparing answers."""
    buffer: Any = memoryview(bits)
    return np.frombuffer(buffer, np.uint64)


def interval_tree(ranges: Ranges) -> IntervalTree:
    """intervaltree: a tree of ranges."""
    return IntervalTree(Interval(start, stop) for start, stop in ranges.tolist())


def interval_tree_halves(dirty: Ranges, shared: IntervalTree) -> tuple[Ranges, Ranges]:
    """intervaltree: a look-up for each dirty range, cut where it finds something."""
    inside: list[tuple[int, int]] = []
    outside: list[tuple[int, int]] = []
    for start, stop in dirty.tolist():
        at = start
        for found in sorted(shared.overlap(start, stop)):
            begin, end = max(found.begin, start), min(found.end, stop)
            if begin > at:
                outside.append((at, begin))
            inside.append((begin, end))
            at = end
        if at < stop:
            outside.append((at, stop))
    return _table(inside), _table(outside)


def portion_of(ranges: Ranges) -> portion.Interval:
    """portion: an interval of many parts."""
    return portion.Interval(*(portion.closedopen(*pair) for pair in ranges.tolist()))


def portion_halves(
    dirty: portion.Interval, shared: portion.Interval
) -> tuple[portion.Interval, portion.Interval]:
    """portion: the two halves."""
    return dirty & shared, dirty - shared


def portion_ranges(interval: portion.Interval) -> Ranges:
    """The ranges of a portion interval, for comparing answers."""
    return _table([(part.lower, part.upper) for part in interval if not part.empty])


def containment_list(ranges: Ranges) -> NCLS:
    """ncls: a nested containment list of ranges."""
    table = np.ascontiguousarray(ranges.T.astype(np.int64))
    return NCLS(table[0], table[1], np.arange(len(ranges), dtype=np.int64))


def containment_halves(dirty: Ranges, shared: Ranges, index: NCLS) -> tuple[Ranges, Ranges]:
    """ncls: all overlaps in one call, cut and complemented by NumPy."""
    table = dirty.astype(np.int64)
    starts, stops = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
    which, found = index.all_overlaps_both(starts, stops, np.arange(len(dirty), dtype=np.int64))
    begin = np.maximum(dirty[which, 0], shared[found, 0])
    end = np.minimum(dirty[which, 1], shared[found, 1])
    inside = np.stack([begin, end], axis=1)
    inside = inside[np.argsort(begin)]
    edges = np.sort(np.concatenate([dirty.reshape(-1), inside.reshape(-1)])).reshape(-1, 2)
    return inside, edges[edges[:, 0] < edges[:, 1]]


def _table(pairs: list[tuple[int, int]]) -> Ranges:
    return np.array(pairs, np.uint64).reshape(-1, 2)
