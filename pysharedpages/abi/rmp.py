"""The Reverse Map Table of SEV-SNP hosts: one entry of 16 bytes a page of the host's memory.

Floor: abi. An entry says to which guest (ASID) a host page is assigned, and as which gfn. It tells
private pages alone: a page that is not assigned may be shared, free or the host's own, and holds
no gfn. That makes a table a rival to a tracker, and `private_pages` a way to check one.

The layout is not architectural: it is that of Zen 3 and Zen 4, and RMPREAD's where a processor has
that instruction. Pure functions, safe in any thread.

Source: Processor Programming Reference, Family 19h Model 01h rev. B1; APM volume 2, 15.36 (RMP,
segmented RMP, RMPREAD); arch/x86/virt/svm/sev.c (`struct rmpentry_raw`, RST_ENTRY_...).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._buffers import as_bits
from pysharedpages._core import PageSet
from pysharedpages.abi._request import bad_byte, register, whole
from pysharedpages.errors import FormatError, RangeError

__all__ = [
    "BOOKKEEPING_BYTES",
    "ENTRY_BYTES",
    "RmpEntry",
    "RmpSegment",
    "decode_entry",
    "decode_rmpread",
    "decode_segments",
    "private_pages",
    "table_bytes",
]

ENTRY_BYTES: Final = 16
BOOKKEEPING_BYTES: Final = 0x4000
"""What the processor keeps before the entries, at RMP_BASE."""

_HUGE_PAGES: Final = 512
_BATCH: Final = 1 << 18
"""Entries looked at together: 4 MiB of table."""

_ASSIGNED: Final = 1 << 0
_PAGESIZE: Final = 1 << 1
_IMMUTABLE: Final = 1 << 2
_GFN_SHIFT: Final = 12
_GFN_BITS: Final = 39
_ASID_SHIFT: Final = 51
_ASID_BITS: Final = 10
_VMSA: Final = 1 << 61
_VALIDATED: Final = 1 << 62
_RESERVED: Final = 0xFF8 | 1 << 63

_WORDS: Final = struct.Struct("<QQ")
_RMPREAD: Final = struct.Struct("<QBBBBI")
_SEGMENTS: Final = 512
_SEGMENTED: Final = 1 << 0


@dataclass(frozen=True, slots=True)
class RmpEntry:
    """One entry: the guest and the gfn that a host page is assigned to, if it is.

    `validated` and `vmsa` are False where RMPREAD does not tell them.
    """

    assigned: bool
    huge: bool
    immutable: bool
    gfn: int
    asid: int
    vmsa: bool = False
    validated: bool = False

    def encode(self) -> bytes:
        """As it stands in the table, 16 bytes."""
        low = (
            self.assigned * _ASSIGNED
            | self.huge * _PAGESIZE
            | self.immutable * _IMMUTABLE
            | register(self.gfn, "gfn", _GFN_BITS) << _GFN_SHIFT
            | register(self.asid, "asid", _ASID_BITS) << _ASID_SHIFT
            | self.vmsa * _VMSA
            | self.validated * _VALIDATED
        )
        return _WORDS.pack(low, 0)


def decode_entry(data: Any) -> RmpEntry:
    """An entry of the table, 16 bytes. The upper 8 have no known meaning and are not looked at.

    FormatError for any other length and for reserved bits of the lower 8.
    """
    low, _ = _WORDS.unpack(whole(data, ENTRY_BYTES, "an RMP entry"))
    if low & _RESERVED:
        raise bad_byte(0, f"{low:#x} has reserved bits of an RMP entry")
    return RmpEntry(
        bool(low & _ASSIGNED),
        bool(low & _PAGESIZE),
        bool(low & _IMMUTABLE),
        low >> _GFN_SHIFT & (1 << _GFN_BITS) - 1,
        low >> _ASID_SHIFT & (1 << _ASID_BITS) - 1,
        bool(low & _VMSA),
        bool(low & _VALIDATED),
    )


def decode_rmpread(data: Any) -> RmpEntry:
    """What RMPREAD stored, 16 bytes. Reserved bits are not looked at: they may come to mean more.

    FormatError for any other length and for an address within a page.
    """
    gpa, assigned, size, immutable, _, asid = _RMPREAD.unpack(
        whole(data, ENTRY_BYTES, "an RMPREAD result")
    )
    if gpa & 0xFFF:
        raise bad_byte(0, f"{gpa:#x} is an address within a page")
    return RmpEntry(bool(assigned & 1), bool(size & 1), bool(immutable & 1), gpa >> 12, asid)


def table_bytes(max_pfn: int) -> int:
    """Bytes of an unsegmented table for host pages below `max_pfn`, with the bookkeeping."""
    return register(max_pfn, "max_pfn", 40) * ENTRY_BYTES + BOOKKEEPING_BYTES


@dataclass(frozen=True, slots=True)
class RmpSegment:
    """One segment of a segmented table: entries at host address `base` for `pages` host pages.

    `first_pfn` is the host page of its first entry.
    """

    base: int
    first_pfn: int
    pages: int


def decode_segments(table: Any, config: int) -> tuple[RmpSegment, ...]:
    """The segments in use, from the RMP segment table (4 KiB, after the bookkeeping) and RMP_CFG.

    An entry's bits 19:0 are the GiB that it covers, at most the size of a segment (2^shift of
    RMP_CFG bits 13:8); 51:20 its base. FormatError for a table of another length, reserved bits,
    and an RMP_CFG that is not segmented, or by less than 1 GiB or more than 2^52.
    """
    config = register(config, "RMP_CFG")
    shift = config >> 8 & 0x3F
    if not config & _SEGMENTED or not 30 <= shift <= 52:
        raise FormatError(f"RMP_CFG is {config:#x}: not a segmented table of 2^30 to 2^52 bytes")
    words = np.frombuffer(whole(table, _SEGMENTS * 8, "an RMP segment table"), "<u8").tolist()
    found = []
    for index, word in enumerate(words):
        if word >> 52:
            raise bad_byte(index * 8, f"{word:#x} has reserved bits of a segment")
        size = min((word & 0xFFFFF) << 30, 1 << shift)
        first = index << shift
        if size and first >> 52:
            raise bad_byte(index * 8, f"segment {index} covers addresses above 2^52")
        if size:
            found.append(RmpSegment(word & ~0xFFFFF, first >> 12, size >> 12))
    return tuple(found)


def private_pages(table: Any, asid: int, *, first_pfn: int = 0) -> PageSet:
    """The gfns that a table's entries assign to a guest, by its ASID: a walk of all entries.

    `table` is the entries without the bookkeeping, from host page `first_pfn` on, a multiple of
    512; the entry of a 2 MiB page speaks for all of its 512, which are then not looked at. Every
    entry is read once; beside the result, memory is bounded. 2^28 entries a TiB of the host.

    FormatError, with the byte's offset in `table`, for a length that is no whole number of entries,
    reserved bits, and a 2 MiB page that is misaligned; RangeError for an ASID that no guest has.
    """
    if not 1 <= register(asid, "asid") < 1 << _ASID_BITS:
        raise RangeError(f"asid is {asid}: guests have 1 to {(1 << _ASID_BITS) - 1}")
    if first_pfn % _HUGE_PAGES or first_pfn < 0:
        raise RangeError(f"first_pfn is {first_pfn}, no multiple of {_HUGE_PAGES}")
    raw = as_bits(table)
    if raw.size % ENTRY_BYTES:
        text = f"the table ends at byte {raw.size}, within an entry of 16 bytes"
        raise FormatError(text, offset=raw.size)
    batch_bytes = _BATCH * ENTRY_BYTES
    pages = PageSet()
    for offset in range(0, raw.size, batch_bytes):
        entries = np.frombuffer(raw[offset : offset + batch_bytes].tobytes(), "<u8")[::2]
        pages |= PageSet.from_ranges(_assigned(entries, asid, offset))
    return pages


def _assigned(low: NDArray[np.uint64], asid: int, offset: int) -> NDArray[np.uint64]:
    """The ranges of gfns of one batch, which starts with the entry of a 2 MiB page."""
    _refuse(low & np.uint64(_RESERVED), low, offset, "has reserved bits of an RMP entry")
    huge = low & np.uint64(_ASSIGNED | _PAGESIZE) == _ASSIGNED | _PAGESIZE
    heads = np.zeros(-(-len(low) // _HUGE_PAGES), bool)
    heads[:] = huge[::_HUGE_PAGES]
    covered = np.repeat(heads, _HUGE_PAGES)[: len(low)]
    covered[::_HUGE_PAGES] = False
    gfns = low >> np.uint64(_GFN_SHIFT) & np.uint64((1 << _GFN_BITS) - 1)
    inside = np.arange(len(low)) % _HUGE_PAGES != 0
    unaligned = gfns % np.uint64(_HUGE_PAGES) != 0
    _refuse(huge & ~covered & (inside | unaligned), low, offset, "is a misaligned 2 MiB page")
    owned = low >> np.uint64(_ASID_SHIFT) & np.uint64((1 << _ASID_BITS) - 1) == asid
    mine = (low & np.uint64(_ASSIGNED) != 0) & owned & ~covered
    start = gfns[mine]
    step = np.where(huge[mine], np.uint64(_HUGE_PAGES), np.uint64(1))
    return np.stack([start, start + step], axis=1)


def _refuse(bad: NDArray[Any], low: NDArray[np.uint64], offset: int, what: str) -> None:
    found = np.flatnonzero(bad)
    if found.size:
        at = int(found[0])
        raise bad_byte(offset + at * ENTRY_BYTES, f"{int(low[at]):#x} {what}")
