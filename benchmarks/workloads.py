"""What guests share and what they dirty, for every benchmark: one generator, fixed seeds.

A shared set is an array of ranges and the conversions that lead to it; a dirty set is an array of
ranges that can also be had as a KVM bitmap and as dirty-ring entries. The same name gives the same
pages in every run, whichever benchmark asks first.
"""

from __future__ import annotations

import functools
import os
import zlib
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pysharedpages import EVENT_DTYPE, RING_DTYPE, DirtyLog, GuestMemory, Harvest, SharedPages

Words: TypeAlias = NDArray[np.uint64]
Ranges: TypeAlias = NDArray[np.uint64]

FULL: Final = os.environ.get("SCALE", "quick") == "full"
ENGINE: Final = "roaring"
"""What trackers are timed with, so that a row does not depend on a choice by bytes; `bench_engines`
has all engines."""
SEED: Final = 2021
MIB: Final = 1 << 8
GIB: Final = 1 << 18
TIB: Final = 1 << 28
HUGE_PAGE: Final = 512
SLOT_PAGES: Final = 4 * TIB
"""The largest memory slot made; KVM's own limit is 2^31 - 1 pages."""

SHARED: Final = (
    "private",
    "boot",
    "fragmented",
    "hostile",
    "huge",
    "allshared",
    "mmio",
    "firmware",
)
DIRTY: Final = ("empty", "0.01 %", "0.1 %", "1 %", "5 %", "workingset", "all")
EVERY_PAGE_SURVIVES: Final = ("private", "boot", "fragmented", "hostile", "huge", "firmware")
"""Those of which rivals that spell out every shared page live to tell."""
TERABYTE: Final = ("private", "boot", "fragmented", "firmware")
"""Those within 1 TiB."""
MMIO_CALLS: Final = 100_000
"""Of the 36.7 million calls of 2 MiB that cover a hole of 70 TiB."""


def some(*quick: str, full: tuple[str, ...] = SHARED) -> tuple[str, ...]:
    """The shared sets that a benchmark takes: these few in the quick profile."""
    return full if FULL else quick


def shown(npages: int) -> str:
    """A number of pages as a size in text."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB")):
        if npages >= unit:
            return f"{npages // unit} {name}"
    return f"{npages} pages"


def size_of(name: str) -> int:
    """The pages of RAM of the guest that a shared set belongs to."""
    return {"hostile": 64 * GIB, "huge": 32 * TIB, "allshared": 24 * TIB}.get(name, TIB)


@functools.cache
def shared(name: str) -> Ranges:
    """The shared ranges of a workload."""
    if name == "private":
        return np.empty((0, 2), np.uint64)
    if name in ("boot", "huge"):
        return _boot(_rng(name), size_of(name))
    if name == "fragmented":
        return fragments(250_000, size_of(name))
    if name == "hostile":
        return alternate(size_of(name))
    if name == "allshared":
        return np.array([[0, size_of(name)]], np.uint64)
    if name == "mmio":
        hole = [[TIB, TIB + MMIO_CALLS * HUGE_PAGE]]
        return coalesced(np.concatenate([shared("boot"), np.array(hole, np.uint64)]))
    return _left_by(events("firmware"))


@functools.cache
def events(name: str) -> NDArray[np.void]:
    """The conversions of a workload, in the order a guest makes them."""
    if name == "mmio":
        starts = TIB + np.arange(MMIO_CALLS, dtype=np.uint64) * np.uint64(HUGE_PAGE)
        return _events(starts, HUGE_PAGE, 1)
    if name == "firmware":
        return _firmware(_rng("firmware events"))
    table: Ranges = shared(name)
    table = table[_rng(name + " events").permutation(len(table))]
    return _events(table[:, 0], table[:, 1] - table[:, 0], 1)


@functools.cache
def fragments(count: int, npages: int) -> Ranges:
    """`count` runs of 1 to 16 pages, none touching another."""
    rng = _rng(f"fragments {count}")
    return _scattered(rng, rng.integers(1, 17, count, dtype=np.uint64), npages)


@functools.cache
def alternate(npages: int) -> Ranges:
    """Every other page."""
    return np.arange(npages, dtype=np.uint64).reshape(-1, 2)


def dirty(name: str, npages: int) -> Ranges:
    """The dirty ranges of a guest of `npages`."""
    rng = _rng(f"{name} {npages}")
    if name == "empty":
        return np.empty((0, 2), np.uint64)
    if name == "all":
        return np.array([[0, npages]], np.uint64)
    if name == "workingset":
        lengths = rng.integers(1, 513, 2 * 8 * GIB // 513, dtype=np.uint64)
        return _scattered(rng, lengths, npages)
    return ranges_of(random_pages(rng, round(npages * float(name.split()[0]) / 100), npages))


def dirty_bitmap(name: str, npages: int) -> Words:
    """The dirty pages as KVM_GET_DIRTY_LOG gives them, in words written at least once."""
    make = _kept_bitmap if npages <= TIB else _bitmap
    return make(name, npages)


def _bitmap(name: str, npages: int) -> Words:
    return bitmap_of(dirty(name, npages), npages)


_kept_bitmap: Final = functools.cache(_bitmap)


def tracker_of(ranges: Ranges) -> SharedPages:
    """A tracker in which these ranges are shared."""
    tracker = SharedPages(engine=ENGINE)
    tracker.set_list(ranges)
    return tracker


def toggle(tracker: SharedPages, gfn: int) -> None:
    """Converts a page: to shared if it was private, else to private."""
    if not tracker.share(gfn):
        tracker.unshare(gfn)


def fill(log: DirtyLog, bitmap: Words) -> None:
    """Does what KVM does: writes the bitmap of each slot into the buffer that the log lends."""
    for slot, gfn, npages in log.memory:
        lent = np.frombuffer(log.bitmap_buffer(slot), np.uint64)  # type: ignore[call-overload]
        np.copyto(lent, bitmap[gfn // 64 : (gfn + npages) // 64])


def harvest_of(bitmap: Words) -> Harvest:
    """The harvest of a guest whose pages the bitmap covers, slots of whole words."""
    log = DirtyLog(GuestMemory(slots_of(64 * len(bitmap))))
    fill(log, bitmap)
    return log.take()


def ring_of(ranges: Ranges) -> NDArray[np.void]:
    """The pages as dirty-ring entries of slot 0, in the order a guest may have written them."""
    pages = _rng("ring").permutation(pages_of(ranges))
    entries = np.zeros(len(pages), RING_DTYPE)
    entries["flags"] = 1
    entries["offset"] = pages
    return entries


def slots_of(npages: int) -> list[tuple[int, int, int]]:
    """Memory slots (slot, gfn, npages) that make up a guest."""
    firsts = range(0, npages, SLOT_PAGES)
    return [(slot, gfn, min(SLOT_PAGES, npages - gfn)) for slot, gfn in enumerate(firsts)]


def random_pages(rng: np.random.Generator, count: int, npages: int) -> NDArray[np.uint64]:
    """About `count` pages below `npages`, sorted, each once."""
    drawn: NDArray[np.uint64] = np.sort(rng.integers(0, npages, count, dtype=np.uint64))
    return drawn[np.flatnonzero(np.append(True, drawn[1:] != drawn[:-1]))]


def random_gfns(count: int, npages: int) -> list[int]:
    """`count` different pages in random order."""
    rng = _rng(f"gfns {count} {npages}")
    return [int(gfn) for gfn in rng.permutation(random_pages(rng, 2 * count, npages))[:count]]


def toggles(gfns: list[int]) -> NDArray[np.void]:
    """Each page shared and taken back, one after the other."""
    return _events(np.repeat(np.array(gfns, np.uint64), 2), 1, np.tile([1, 0], len(gfns)))


def pages_of(ranges: Ranges) -> NDArray[np.uint64]:
    """Every page of the ranges."""
    lengths = ranges[:, 1] - ranges[:, 0]
    before = np.cumsum(lengths, dtype=np.uint64) - lengths
    steps = np.arange(int(lengths.sum()), dtype=np.uint64)
    return steps + np.repeat(ranges[:, 0] - before, lengths.astype(np.int64))


def ranges_of(pages: NDArray[Any]) -> Ranges:
    """Sorted pages, each once, as coalesced ranges."""
    breaks = np.flatnonzero(pages[1:] != pages[:-1] + 1)
    table = np.empty((len(breaks) + bool(len(pages)), 2), np.uint64)
    if len(table):
        table[0, 0], table[1:, 0] = pages[0], pages[breaks + 1]
        table[-1, 1], table[:-1, 1] = pages[-1], pages[breaks]
        table[:, 1] += np.uint64(1)
    return table


def coalesced(ranges: Ranges) -> Ranges:
    """Ranges in any order, overlapping or touching, as sorted disjoint ones."""
    table = ranges[np.argsort(ranges[:, 0], kind="stable")]
    ends = np.maximum.accumulate(table[:, 1])
    first = np.ones(len(table), bool)
    first[1:] = table[1:, 0] > ends[:-1]
    last = np.append(first[1:], True)
    return np.stack([table[first, 0], ends[last]], axis=1)


def bitmap_of(ranges: Ranges, npages: int) -> Words:
    """The ranges as a little-endian bitmap of whole words."""
    size = (npages + 63) // 64
    if len(ranges) == 1 and ranges[0].tolist() == [0, npages] and npages % 64 == 0:
        return np.full(size, ~np.uint64(0))
    pages = pages_of(ranges)
    words = np.full(size, np.uint64(0))
    if len(pages):
        at = pages >> np.uint64(6)
        bits = np.uint64(1) << (pages & np.uint64(63))
        first = np.flatnonzero(np.append(True, at[1:] != at[:-1]))
        words[at[first]] = np.bitwise_or.reduceat(bits, first)
    return words


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def _scattered(rng: np.random.Generator, lengths: NDArray[np.uint64], npages: int) -> Ranges:
    """Runs of these lengths at random places, a gap of at least a page between any two."""
    spare = npages - int(lengths.sum()) - len(lengths)
    gaps = np.sort(rng.integers(0, spare, len(lengths), dtype=np.uint64))
    before = np.cumsum(lengths + np.uint64(1)) - lengths - np.uint64(1)
    return np.stack([gaps + before, gaps + before + lengths], axis=1)


def _boot(rng: np.random.Generator, npages: int) -> Ranges:
    """A guest's boot: the bounce buffers low in memory, then buffers of drivers anywhere."""
    swiotlb = np.array([[GIB, 2 * GIB]], np.uint64)
    singles = random_pages(rng, 4096, npages - 4 * GIB) + np.uint64(4 * GIB)
    huge = random_pages(rng, 64, (npages - 4 * GIB) // HUGE_PAGE) * np.uint64(HUGE_PAGE)
    huge += np.uint64(4 * GIB)
    runs = [np.stack([at, at + np.uint64(n)], axis=1) for at, n in ((singles, 1), (huge, 512))]
    return coalesced(np.concatenate([swiotlb, *runs]))


def _firmware(rng: np.random.Generator) -> NDArray[np.void]:
    """18,000 conversions: 48 buffers, each shared for a transfer and taken back after it."""
    buffers = 48
    starts = np.uint64(GIB // 2) + np.arange(buffers, dtype=np.uint64) * np.uint64(128)
    lengths = rng.integers(1, 65, buffers, dtype=np.uint64)
    turns = rng.integers(0, buffers, 18_000)
    status = np.empty(len(turns), np.uint8)
    for buffer in range(buffers):
        mine = np.flatnonzero(turns == buffer)
        status[mine] = np.arange(len(mine)) % 2 == 0
    return _events(starts[turns], lengths[turns], status)


def _events(starts: Any, npages: Any, status: Any) -> NDArray[np.void]:
    table = np.zeros(len(starts), EVENT_DTYPE)
    table["start"], table["npages"], table["shared"] = starts, npages, status
    return table


def _left_by(table: NDArray[np.void]) -> Ranges:
    """What is shared after conversions of whole, disjoint buffers."""
    last = {int(start): (int(n), int(on)) for start, n, on in table.tolist()}
    left = [(start, start + n) for start, (n, on) in last.items() if on]
    return coalesced(np.array(left, np.uint64).reshape(-1, 2))
