"""Exits that concern conversions, and accesses to ports, decoded from a vCPU's kvm_run page.

Floor: abi. A page is read once: 104 bytes of it, and a port's data. The offsets are those of
x86-64, and of arm64 for KVM_EXIT_MEMORY_FAULT. Pure functions but for the answers, which write into
the caller's page.

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
    bad_byte,
    conversions,
    copied,
    negative,
    part,
    register,
    write_at,
)
from pysharedpages.abi.kvm import numbers as kvm
from pysharedpages.abi.kvm.hypercall import MapGpaRange, map_gpa_range
from pysharedpages.abi.kvm.memory import MemoryAttributes
from pysharedpages.errors import RangeError

__all__ = ["Exit", "Hypercall", "MemoryFault", "MsrRead", "MsrWrite", "PortIo", "decode_exit"]

_REASON: Final = struct.Struct("<I")
_HYPERCALL: Final = struct.Struct("<7Q")
_MSR: Final = struct.Struct("<B7xIIQ")
_FAULT: Final = struct.Struct("<3Q")
_IO: Final = struct.Struct("<BBHIQ")
_PORT_BYTES: Final = (1, 2, 4)
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


@dataclass(frozen=True, slots=True)
class PortIo:
    """An access to an I/O port: `count` values of `size` bytes, which lie in the page at `offset`.

    `data` is what the guest writes, None where it reads.
    """

    port: int
    size: int
    count: int
    offset: int
    data: bytes | None

    def answer(self, run: Any, data: bytes) -> None:
        """Give the guest what it reads, in a writable kvm_run page.

        RangeError for another number of bytes than it reads: none where it writes.
        """
        wanted = self.size * self.count if self.data is None else 0
        if len(data) != wanted:
            raise RangeError(f"{len(data)} bytes for port {self.port:#x}: the guest reads {wanted}")
        write_at(run, self.offset, data)


def decode_exit(
    run: Any, errno: int = 0
) -> MapGpaRange | Hypercall | MemoryFault | MsrWrite | MsrRead | PortIo | Exit | None:
    """What a kvm_run page says after KVM_RUN, which returned 0 or failed with `errno`.

    After a failure the page means something only if `errno` is EFAULT or EHWPOISON and the exit
    is KVM_EXIT_MEMORY_FAULT, which never comes without one; None otherwise: nothing is reported.

    Raises FormatError for a page too short, an unknown reason of an MSR exit, an access to a port
    that no CPU makes or whose data lies beyond the page, unknown flags of a fault, or one that is
    empty or misaligned; RangeError for a fault at pages from 2^52 on.
    """
    page = copied(run, kvm.RUN_READ_BYTES, kvm.RUN_READ_BYTES, "a kvm_run page")
    (reason,) = _REASON.unpack_from(page, kvm.RUN_EXIT_REASON)
    if errno:
        faulted = errno in (kvm.EFAULT, kvm.EHWPOISON) and reason == kvm.KVM_EXIT_MEMORY_FAULT
        return _memory_fault(page) if faulted else None
    if reason == kvm.KVM_EXIT_X86_WRMSR:
        return MsrWrite(*_msr(page))
    if reason == kvm.KVM_EXIT_IO:
        return _port_io(run, page)
    if reason == kvm.KVM_EXIT_HYPERCALL:
        return _hypercall(page)
    if reason == kvm.KVM_EXIT_X86_RDMSR:
        index, _, why = _msr(page)
        return MsrRead(index, why)
    if reason == kvm.KVM_EXIT_MEMORY_FAULT:
        raise bad_byte(kvm.RUN_EXIT_REASON, "a memory fault, but KVM_RUN did not fail")
    return Exit(reason)


def _hypercall(page: bytes) -> MapGpaRange | Hypercall:
    number, *arguments = _HYPERCALL.unpack_from(page, kvm.RUN_EXIT)
    if number == kvm.KVM_HC_MAP_GPA_RANGE:
        return map_gpa_range(*arguments[:3])
    return Hypercall(number, (arguments[0], arguments[1], arguments[2], arguments[3]))


def _port_io(run: Any, page: bytes) -> PortIo:
    direction, size, port, count, offset = _IO.unpack_from(page, kvm.RUN_EXIT)
    if direction not in (kvm.KVM_EXIT_IO_IN, kvm.KVM_EXIT_IO_OUT):
        raise bad_byte(kvm.RUN_EXIT, f"{direction} is no direction of a port's access")
    if size not in _PORT_BYTES:
        raise bad_byte(kvm.RUN_EXIT + 1, f"a port of {size} bytes: there are {_PORT_BYTES}")
    if not count:
        raise bad_byte(kvm.RUN_EXIT + 4, "an access to a port of no values")
    data = part(run, offset, offset + size * count)
    if len(data) < size * count:
        raise bad_byte(kvm.RUN_EXIT + 8, f"data of a port at {offset:#x}, beyond the page")
    return PortIo(port, size, count, offset, data if direction == kvm.KVM_EXIT_IO_OUT else None)


def _msr(page: bytes) -> tuple[int, int, int]:
    """The MSR's index, the data written to it, and why the exit was made."""
    _, reason, index, data = _MSR.unpack_from(page, kvm.RUN_EXIT)
    if not reason or reason & ~_MSR_REASONS:
        raise bad_byte(kvm.RUN_EXIT + 8, f"{reason:#x} is no reason of an MSR exit")
    return index, data, reason


def _memory_fault(page: bytes) -> MemoryFault:
    flags, gpa, size = _FAULT.unpack_from(page, kvm.RUN_EXIT)
    if flags & ~kvm.KVM_MEMORY_EXIT_FLAG_PRIVATE:
        raise bad_byte(kvm.RUN_EXIT, f"{flags:#x} has unknown flags of a memory fault")
    if gpa % PAGE_SIZE:
        raise bad_byte(kvm.RUN_EXIT + 8, f"a fault at {gpa:#x}, which is in a page")
    if size % PAGE_SIZE or not size:
        raise bad_byte(kvm.RUN_EXIT + 16, f"a fault of {size:#x} bytes, not whole pages")
    if (gpa + size) >> PAGE_SHIFT > GFN_LIMIT:
        raise RangeError(f"a fault at {gpa:#x} of {size:#x} bytes ends above 2^64")
    return MemoryFault(gpa, size, not flags)
