"""Exits that concern conversions, decoded from a vCPU's kvm_run page.

Floor: abi. A page is read once, 104 bytes of it. The offsets are those of x86-64, and of arm64
for KVM_EXIT_MEMORY_FAULT. Pure functions but for the answers, which write into the caller's page.

Source: Documentation/virt/kvm/api.rst, section 5, "The kvm_run structure".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi._request import (
    GFN_LIMIT,
    PAGE_SHIFT,
    PAGE_SIZE,
    conversions,
    copied,
    negative,
    register,
    write_at,
)
from pysharedpages.abi.kvm import numbers as kvm
from pysharedpages.abi.kvm.hypercall import MapGpaRange, map_gpa_range
from pysharedpages.abi.kvm.memory import MemoryAttributes
from pysharedpages.errors import FormatError, RangeError

__all__ = ["Exit", "Hypercall", "MemoryFault", "MsrRead", "MsrWrite", "decode_exit"]

_HYPERCALL: Final = struct.Struct("<7Q")
_MSR: Final = struct.Struct("<B7xIIQ")
_FAULT: Final = struct.Struct("<3Q")
_MSR_REASONS: Final = (
    kvm.KVM_MSR_EXIT_REASON_INVAL | kvm.KVM_MSR_EXIT_REASON_UNKNOWN | kvm.KVM_MSR_EXIT_REASON_FILTER
)


@dataclass(frozen=True, slots=True)
class Exit:
    """An exit that says nothing of pages, KVM_EXIT_DIRTY_RING_FULL among them."""

    reason: int

    @property
    def ring_full(self) -> bool:
        """Whether the vCPU stopped because its dirty ring is full."""
        return self.reason == kvm.KVM_EXIT_DIRTY_RING_FULL


@dataclass(frozen=True, slots=True)
class Hypercall:
    """A hypercall other than KVM_HC_MAP_GPA_RANGE, with its four arguments."""

    number: int
    arguments: tuple[int, int, int, int]

    def answer(self, run: Any, error: int = kvm.KVM_ENOSYS) -> None:
        """Write the negative of an errno into a writable kvm_run page; 0 is success."""
        value = negative(register(error, "error", 12))
        write_at(run, kvm.RUN_HYPERCALL_RET, value.to_bytes(8, "little"))


@dataclass(frozen=True, slots=True)
class MemoryFault:
    """An access that the pages' attributes do not allow: the guest takes them for the other kind.

    On Arm CCA this is also how a guest's change of RIPAS arrives. `status` is always 0.
    """

    gpa: int
    size: int
    shared: bool
    status: int = 0

    @property
    def events(self) -> NDArray[np.void]:
        """The conversion that makes the access legal."""
        return conversions([(self.gpa >> PAGE_SHIFT, self.size >> PAGE_SHIFT, self.shared)])

    def answer(self) -> bytes:
        """The argument of KVM_SET_MEMORY_ATTRIBUTES that lets the access through, 32 bytes."""
        attributes = 0 if self.shared else kvm.KVM_MEMORY_ATTRIBUTE_PRIVATE
        return MemoryAttributes(self.gpa, self.size, attributes).encode()


@dataclass(frozen=True, slots=True)
class MsrWrite:
    """A wrmsr that was left to userspace: MSR `index` becomes `data`."""

    index: int
    data: int
    reason: int

    def answer(self, run: Any, *, fault: bool = False) -> None:
        """Let the write stand, or inject #GP, in a writable kvm_run page."""
        write_at(run, kvm.RUN_MSR_ERROR, bytes([fault]))


@dataclass(frozen=True, slots=True)
class MsrRead:
    """A rdmsr that was left to userspace."""

    index: int
    reason: int

    def answer(self, run: Any, data: int = 0, *, fault: bool = False) -> None:
        """Give the MSR's value, or inject #GP, in a writable kvm_run page."""
        write_at(run, kvm.RUN_MSR_DATA, register(data, "data").to_bytes(8, "little"))
        write_at(run, kvm.RUN_MSR_ERROR, bytes([fault]))


def decode_exit(
    run: Any, errno: int = 0
) -> MapGpaRange | Hypercall | MemoryFault | MsrWrite | MsrRead | Exit | None:
    """What a kvm_run page says after KVM_RUN, which returned 0 or failed with `errno`.

    After a failure the page means something only if `errno` is EFAULT or EHWPOISON and the exit
    is KVM_EXIT_MEMORY_FAULT, which never comes without one; None otherwise: nothing is reported.

    Raises FormatError for a page too short, an unknown reason of an MSR exit, unknown flags of a
    fault, or one that is empty or misaligned; RangeError for a fault at pages from 2^52 on.
    """
    page = copied(run, kvm.RUN_READ_BYTES, kvm.RUN_READ_BYTES, "a kvm_run page")
    reason = int.from_bytes(page[kvm.RUN_EXIT_REASON : kvm.RUN_EXIT_REASON + 4], "little")
    faulted = errno in (kvm.EFAULT, kvm.EHWPOISON) and reason == kvm.KVM_EXIT_MEMORY_FAULT
    if errno and not faulted:
        return None
    if faulted:
        return _memory_fault(page)
    if reason == kvm.KVM_EXIT_MEMORY_FAULT:
        raise FormatError(f"byte {kvm.RUN_EXIT_REASON}: a memory fault, but KVM_RUN did not fail")
    if reason == kvm.KVM_EXIT_HYPERCALL:
        number, *arguments = _HYPERCALL.unpack_from(page, kvm.RUN_EXIT)
        if number == kvm.KVM_HC_MAP_GPA_RANGE:
            return map_gpa_range(*arguments[:3])
        return Hypercall(number, (arguments[0], arguments[1], arguments[2], arguments[3]))
    if reason in (kvm.KVM_EXIT_X86_WRMSR, kvm.KVM_EXIT_X86_RDMSR):
        return _msr(page, reason)
    return Exit(reason)


def _msr(page: bytes, exit_reason: int) -> MsrWrite | MsrRead:
    _, reason, index, data = _MSR.unpack_from(page, kvm.RUN_EXIT)
    if not reason or reason & ~_MSR_REASONS:
        raise FormatError(f"byte {kvm.RUN_EXIT + 8}: {reason:#x} is no reason of an MSR exit")
    if exit_reason == kvm.KVM_EXIT_X86_WRMSR:
        return MsrWrite(index, data, reason)
    return MsrRead(index, reason)


def _memory_fault(page: bytes) -> MemoryFault:
    flags, gpa, size = _FAULT.unpack_from(page, kvm.RUN_EXIT)
    if flags & ~kvm.KVM_MEMORY_EXIT_FLAG_PRIVATE:
        raise FormatError(f"byte {kvm.RUN_EXIT}: {flags:#x} has unknown flags of a memory fault")
    if gpa % PAGE_SIZE:
        raise FormatError(f"byte {kvm.RUN_EXIT + 8}: a fault at {gpa:#x}, which is in a page")
    if size % PAGE_SIZE or not size:
        raise FormatError(f"byte {kvm.RUN_EXIT + 16}: a fault of {size:#x} bytes, not whole pages")
    if (gpa + size) >> PAGE_SHIFT > GFN_LIMIT:
        raise RangeError(f"a fault at {gpa:#x} of {size:#x} bytes ends above 2^64")
    return MemoryFault(gpa, size, not flags)
