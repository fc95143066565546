"""KVM_HC_MAP_GPA_RANGE: a guest tells that a range of its pages is now private or shared.

Floor: abi. A SEV or SEV-ES guest makes the call itself; for SNP and TDX guests KVM makes one out
of a page state change or a MapGPA. Pure functions, safe in any thread.

Source: Documentation/virt/kvm/x86/hypercalls.rst; `____kvm_emulate_hypercall` in
arch/x86/kvm/x86.c and `kvm_is_valid_map_gpa_range_ret` in arch/x86/kvm/x86.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi._request import (
    GFN_LIMIT,
    PAGE_SHIFT,
    PAGE_SIZE,
    conversions,
    negative,
    register,
    write_at,
)
from pysharedpages.abi.kvm import numbers as kvm
from pysharedpages.abi.kvm.capability import EnableCap
from pysharedpages.errors import RangeError

__all__ = ["MapGpaRange", "enable_exit_hypercall", "hypercalls_of", "map_gpa_range"]

_PAGE_SIZES: Final = {
    kvm.KVM_MAP_GPA_RANGE_PAGE_SZ_4K: 1 << 12,
    kvm.KVM_MAP_GPA_RANGE_PAGE_SZ_2M: 1 << 21,
    kvm.KVM_MAP_GPA_RANGE_PAGE_SZ_1G: 1 << 30,
}
_PAGE_SIZE_BITS: Final = 0xF
_KNOWN_BITS: Final = _PAGE_SIZE_BITS | kvm.KVM_MAP_GPA_RANGE_ENCRYPTED


@dataclass(frozen=True, slots=True)
class MapGpaRange:
    """A range of pages to become private or shared: `npages` of 4 KiB from `gpa` on.

    `page_size` is what the guest maps them with, in bytes: a hint, to which the range need not be
    aligned. `status` is 0 or EINVAL.
    """

    gpa: int
    npages: int
    attributes: int
    status: int = 0

    @property
    def shared(self) -> bool:
        """Whether the pages become shared."""
        return not self.attributes & kvm.KVM_MAP_GPA_RANGE_ENCRYPTED

    @property
    def page_size(self) -> int:
        """Bytes of a page as the guest maps it: 4 KiB, 2 MiB or 1 GiB; 0 if unknown."""
        return _PAGE_SIZES.get(self.attributes & _PAGE_SIZE_BITS, 0)

    @property
    def events(self) -> NDArray[np.void]:
        """The conversion, or none where `status` is not 0."""
        npages = 0 if self.status else self.npages
        return conversions([(self.gpa >> PAGE_SHIFT, npages, self.shared)])

    def result(self, error: int | None = None, *, signed: bool = False) -> int:
        """The 64-bit return value: 0, or `error`, an errno; `status` by default.

        A SEV or SEV-ES guest reads it in RAX and is used to negative numbers: `signed`. For SNP
        and TDX guests KVM turns it into their own codes and takes 0, EINVAL and EAGAIN alone:
        with any other, KVM_RUN fails. RangeError for a code that the guest's kind cannot take.
        """
        code = register(self.status if error is None else error, "error", 12)
        if signed:
            return negative(code)
        if code not in (0, kvm.EINVAL, kvm.EAGAIN):
            raise RangeError(f"error is {code}: SNP and TDX guests take 0, EINVAL and EAGAIN alone")
        return code

    def answer(self, run: Any, error: int | None = None, *, signed: bool = False) -> None:
        """Write the return value into a writable kvm_run page, for the next KVM_RUN.

        Raises what `result` raises, TypeError for a page that cannot be written and FormatError
        for one that is too short.
        """
        value = self.result(error, signed=signed)
        write_at(run, kvm.RUN_HYPERCALL_RET, value.to_bytes(8, "little"))


def map_gpa_range(gpa: int, npages: int, attributes: int) -> MapGpaRange:
    """Check the arguments of the hypercall, registers a0 to a2.

    EINVAL is the answer to a misaligned gpa, to no pages, to a range that ends above 2^64 bytes,
    and to reserved bits in the attributes (63:5), which KVM itself lets through. It is due, too,
    where `SharedPages.apply` raises RangeError: the guest has no such pages. A page size is only a
    preference: an unknown one is none.
    """
    gpa, npages = register(gpa, "a0"), register(npages, "a1")
    attributes = register(attributes, "a2")
    fits = 0 < npages <= GFN_LIMIT - (gpa >> PAGE_SHIFT)
    wrong = not fits or attributes & ~_KNOWN_BITS or gpa % PAGE_SIZE
    status = kvm.EINVAL if wrong else 0
    return MapGpaRange(gpa, npages, attributes, status)


def enable_exit_hypercall(
    *hypercalls: int, supported: int = kvm.KVM_EXIT_HYPERCALL_VALID_MASK
) -> bytes:
    """The argument of KVM_ENABLE_CAP that asks for these hypercalls as exits, 104 bytes.

    `supported` is what KVM_CHECK_EXTENSION answered for KVM_CAP_EXIT_HYPERCALL. Without numbers
    no hypercall exits any more. RangeError for one that the kernel does not hand out.
    """
    mask = 0
    for number in hypercalls:
        if not 0 <= number < 64 or not supported >> number & 1:
            raise RangeError(f"hypercall {number} is not in the kernel's mask, {supported:#x}")
        mask |= 1 << number
    return EnableCap(kvm.KVM_CAP_EXIT_HYPERCALL, (mask,)).encode()


def hypercalls_of(mask: int) -> tuple[int, ...]:
    """The hypercalls of a KVM_CAP_EXIT_HYPERCALL mask, ascending."""
    mask = register(mask, "mask")
    return tuple(number for number in range(64) if mask >> number & 1)
