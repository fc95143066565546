"""What the benchmarks measure this project against, each a data structure of its own in C.

`KvmList` and `QemuList` (one linked list, two ways to read it), `EncBitmap`, `AttrArray` and
`RmpTable` say which pages of a guest are shared; benchmarks/c/rivals.h says whose design each one
is and how it was corrected. `read_pass`, `copy` and `heap_bytes` are the limits of the machine.
`Pins` is no rival but the core itself, called from C.

Gfns start at 0 and stay below 2^52. Ranges are half-open, (n, 2) uint64, sorted, disjoint and
coalesced, in and out; output arrays own memory that the library filled, without a copy. A dirty
bitmap is a C-contiguous array of uint8 or uint64, little-endian in whole 64-bit words, bit i for
gfn i; bits past the guest's end are zero. Every call releases the GIL; objects are not
thread-safe. `MemoryError` where the library ran out of memory: the object is then to be dropped.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final, NamedTuple

import numpy as np
from librivals import (
    GFN_LIMIT,
    Bitmap,
    LookupsOut,
    Memory,
    Ranges,
    RangesOut,
    SplitOut,
    call,
    events_of,
    freed_with,
    library_path,
    pairs_of,
    taken,
    words_of,
)
from numpy.typing import NDArray

__all__ = [
    "AttrArray",
    "EncBitmap",
    "KvmList",
    "Pins",
    "QemuList",
    "RmpTable",
    "Sample",
    "Split",
    "copy",
    "heap_bytes",
    "library_path",
    "read_pass",
]

RMP_MAX_PAGES: Final = 1 << 32
RMP_MAX_ASID: Final = 1023


class Split(NamedTuple):
    """Dirty pages by status, each as (n, 2) uint64 ranges."""

    shared: Ranges
    private: Ranges


class Sample(NamedTuple):
    """The look-ups of evenly spread dirty pages, and the mean time of one."""

    shared: Ranges
    private: Ranges
    lookups: int
    ns_per_lookup: float


def _merge(name: str, *arguments: Any) -> Split:
    split = SplitOut()
    try:
        call(name, *arguments, ctypes.addressof(split))
    finally:
        shared, private = taken(split.shared), taken(split.private)
    return Split(shared, private)


class _Rival:
    """A handle of the library's, freed with this object, and what every rival can do with it."""

    _kind: str
    _limit = GFN_LIMIT

    def __init__(self, *arguments: Any) -> None:
        self._handle: int = call(f"{self._kind}_new", *arguments)
        freed_with(self, f"{self._kind}_free", self._handle)

    @property
    def nbytes(self) -> int:
        """Bytes of the structure, as malloc or mmap handed them out."""
        return int(call(f"{self._kind}_bytes", self._handle))


class _Tracker(_Rival):
    """A rival that conversions change, one at a time."""

    def share(self, start: int, npages: int = 1) -> None:
        """Make pages [start, start + npages) shared."""
        self._convert(start, npages, True)

    def unshare(self, start: int, npages: int = 1) -> None:
        """Make pages [start, start + npages) private."""
        self._convert(start, npages, False)

    def apply(self, events: NDArray[np.void]) -> None:
        """Convert by an array of `pysharedpages.EVENT_DTYPE`, in order, in one call."""
        array = events_of(events, self._limit)
        call(f"{self._kind}_apply", self._handle, array.ctypes.data, array.size)

    def _convert(self, start: int, npages: int, shared: bool) -> None:
        if start < 0 or npages < 0 or start + npages > self._limit:
            raise ValueError(f"pages [{start}, {start + npages}) are not below {self._limit}")
        call(f"{self._kind}_convert", self._handle, start, start + npages, shared)


class _List(_Tracker):
    """A sorted linked list of shared ranges; a change walks it from its head."""

    _kind = "list"

    def __init__(self) -> None:
        super().__init__()

    def load(self, ranges: Ranges) -> None:
        """Replace the list; nodes lie in memory in order, which is the kind case."""
        array = pairs_of(ranges)
        call("list_load", self._handle, array.ctypes.data, len(array))

    def ranges(self) -> Ranges:
        """The list as an array. O(nodes)."""
        out = RangesOut()
        call("list_export", self._handle, ctypes.addressof(out))
        return taken(out)


class KvmList(_List):
    """KVM's shared-pages list (v10), used as well as it can be: exported once, then swept."""

    def merge(self, dirty: Bitmap) -> Split:
        """Split dirty pages. O(nodes + words + ranges out)."""
        return _merge("kvm_merge", self._handle, *words_of(dirty))


class QemuList(_List):
    """QEMU's userspace list (v4): a walk of the list for every dirty page."""

    def merge(self, dirty: Bitmap) -> Split:
        """Split dirty pages. O(nodes * dirty pages)."""
        sample = self.sample(dirty, GFN_LIMIT)
        return Split(sample.shared, sample.private)

    def sample(self, dirty: Bitmap, limit: int) -> Sample:
        """Look up at most `limit` dirty pages, evenly spread. O(words + nodes * limit)."""
        if limit < 1:
            raise ValueError(f"a limit of {limit} look-ups: the least is 1")
        split, lookups = SplitOut(), LookupsOut()
        try:
            call(
                "qemu_merge",
                self._handle,
                *words_of(dirty),
                limit,
                ctypes.addressof(split),
                ctypes.addressof(lookups),
            )
        finally:
            shared, private = taken(split.shared), taken(split.private)
        return Sample(shared, private, lookups.pages, lookups.ns / max(lookups.pages, 1))


class EncBitmap(_Tracker):
    """KVM's encryption bitmap (v8): a bit a page, 1 is private, for a guest of `npages`."""

    _kind = "enc"

    def __init__(self, npages: int) -> None:
        """All pages private."""
        if not 0 < npages <= GFN_LIMIT:
            raise ValueError(f"{npages} pages: 1 to {GFN_LIMIT}")
        super().__init__(npages)
        self._limit = npages

    def load(self, ranges: Ranges) -> None:
        """Replace what is shared."""
        array = pairs_of(ranges, self._limit)
        call("enc_load", self._handle, array.ctypes.data, len(array))

    def merge(self, dirty: Bitmap) -> Split:
        """Split dirty pages. O(words + ranges out)."""
        address, nwords = words_of(dirty)
        if nwords > (self._limit + 63) // 64:
            raise ValueError(f"{nwords} dirty words for a guest of {self._limit} pages")
        return _merge("enc_merge", self._handle, address, nwords)


class AttrArray(_Tracker):
    """KVM's memory attributes: an entry a private page in an xarray; without one it is shared."""

    _kind = "attr"

    def __init__(self, *, batched: bool = False) -> None:
        """All pages shared. `batched` descends once for 64 pages, where KVM does twice a page."""
        super().__init__(batched)

    @classmethod
    def load(cls, npages: int, ranges: Ranges, *, batched: bool = False) -> AttrArray:
        """A guest of `npages` with these ranges shared, filled the fast way."""
        array = pairs_of(ranges, npages)
        attributes = cls(batched=batched)
        call("attr_load", attributes._handle, npages, array.ctypes.data, len(array))
        return attributes

    def is_private(self, gfn: int) -> bool:
        """One look-up."""
        if not 0 <= gfn < GFN_LIMIT:
            raise ValueError(f"gfn {gfn} is not below {GFN_LIMIT}")
        return bool(call("attr_is_private", self._handle, gfn))

    def merge(self, dirty: Bitmap) -> Split:
        """Split dirty pages, by a look-up each. O(words + dirty pages)."""
        return _merge("attr_merge", self._handle, *words_of(dirty))


class RmpTable(_Rival):
    """The RMP of an SEV-SNP host: 16 bytes for each of its pages, 4 GiB for 1 TiB."""

    _kind = "rmp"

    def __init__(self, npages: int, *, scatter: int = 0) -> None:
        """A host of `npages`. With `scatter`, blocks of so many pages lie permuted in it."""
        if not 0 < npages <= RMP_MAX_PAGES or not 0 <= scatter <= npages:
            raise ValueError(f"{npages} pages by {scatter}: 1 to {RMP_MAX_PAGES}, 0 to all")
        super().__init__(npages, scatter)
        self._limit = npages

    def place(
        self, asid: int, npages: int, shared: Ranges, *, first_pfn: int = 0, huge: bool = False
    ) -> None:
        """Assign the pages of a guest that are not `shared` to `asid`; `huge`: 2 MiB at a time.

        The guest takes the host's frames [first_pfn, first_pfn + npages) before they are
        permuted; no other guest may have them.
        """
        array = pairs_of(shared, npages)
        _check_asid(asid)
        if first_pfn < 0 or first_pfn + npages > self._limit:
            raise ValueError(f"frames [{first_pfn}, {first_pfn + npages}) of {self._limit}")
        at, n = array.ctypes.data, len(array)
        call("rmp_place", self._handle, asid, first_pfn, npages, at, n, huge)

    def walk(self, asid: int, npages: int) -> NDArray[np.uint64]:
        """A bitmap of the private pages of one guest. O(pages of the host)."""
        _check_asid(asid)
        private = np.zeros((npages + 63) // 64, np.uint64)
        call("rmp_walk", self._handle, asid, *words_of(private))
        return private

    def merge(self, asid: int, dirty: Bitmap) -> Split:
        """Walk, then split dirty pages: one that is not assigned counts as shared."""
        _check_asid(asid)
        return _merge("rmp_merge", self._handle, asid, *words_of(dirty))


def _check_asid(asid: int) -> None:
    if not 0 < asid <= RMP_MAX_ASID:
        raise ValueError(f"ASID {asid}: 1 to {RMP_MAX_ASID}")


class Pins:
    """A tracker of the core's own, whose newest version C code pins and lets go of; any thread."""

    def __init__(self) -> None:
        self._handle: int = call("pins_new")
        freed_with(self, "pins_free", self._handle)

    def epoch(self, calls: int) -> None:
        """Calls the epoch room alone: sp_epoch_acquire, sp_epoch_release."""
        call("pins_epoch", self._handle, calls)

    def snapshot(self, calls: int) -> None:
        """Takes a snapshot and gives it back: sp_tracker_snapshot, sp_snapshot_release."""
        call("pins_snapshot", self._handle, calls)

    def lock(self, calls: int) -> None:
        """Takes and gives back a lock for readers: pthread_rwlock_rdlock and _unlock."""
        call("pins_lock", self._handle, calls)

    def count(self, calls: int) -> None:
        """Counts one atomic word up and down, the least that any count of readers does."""
        call("pins_count", self._handle, calls)


def read_pass(bitmap: Bitmap) -> int:
    """The OR of all 64-bit words: what it costs at the least to read a bitmap once."""
    return int(call("read_pass", *words_of(bitmap)))


def copy(array: NDArray[Any]) -> NDArray[Any]:
    """A copy of a contiguous array in fresh memory: what output of its size costs at the least."""
    if not array.flags.c_contiguous:
        raise TypeError("the array must be contiguous")
    address = call("copy", array.ctypes.data, array.nbytes)
    fresh = np.asarray(Memory(address, (array.nbytes,), "|u1"))
    return fresh.view(array.dtype).reshape(array.shape)


def heap_bytes() -> int:
    """Bytes this process holds from malloc, mapped blocks included; compare before and after."""
    return int(call("heap_bytes"))
