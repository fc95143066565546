"""The proposed ioctls that asked KVM for shared pages: a list of ranges, and a bitmap.

Floor: abi. Neither became part of Linux, and their numbers mean other things today. A list entry
is { gfn_start, gfn_end }, half-open as its callers passed it; a bitmap's bit is 1 for a private
page. Both are here as one set of pages, however a list overlaps or is sorted. Pure functions, safe
in any thread.

Source: "Add AMD SEV guest live migration support", v10 of February 2021 (KVM_GET_SHARED_PAGES_LIST
and ..._SET_...), and v8 of May 2020 (KVM_GET_PAGE_ENC_BITMAP and ..._SET_...).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._buffers import EVENT_DTYPE, as_bits
from pysharedpages._core import PageSet
from pysharedpages.abi._request import GFN_LIMIT, bad_byte, conversions, register, whole
from pysharedpages.abi.kvm.numbers import EINVAL
from pysharedpages.errors import FormatError, RangeError

__all__ = [
    "E2BIG",
    "EINVAL",
    "KVM_GET_PAGE_ENC_BITMAP",
    "KVM_GET_SHARED_PAGES_LIST",
    "KVM_PAGE_ENC_BITMAP_RESET",
    "KVM_SET_PAGE_ENC_BITMAP",
    "KVM_SET_SHARED_PAGES_LIST",
    "LIST_DTYPE",
    "ListAnswer",
    "PageEncBitmap",
    "SharedPagesList",
    "bitmap_bytes",
    "decode_list",
    "encode_bitmap",
    "encode_list",
    "get_list",
]

KVM_GET_SHARED_PAGES_LIST: Final = 0x4018AEC8
KVM_SET_SHARED_PAGES_LIST: Final = 0x4018AEC9
KVM_GET_PAGE_ENC_BITMAP: Final = 0x4018AEC5
KVM_SET_PAGE_ENC_BITMAP: Final = 0x4018AEC6
KVM_PAGE_ENC_BITMAP_RESET: Final = 0xAEC7

E2BIG: Final = 7

LIST_DTYPE: Final = np.dtype([("gfn_start", "<u8"), ("gfn_end", "<u8")])
"""One entry of the list. 16 bytes."""

_LIST: Final = struct.Struct("<QQI4x")
_BITMAP: Final = struct.Struct("<QQQ")
_INT_MAX: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class SharedPagesList:
    """The argument of both list ioctls: addresses of the count and of the entries, and bytes."""

    pnents: int
    buffer: int
    size: int

    def encode(self) -> bytes:
        """`struct kvm_shared_pages_list` of x86-64, 24 bytes."""
        return _LIST.pack(
            register(self.pnents, "pnents"),
            register(self.buffer, "buffer"),
            register(self.size, "size", 32),
        )

    @classmethod
    def decode(cls, data: Any) -> SharedPagesList:
        """From 24 bytes, of which the last 4 are padding. FormatError for any other length."""
        return cls(*_LIST.unpack(whole(data, _LIST.size, "a kvm_shared_pages_list")))


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """What KVM_GET_SHARED_PAGES_LIST gives back: an errno or 0, the count, and the entries."""

    status: int
    nents: int
    buffer: bytes


def get_list(shared: PageSet, size: int) -> ListAnswer:
    """The list as the ioctl answers it, into a buffer of `size` bytes.

    EINVAL for a buffer of 0 bytes, E2BIG for one too small, which does not tell what is needed;
    an empty list is a success that leaves the buffer alone.
    """
    if not register(size, "size", 32):
        return ListAnswer(EINVAL, 0, b"")
    if shared.nranges * LIST_DTYPE.itemsize > size:
        return ListAnswer(E2BIG, 0, b"")
    return ListAnswer(0, shared.nranges, encode_list(shared))


def encode_list(shared: PageSet) -> bytes:
    """The entries alone: sorted, disjoint, 16 bytes a range."""
    return shared.ranges().astype("<u8", copy=False).tobytes()


def decode_list(data: Any, nents: int | None = None) -> PageSet:
    """The shared pages of `nents` entries, by default as many as there are.

    Without entries nothing is shared: KVM_SET_SHARED_PAGES_LIST was also the reset. Entries may
    overlap and come in any order. The proposal appended them to what was there; that is
    `SharedPages.set_list(ranges)` here, which replaces.

    FormatError for an entry that is cut off or inverted; RangeError for gfns above 2^52, and for a
    count that is negative or more than a C int.
    """
    raw = as_bits(data)
    if nents is None:
        nents, rest = divmod(raw.size, LIST_DTYPE.itemsize)
        if rest:
            text = f"the list ends at byte {raw.size}, within an entry of 16 bytes"
            raise FormatError(text, offset=raw.size)
    if not 0 <= nents <= _INT_MAX:
        raise RangeError(f"nents is {nents}: a C int, not negative")
    if raw.size < nents * LIST_DTYPE.itemsize:
        text = f"the list ends at byte {raw.size}, before entry {raw.size // 16}"
        raise FormatError(text, offset=raw.size)
    entries = np.frombuffer(raw[: nents * LIST_DTYPE.itemsize].tobytes(), "<u8").reshape(-1, 2)
    inverted = np.flatnonzero(entries[:, 0] > entries[:, 1])
    if inverted.size:
        at = int(inverted[0])
        start, end = (int(each) for each in entries[at])
        raise bad_byte(at * 16, f"entry {at} goes from {start:#x} to {end:#x}")
    beyond = np.flatnonzero(entries[:, 1] > GFN_LIMIT)
    if beyond.size:
        at = int(beyond[0])
        raise RangeError(f"entry {at} ends at gfn {int(entries[at, 1]):#x}: the limit is 2^52")
    return PageSet.from_ranges(entries)


def bitmap_bytes(npages: int) -> int:
    """Bytes of a caller's bitmap: whole words of 64 pages."""
    return (register(npages, "npages", 52) + 63) // 64 * 8


@dataclass(frozen=True, slots=True)
class PageEncBitmap:
    """The argument of both bitmap ioctls: the pages, and the address of their bits."""

    start_gfn: int
    num_pages: int
    enc_bitmap: int

    def encode(self) -> bytes:
        """`struct kvm_page_enc_bitmap`, 24 bytes."""
        return _BITMAP.pack(
            register(self.start_gfn, "start_gfn"),
            register(self.num_pages, "num_pages"),
            register(self.enc_bitmap, "enc_bitmap"),
        )

    @classmethod
    def decode(cls, data: Any) -> PageEncBitmap:
        """From 24 bytes. FormatError for any other length."""
        return cls(*_BITMAP.unpack(whole(data, _BITMAP.size, "a kvm_page_enc_bitmap")))

    def events(self, bitmap: Any) -> NDArray[np.void]:
        """The conversions that give these pages the status of a bitmap: (n,) EVENT_DTYPE.

        All become private first, then each run of zeros shared; bits past `num_pages` are not
        looked at. RangeError for pages from 2^52 on, FormatError for too few bits.
        """
        _window(self.start_gfn, self.num_pages)
        raw = as_bits(bitmap)
        need = (self.num_pages + 7) // 8
        if raw.size < need:
            text = f"the bitmap ends at byte {raw.size}: {need} bytes are needed"
            raise FormatError(text, offset=raw.size)
        private = PageSet.from_bitmap(raw[:need].copy(), self.start_gfn, self.num_pages)
        shared = private.gaps(self.start_gfn, self.start_gfn + self.num_pages)
        table = np.zeros(len(shared) + 1, EVENT_DTYPE)
        table[0] = self.start_gfn, self.num_pages, False
        table["start"][1:] = shared[:, 0]
        table["npages"][1:] = shared[:, 1] - shared[:, 0]
        table["shared"][1:] = True
        return table if self.num_pages else conversions([])


def encode_bitmap(shared: PageSet, start_gfn: int, num_pages: int, into: Any) -> bytes:
    """What KVM_GET_PAGE_ENC_BITMAP leaves in a buffer that holds `into`.

    It has at least `bitmap_bytes(num_pages)` bytes. Bits past `num_pages` keep what they were, as
    v5 and later took care of. RangeError for pages from 2^52 on, FormatError for a short buffer.
    """
    _window(start_gfn, num_pages)
    old, need = as_bits(into), bitmap_bytes(num_pages)
    if old.size < need:
        text = f"the bitmap ends at byte {old.size}: {need} bytes are needed"
        raise FormatError(text, offset=old.size)
    new = old.copy()
    bits, used = shared.to_bitmap(start_gfn, num_pages), (num_pages + 7) // 8
    new[:used] = ~bits[:used]
    if num_pages % 8:
        keep = np.uint8(0xFF << num_pages % 8 & 0xFF)
        new[used - 1] = new[used - 1] & ~keep | old[used - 1] & keep
    return new.tobytes()


def _window(start: int, npages: int) -> None:
    if not 0 <= start <= GFN_LIMIT or not 0 <= npages <= GFN_LIMIT - start:
        raise RangeError(f"{npages} pages from {start}: gfns are below 2^52")
