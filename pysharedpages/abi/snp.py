"""SEV-SNP: page state changes, by the GHCB MSR one page a write, and by a buffer of entries.

Floor: abi. The buffer of the NAE event lies in memory that the guest can write: it is copied once,
and all that follows looks at the copy. A change is resumable: `cur_page` says how many pages of an
entry are done, `cur_entry` which entry is next, and `answer` brings both forward.

Neighbouring entries of one kind are one change, as KVM joins them into one exit. Two deliberate
differences to KVM: reserved bits must be zero, which it ignores; and an entry that is partly done
is never joined with the next, where KVM's sum takes in a page that no entry names if the guest
places the next one just so. Pure functions, safe in any thread.

Source: SEV-ES Guest-Hypervisor Communication Block Standardization, AMD 56421 (GHCB MSR protocol,
SNP Page State Change); arch/x86/include/asm/sev-common.h; `snp_begin_psc`, `snp_do_psc` and
`__snp_complete_one_psc` in arch/x86/kvm/svm/sev.c. Reserved bits: this library's reading.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi._request import bad_byte, conversions, copied, pages_done, register

__all__ = [
    "ERROR_GENERIC",
    "ERROR_INVALID_ENTRY",
    "ERROR_INVALID_HEADER",
    "MAX_ENTRIES",
    "MSR_GHCB",
    "VMGEXIT_PSC",
    "Change",
    "MsrPageState",
    "PageStateAnswer",
    "PageStateChange",
    "decode_msr",
    "decode_page_state_change",
]

MSR_GHCB: Final = 0xC0010130
VMGEXIT_PSC: Final = 0x80000010
MAX_ENTRIES: Final = 253

ERROR_GENERIC: Final = 0x100 << 32
ERROR_INVALID_HEADER: Final = 1 << 32 | 1
ERROR_INVALID_ENTRY: Final = 1 << 32 | 2

_MSR_REQUEST: Final = 0x014
_MSR_RESPONSE: Final = 0x015
_MSR_ERROR: Final = 1 << 63
_INFO_MASK: Final = 0xFFF
_GFN_SHIFT: Final = 12
_GFN_MASK: Final = (1 << 40) - 1
_OPERATION_SHIFT: Final = 52
_OPERATION_MASK: Final = 0xF
_HUGE: Final = 1 << 56
_ENTRY_RESERVED_SHIFT: Final = 57
_MSR_RESERVED_SHIFT: Final = 56

_PRIVATE: Final = 1
_SHARED: Final = 2
_HUGE_PAGES: Final = 512

_HEADER: Final = struct.Struct("<HHI")
_ENTRY_BYTES: Final = 8
_BUFFER_BYTES: Final = _HEADER.size + MAX_ENTRIES * _ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class MsrPageState:
    """One page of 4 KiB to become private or shared. `status` is 0 or 1, an error."""

    gfn: int
    shared: bool
    status: int = 0

    @property
    def events(self) -> NDArray[np.void]:
        """The conversion, or none where `status` is not 0."""
        return conversions([(self.gfn, int(not self.status), self.shared)])

    def answer(self, *, failed: bool = False) -> int:
        """The GHCB MSR's value for the guest: success, or the generic error."""
        return _MSR_RESPONSE | (_MSR_ERROR if failed or self.status else 0)

    def encode(self) -> int:
        """The request as a guest writes it."""
        operation = _SHARED if self.shared else _PRIVATE
        return operation << _OPERATION_SHIFT | self.gfn << _GFN_SHIFT | _MSR_REQUEST


def decode_msr(value: int) -> MsrPageState:
    """A value written to the GHCB MSR: operation in bits 55:52, gfn in 51:12.

    An operation other than 1 and 2, and reserved bits, get the error response. FormatError if the
    value is no page state change request at all.
    """
    value = register(value, "the GHCB MSR")
    if value & _INFO_MASK != _MSR_REQUEST:
        raise bad_byte(0, f"{value:#x} is no page state change: bits 11:0 are not 0x014")
    operation = value >> _OPERATION_SHIFT & _OPERATION_MASK
    wrong = operation not in (_PRIVATE, _SHARED) or value >> _MSR_RESERVED_SHIFT
    gfn = value >> _GFN_SHIFT & _GFN_MASK
    return MsrPageState(gfn, operation == _SHARED, int(bool(wrong)))


class Change(NamedTuple):
    """Entries [first, first + entries) of a buffer as one change of pages from `start` on.

    `shared` is None for an operation that converts nothing, which is skipped; `huge` if the guest
    maps 2 MiB pages.
    """

    first: int
    entries: int
    start: int
    npages: int
    shared: bool | None
    huge: bool


class PageStateAnswer(NamedTuple):
    """What the guest gets back: the bytes to write to the buffer's start, and two fields."""

    buffer: bytes
    sw_exitinfo1: int
    sw_exitinfo2: int


class _Entry(NamedTuple):
    cur_page: int
    gfn: int
    operation: int
    huge: bool
    reserved: int

    @property
    def npages(self) -> int:
        return _HUGE_PAGES if self.huge else 1

    @property
    def valid(self) -> bool:
        aligned = self.gfn % self.npages == 0
        return aligned and self.cur_page <= self.npages and not self.reserved


@dataclass(frozen=True, slots=True)
class PageStateChange:
    """The page state change NAE event: what its entries, from `cur_entry` on, ask for.

    `status` is 0 or what SW_EXITINFO2 is due: ERROR_INVALID_HEADER, which asks for nothing, or
    ERROR_INVALID_ENTRY, where `changes` are those before entry `reached`. `buffer` is the copy.
    """

    buffer: bytes
    changes: tuple[Change, ...]
    reached: int
    status: int = 0

    @property
    def events(self) -> NDArray[np.void]:
        """The conversions in order, one a change: (n,) EVENT_DTYPE."""
        return conversions(
            [
                (each.start, each.npages, each.shared)
                for each in self.changes
                if each.shared is not None
            ]
        )

    def answer(self, done: int | None = None, *, failed: bool = False) -> PageStateAnswer:
        """The buffer and SW_EXITINFO after `done` pages of `events`, in order.

        Entries that are done get their full `cur_page`, one that is not gets what is done of it,
        and `cur_entry` is the next. Without an error in SW_EXITINFO2 a guest that finds entries
        left calls again; if the next page `failed`, ERROR_GENERIC tells it to give up. By default
        all are done, or none if the first failed. RangeError if `done` is more than the request.
        """
        wanted = sum(each.npages for each in self.changes if each.shared is not None)
        left = pages_done(done, wanted, failed)
        code = ERROR_GENERIC if failed else self.status if left == wanted else 0
        if self.status == ERROR_INVALID_HEADER:
            return PageStateAnswer(self.buffer, 0, self.status)
        words = _words(self.buffer)
        reached = self.reached
        for change in self.changes:
            taken = change.npages if change.shared is None else min(left, change.npages)
            entry = _advance(words, change, taken)
            left -= 0 if change.shared is None else taken
            if taken < change.npages:
                reached = entry
                break
        _, end, reserved = _HEADER.unpack_from(self.buffer)
        head = _HEADER.pack(reached, end, reserved)
        return PageStateAnswer(head + struct.pack(f"<{len(words)}Q", *words), 0, code)


def decode_page_state_change(buffer: Any) -> PageStateChange:
    """The buffer that SW_SCRATCH points to: a header of 8 bytes and up to 253 entries of 8.

    `buffer` ends where the GHCB's shared buffer does: entries beyond are ERROR_INVALID_HEADER, as
    are reserved bits of the header. FormatError if not even the header is there.
    """
    data = copied(buffer, _BUFFER_BYTES, _HEADER.size, "a page state change")
    current, end, reserved = _HEADER.unpack_from(data)
    room = (len(data) - _HEADER.size) // _ENTRY_BYTES
    if end >= room or reserved:
        return PageStateChange(data[: _HEADER.size], (), current, ERROR_INVALID_HEADER)
    data = data[: _HEADER.size + (end + 1) * _ENTRY_BYTES]
    words = _words(data)
    changes: list[Change] = []
    index = current
    while index <= end:
        entry = _entry(words[index])
        if not entry.valid:
            return PageStateChange(data, tuple(changes), index, ERROR_INVALID_ENTRY)
        if entry.cur_page == entry.npages:
            index += 1
            continue
        change = _joined(words, index, entry)
        changes.append(change)
        index += change.entries
    return PageStateChange(data, tuple(changes), index)


def _words(buffer: bytes) -> list[int]:
    """The entries after a header."""
    count = (len(buffer) - _HEADER.size) // _ENTRY_BYTES
    return list(struct.unpack_from(f"<{count}Q", buffer, _HEADER.size))


def _entry(word: int) -> _Entry:
    return _Entry(
        word & _INFO_MASK,
        word >> _GFN_SHIFT & _GFN_MASK,
        word >> _OPERATION_SHIFT & _OPERATION_MASK,
        bool(word & _HUGE),
        word >> _ENTRY_RESERVED_SHIFT,
    )


def _joined(words: list[int], index: int, first: _Entry) -> Change:
    """The change that starts with an entry of which pages are left."""
    npages = first.npages - first.cur_page
    last = index + 1
    if not first.cur_page:
        for entry in map(_entry, itertools.islice(words, last, None)):
            follows = entry.gfn == first.gfn + npages and entry.operation == first.operation
            fresh = not entry.cur_page and not entry.reserved
            if not follows or not fresh or entry.huge != first.huge:
                break
            npages += entry.npages
            last += 1
    converts = first.operation in (_PRIVATE, _SHARED)
    shared = first.operation == _SHARED if converts else None
    start = first.gfn + first.cur_page
    return Change(index, last - index, start, npages, shared, first.huge)


def _advance(words: list[int], change: Change, done: int) -> int:
    """Mark the first `done` pages of a change as done; the entry that is next."""
    for index in range(change.first, change.first + change.entries):
        entry = _entry(words[index])
        step = min(done, entry.npages - entry.cur_page)
        words[index] += step
        done -= step
        if entry.cur_page + step < entry.npages:
            return index
    return change.first + change.entries
