"""SEV and SEV-ES: the hypercalls that tell of a page's encryption, and the migration MSR.

Floor: abi. The registers are the guest's, as VMMCALL leaves them (for SEV-ES, in the GHCB). A
private page is one that the guest maps encrypted. Pure functions, safe in any thread.

Source: Documentation/virt/kvm/x86/hypercalls.rst (KVM_HC_MAP_GPA_RANGE) and msr.rst
(MSR_KVM_MIGRATION_CONTROL). The older KVM_HC_PAGE_ENC_STATUS had the same number and never became
part of Linux: "Add AMD SEV guest live migration support", v8 and v10, `svm_page_enc_status_hc`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi._request import GFN_LIMIT, PAGE_SHIFT, conversions, negative, register
from pysharedpages.abi.kvm import map_gpa_range
from pysharedpages.abi.kvm.numbers import (
    EINVAL,
    KVM_ENOSYS,
    KVM_HC_MAP_GPA_RANGE,
    KVM_MIGRATION_READY,
    MSR_KVM_MIGRATION_CONTROL,
)
from pysharedpages.errors import FormatError

__all__ = [
    "MSR_KVM_MIGRATION_CONTROL",
    "EncryptionChange",
    "MigrationControl",
    "decode_hypercall",
    "decode_migration_control",
    "decode_page_enc_status",
]

_ENCRYPTED: Final = 1


@dataclass(frozen=True, slots=True)
class EncryptionChange:
    """Pages that the guest is to map, or has mapped, encrypted or not.

    `status` is 0, EINVAL, or KVM_ENOSYS for a hypercall of another number.
    """

    start: int
    npages: int
    shared: bool
    status: int = 0

    @property
    def events(self) -> NDArray[np.void]:
        """The conversion, or none where `status` is not 0."""
        npages = 0 if self.status else self.npages
        return conversions([(self.start, npages, self.shared)])

    def answer(self, error: int | None = None) -> int:
        """RAX for the guest: 0, or the negative of `error`, an errno; `status` by default."""
        return negative(register(self.status if error is None else error, "error", 12))


def decode_hypercall(rax: int, rbx: int, rcx: int, rdx: int) -> EncryptionChange:
    """KVM_HC_MAP_GPA_RANGE: rbx is the gpa, rcx the number of 4 KiB pages, rdx the attributes."""
    if register(rax, "rax") != KVM_HC_MAP_GPA_RANGE:
        return EncryptionChange(0, 0, False, KVM_ENOSYS)
    call = map_gpa_range(rbx, rcx, rdx)
    return EncryptionChange(call.gpa >> PAGE_SHIFT, call.npages, call.shared, call.status)


def decode_page_enc_status(rax: int, rbx: int, rcx: int, rdx: int) -> EncryptionChange:
    """KVM_HC_PAGE_ENC_STATUS: rbx is the gpa, rcx the number of pages, rdx 1 if encrypted.

    No pages are a success that changes nothing, and a gpa within a page means that page. Anything
    but 0 and 1 in rdx is EINVAL here; the proposal took it for encrypted.
    """
    if register(rax, "rax") != KVM_HC_MAP_GPA_RANGE:
        return EncryptionChange(0, 0, False, KVM_ENOSYS)
    start, npages = register(rbx, "rbx") >> PAGE_SHIFT, register(rcx, "rcx")
    encrypted = register(rdx, "rdx")
    wrong = npages > GFN_LIMIT - start or encrypted > _ENCRYPTED
    return EncryptionChange(start, npages, encrypted != _ENCRYPTED, EINVAL if wrong else 0)


@dataclass(frozen=True, slots=True)
class MigrationControl:
    """A write to MSR_KVM_MIGRATION_CONTROL: may the guest be migrated from now on?

    An encrypted guest may not until it says so: before that it converts pages and tells later.
    `status` is 1 where reserved bits are set, which is due a #GP: `MsrWrite.answer(fault=...)`.
    """

    ready: bool
    status: int = 0

    def encode(self) -> int:
        """The MSR's value, as a guest reads it."""
        return KVM_MIGRATION_READY if self.ready else 0


def decode_migration_control(index: int, data: int) -> MigrationControl:
    """The value written to the MSR. FormatError if `index` is another MSR's."""
    if register(index, "index", 32) != MSR_KVM_MIGRATION_CONTROL:
        raise FormatError(
            f"MSR {index:#x} is not MSR_KVM_MIGRATION_CONTROL, {MSR_KVM_MIGRATION_CONTROL:#x}"
        )
    data = register(data, "data")
    reserved = data & ~KVM_MIGRATION_READY
    return MigrationControl(data == KVM_MIGRATION_READY, int(bool(reserved)))
