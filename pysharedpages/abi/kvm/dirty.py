"""Dirty pages as KVM reports them: the two dirty-log ioctls, and entries of a dirty ring.

Floor: abi. A bitmap's bit 0 is a slot's first page, or `first_page` of it, and never a gfn: a
`DirtyLog` knows the slots. Entries of a ring are `RING_DTYPE`. Pure functions, safe in any thread.

Source: Documentation/virt/kvm/api.rst, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG and
KVM_CAP_DIRTY_LOG_RING; `kvm_clear_dirty_log_protect` in virt/kvm/kvm_main.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._buffers import RING_DTYPE, as_ring
from pysharedpages.abi._request import bad_byte, register, whole
from pysharedpages.abi.kvm import numbers as kvm
from pysharedpages.errors import RangeError

__all__ = [
    "ClearDirtyLog",
    "GetDirtyLog",
    "bitmap_bytes",
    "decode_ring",
    "dirty_entries",
]

_GET: Final = struct.Struct("<IIQ")
_CLEAR: Final = struct.Struct("<IIQQ")


def bitmap_bytes(npages: int) -> int:
    """Bytes of a slot's dirty bitmap: whole words of 64 pages."""
    if not 0 <= npages <= kvm.KVM_MEM_MAX_NR_PAGES:
        raise RangeError(f"a slot of {npages} pages: the most is {kvm.KVM_MEM_MAX_NR_PAGES}")
    return (npages + 63) // 64 * 8


@dataclass(frozen=True, slots=True)
class GetDirtyLog:
    """The argument of KVM_GET_DIRTY_LOG: the bitmap of a slot goes to `address`."""

    slot: int
    address: int

    def encode(self) -> bytes:
        """`struct kvm_dirty_log`, 16 bytes."""
        return _GET.pack(register(self.slot, "slot", 32), 0, register(self.address, "address"))

    @classmethod
    def decode(cls, data: Any) -> GetDirtyLog:
        """From 16 bytes. FormatError for any other length, and for padding that is not zero."""
        slot, padding, address = _GET.unpack(whole(data, _GET.size, "a kvm_dirty_log"))
        if padding:
            raise bad_byte(4, f"padding of a kvm_dirty_log is {padding:#x}")
        return cls(slot, address)


@dataclass(frozen=True, slots=True)
class ClearDirtyLog:
    """The argument of KVM_CLEAR_DIRTY_LOG: pages of a slot to protect again and count as clean.

    Of the bitmap at `address` bit 0 is page `first_page` of the slot; a bit that is not set
    leaves its page as it is.
    """

    slot: int
    num_pages: int
    first_page: int
    address: int

    def status(self, slot_pages: int) -> int:
        """0, or the EINVAL that KVM fails with where the slot has `slot_pages`.

        `first_page` is a multiple of 64, and so is `num_pages`, unless the range ends with the
        slot; it never goes beyond.
        """
        rest = slot_pages - self.first_page
        short = self.num_pages < rest and self.num_pages % 64
        wrong = self.first_page % 64 or rest < 0 or self.num_pages > rest or short
        return kvm.EINVAL if wrong else 0

    def encode(self) -> bytes:
        """`struct kvm_clear_dirty_log`, 24 bytes."""
        return _CLEAR.pack(
            register(self.slot, "slot", 32),
            register(self.num_pages, "num_pages", 32),
            register(self.first_page, "first_page"),
            register(self.address, "address"),
        )

    @classmethod
    def decode(cls, data: Any) -> ClearDirtyLog:
        """From 24 bytes. FormatError for any other length."""
        return cls(*_CLEAR.unpack(whole(data, _CLEAR.size, "a kvm_clear_dirty_log")))

    @classmethod
    def covering(
        cls, slot: int, start: int, stop: int, slot_pages: int, bitmap: int
    ) -> ClearDirtyLog:
        """The smallest legal call that covers pages [start, stop) of a slot.

        `bitmap` is the address of the whole slot's bitmap, as KVM_GET_DIRTY_LOG fills it: its
        word of the first page is where the call's own bitmap starts. RangeError for pages that
        the slot does not have.
        """
        bitmap_bytes(slot_pages)
        if not 0 <= start <= stop <= slot_pages:
            raise RangeError(f"pages {start} to {stop} of a slot of {slot_pages}")
        first = start // 64 * 64
        last = min((stop + 63) // 64 * 64, slot_pages) if stop > start else first
        return cls(slot, last - first, first, bitmap + first // 8)


def decode_ring(data: Any) -> NDArray[np.void]:
    """The entries of a dirty ring, `struct kvm_dirty_gfn`, copied once: (n,) RING_DTYPE.

    FormatError for bytes that are no whole entries, and for unknown flags.
    """
    entries = as_ring(data).copy()
    unknown = np.flatnonzero(entries["flags"] & ~np.uint32(kvm.KVM_DIRTY_GFN_F_MASK))
    if unknown.size:
        at = int(unknown[0])
        flags = int(entries["flags"][at])
        raise bad_byte(at * RING_DTYPE.itemsize, f"{flags:#x} has unknown flags of a ring entry")
    return entries


def dirty_entries(entries: NDArray[np.void], fetch: int = 0) -> NDArray[np.void]:
    """The entries to harvest next: from `fetch` on, up to the first that is not dirty.

    Harvesting goes in order and skips none; `fetch` counts on without end, and the ring wraps.
    `entries` is a whole ring as `decode_ring` copied it. RangeError for a negative `fetch`.
    """
    if fetch < 0:
        raise RangeError(f"fetch is {fetch}, below 0")
    at = fetch % max(len(entries), 1)
    ahead = _dirty_prefix(entries[at:])
    if len(ahead) < len(entries) - at:
        return ahead
    return np.concatenate([ahead, _dirty_prefix(entries[:at])])


def _dirty_prefix(entries: NDArray[np.void]) -> NDArray[np.void]:
    others = entries["flags"] != kvm.KVM_DIRTY_GFN_F_DIRTY
    return entries[: int(others.argmax())] if others.any() else entries
