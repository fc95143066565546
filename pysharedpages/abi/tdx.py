"""Intel TDX: MapGPA, by which a guest asks for pages to be private or shared.

Floor: abi. What a guest asks for here is a hint: a page turns private when the guest accepts it
(TDG.MEM.PAGE.ACCEPT), which the VMM does not see. `MapGpa.trusted` says so to whoever applies the
events. Pure functions, safe in any thread.

Source: Guest-Host Communication Interface (GHCI), TDG.VP.VMCALL<MapGPA>; `tdx_map_gpa`
and `tdx_complete_vmcall_map_gpa` in arch/x86/kvm/vmx/tdx.c for the host, `tdx_map_gpa` in
arch/x86/coco/tdx/tdx.c for the guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi._request import (
    PAGE_SHIFT,
    PAGE_SIZE,
    conversions,
    pages_done,
    register,
)
from pysharedpages.errors import FormatError, RangeError

__all__ = [
    "ALIGN_ERROR",
    "INVALID_OPERAND",
    "MAP_GPA",
    "RETRY",
    "SUBFUNC_UNSUPPORTED",
    "SUCCESS",
    "Answer",
    "MapGpa",
    "decode_map_gpa",
]

MAP_GPA: Final = 0x10001

SUCCESS: Final = 0
RETRY: Final = 1
INVALID_OPERAND: Final = 0x8000000000000000
ALIGN_ERROR: Final = 0x8000000000000002
SUBFUNC_UNSUPPORTED: Final = 0x8000000000000003

_CHUNK_BYTES: Final = 2 << 20
"""TDX_MAP_GPA_MAX_LEN: what KVM hands to userspace in one exit."""


class Answer(NamedTuple):
    """The registers that the guest gets back."""

    r10: int
    r11: int


@dataclass(frozen=True, slots=True)
class MapGpa:
    """MapGPA of `size` bytes from `gpa` on, which carries the shared bit if they become shared.

    `status` is 0, INVALID_OPERAND, ALIGN_ERROR, or SUBFUNC_UNSUPPORTED for another leaf.
    """

    trusted: ClassVar[bool] = False
    """The events are hints."""

    gpa: int
    size: int
    gpaw: int
    status: int = 0

    @property
    def shared(self) -> bool:
        """Whether the pages become shared."""
        return bool(self.gpa >> self.gpaw - 1 & 1)

    @property
    def start(self) -> int:
        """The first gfn, without the shared bit."""
        return (self.gpa & (1 << self.gpaw - 1) - 1) >> PAGE_SHIFT

    @property
    def npages(self) -> int:
        """Pages asked for: 0 where `status` is not 0."""
        return 0 if self.status else self.size >> PAGE_SHIFT

    @property
    def events(self) -> NDArray[np.void]:
        """The conversion, or none where `status` is not 0."""
        return conversions([(self.start, self.npages, self.shared)])

    def chunks(self, most: int = _CHUNK_BYTES) -> NDArray[np.void]:
        """The conversion in pieces of at most `most` bytes, as KVM hands them out one an exit.

        They count from the range's own start. RangeError if `most` is no multiple of a page.
        """
        if most <= 0 or most % PAGE_SIZE:
            raise RangeError(f"chunks of {most} bytes: a positive multiple of {PAGE_SIZE} is due")
        step, end = most >> PAGE_SHIFT, self.start + self.npages
        table = np.zeros(-(-self.npages // step), self.events.dtype)
        table["start"] = self.start + np.arange(len(table), dtype=np.uint64) * np.uint64(step)
        table["npages"] = np.minimum(np.uint64(step), np.uint64(end) - table["start"])
        table["shared"] = self.shared
        return table

    def answer(self, done: int | None = None, *, failed: bool = False) -> Answer:
        """R10 and R11 after `done` pages.

        With pages left R11 is the address of the first of them, shared bit and all, and R10 asks
        to RETRY from there or, if that page `failed`, is INVALID_OPERAND: what precedes it is
        converted all the same. By default all are done, or none if the first failed. RangeError
        if `done` is more than the request, or if it failed with nothing left.
        """
        count = pages_done(done, self.npages, failed)
        if self.status:
            return Answer(self.status, self.gpa)
        if failed and count == self.npages:
            raise RangeError(f"all {count} pages are done: none failed")
        if count == self.npages:
            return Answer(SUCCESS, 0)
        return Answer(INVALID_OPERAND if failed else RETRY, self.gpa + (count << PAGE_SHIFT))

    def done(self, r10: int, r11: int) -> int:
        """How many pages an answer says are converted; the host may lie.

        FormatError for an R10 that is no status, and for an R11 that points out of the request
        or into a page, where R10 gives it a meaning.
        """
        r10, r11 = register(r10, "r10"), register(r11, "r11")
        if r10 == SUCCESS:
            return self.npages
        if r10 in (ALIGN_ERROR, SUBFUNC_UNSUPPORTED) or (r10 == INVALID_OPERAND and self.status):
            return 0
        if r10 not in (RETRY, INVALID_OPERAND):
            raise FormatError(f"R10 is {r10:#x}, which is no status of MapGPA")
        if not 0 <= r11 - self.gpa < self.npages << PAGE_SHIFT or (r11 - self.gpa) % PAGE_SIZE:
            raise FormatError(
                f"R11 is {r11:#x}, no page of {self.size:#x} bytes from {self.gpa:#x}"
            )
        return r11 - self.gpa >> PAGE_SHIFT

    def rest(self, r10: int, r11: int) -> MapGpa | None:
        """The guest's next request after an answer that says RETRY; None after any other.

        Raises what `done` raises.
        """
        done = self.done(r10, r11)
        if r10 != RETRY:
            return None
        return MapGpa(r11, self.size - (done << PAGE_SHIFT), self.gpaw)


def decode_map_gpa(r10: int, r11: int, r12: int, r13: int, *, gpaw: int = 48) -> MapGpa:
    """TDG.VP.VMCALL with a leaf of MapGPA: R12 is the address with its shared bit, R13 the bytes.

    The shared bit is bit `gpaw` - 1, 47 or 51. INVALID_OPERAND for no bytes, and for a range that
    wraps, leaves the guest's addresses or lies on both sides of the shared bit; ALIGN_ERROR for
    what is then not in whole pages. RangeError for a GPAW that TDX does not have.
    """
    if gpaw not in (48, 52):
        raise RangeError(f"a GPAW of {gpaw}: TDX has 48 and 52")
    gpa, size = register(r12, "r12"), register(r13, "r13")
    last = gpa + size - 1
    if register(r10, "r10") or register(r11, "r11") != MAP_GPA:
        status = SUBFUNC_UNSUPPORTED
    elif not size or last >> gpaw or gpa >> gpaw - 1 != last >> gpaw - 1:
        status = INVALID_OPERAND
    elif (gpa | size) % PAGE_SIZE:
        status = ALIGN_ERROR
    else:
        status = SUCCESS
    return MapGpa(gpa, size, gpaw, status)
