"""The KVM ioctls that sources and tests use: numbers, layouts, and errors with the call's name.

Pure but for `call`, which is stateless; safe in any thread. x86-64 and AArch64 share the numbers.

Source: include/uapi/linux/kvm.h; Documentation/virt/kvm/api.rst, sections 4 (calls), 5 (the
kvm_run structure), 7.26 (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) and 8.29 (dirty rings).
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from pysharedpages.errors import SharedPagesError

PAGE_SIZE: Final = 4096
API_VERSION: Final = 12

KVM_GET_API_VERSION: Final = 0xAE00
KVM_CREATE_VM: Final = 0xAE01
KVM_CHECK_EXTENSION: Final = 0xAE03
KVM_GET_VCPU_MMAP_SIZE: Final = 0xAE04
KVM_GET_SUPPORTED_CPUID: Final = 0xC008AE05
KVM_CREATE_VCPU: Final = 0xAE41
KVM_GET_DIRTY_LOG: Final = 0x4010AE42
KVM_SET_USER_MEMORY_REGION: Final = 0x4020AE46
KVM_RUN: Final = 0xAE80
KVM_GET_REGS: Final = 0x8090AE81
KVM_SET_REGS: Final = 0x4090AE82
KVM_GET_SREGS: Final = 0x8138AE83
KVM_SET_SREGS: Final = 0x4138AE84
KVM_SET_SIGNAL_MASK: Final = 0x4004AE8B
KVM_SET_CPUID2: Final = 0x4008AE90
KVM_ENABLE_CAP: Final = 0x4068AEA3
KVM_CLEAR_DIRTY_LOG: Final = 0xC018AEC0
KVM_X86_SET_MSR_FILTER: Final = 0x4188AEC6
KVM_RESET_DIRTY_RINGS: Final = 0xAEC7

KVM_CAP_NR_MEMSLOTS: Final = 10
KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: Final = 168
KVM_CAP_X86_USER_SPACE_MSR: Final = 188
KVM_CAP_X86_MSR_FILTER: Final = 189
KVM_CAP_DIRTY_LOG_RING: Final = 192
KVM_CAP_EXIT_HYPERCALL: Final = 201
KVM_CAP_DIRTY_LOG_RING_ACQ_REL: Final = 223

KVM_EXIT_IO: Final = 2
KVM_EXIT_HYPERCALL: Final = 3
KVM_EXIT_HLT: Final = 5
KVM_EXIT_INTR: Final = 10
KVM_EXIT_X86_WRMSR: Final = 30
KVM_EXIT_DIRTY_RING_FULL: Final = 31

KVM_MEM_LOG_DIRTY_PAGES: Final = 1
KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE: Final = 1
KVM_DIRTY_LOG_PAGE_OFFSET: Final = 64
KVM_HC_MAP_GPA_RANGE: Final = 12
KVM_MAP_GPA_RANGE_ENCRYPTED: Final = 1 << 4
KVM_MSR_EXIT_REASON_FILTER: Final = 1 << 2
KVM_MSR_FILTER_WRITE: Final = 1 << 1

DIRTY_LOG: Final = struct.Struct("=IIQ")
"""struct kvm_dirty_log: slot, padding, the bitmap's address."""

CLEAR_DIRTY_LOG: Final = struct.Struct("=IIQQ")
"""struct kvm_clear_dirty_log: slot, num_pages, first_page, the bitmap's address."""

MEMORY_REGION: Final = struct.Struct("=IIQQQ")
"""struct kvm_userspace_memory_region: slot, flags, guest address, bytes, our address."""

_ENABLE_CAP: Final = struct.Struct("=II4Q64x")


def call(fd: int, request: int, argument: int | bytes | bytearray = 0) -> int:
    """The ioctl `request`, a number of this module; OSError with its name. Releases the GIL.

    A bytearray comes back as the kernel left it; bytes are for calls that only read.
    """
    changeable = bytearray(argument) if isinstance(argument, bytes) else argument
    try:
        return fcntl.ioctl(fd, request, changeable)
    except OSError as error:
        raise OSError(error.errno, f"{name_of(request)}: {error.strerror}") from error


def name_of(request: int) -> str:
    """The name of an ioctl of this module."""
    names = (name for name, value in globals().items() if value == request and value > 0xAE00)
    return next(names, f"ioctl {request:#x}")


def extension(fd: int, capability: int) -> int:
    """What KVM_CHECK_EXTENSION says on a VM's descriptor, or on that of /dev/kvm."""
    return call(fd, KVM_CHECK_EXTENSION, capability)


def enable(fd: int, capability: int, argument: int) -> None:
    """KVM_ENABLE_CAP with one argument; OSError where KVM refuses."""
    call(fd, KVM_ENABLE_CAP, _ENABLE_CAP.pack(capability, 0, argument, 0, 0, 0))


def refused(what: str, error: OSError) -> SharedPagesError:
    """The library's error for a call that KVM refused."""
    return SharedPagesError(f"{what}: {error.strerror or os.strerror(error.errno or 0)}")
