"""KVM_X86_SET_MSR_FILTER: which accesses to MSRs KVM leaves to userspace.

Floor: abi. With KVM_MSR_EXIT_REASON_FILTER enabled (KVM_CAP_X86_USER_SPACE_MSR) an access that is
denied comes as KVM_EXIT_X86_RDMSR or ..._WRMSR; without, the guest takes a #GP. The MSRs of the
x2APIC, 0x800 to 0x8ff, are never filtered. Structures are checked as the kernel checks them:
`status` is the errno that it would fail with. Pure functions, safe in any thread.

Source: Documentation/virt/kvm/api.rst, KVM_X86_SET_MSR_FILTER; `kvm_vm_ioctl_set_msr_filter` and
`kvm_add_msr_filter` in arch/x86/kvm/x86.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from pysharedpages.abi._request import register, whole
from pysharedpages.abi.kvm import numbers as kvm
from pysharedpages.errors import RangeError

__all__ = ["MsrFilter", "MsrRange"]

_HEADER: Final = struct.Struct("<I4x")
_RANGE: Final = struct.Struct("<III4xQ")
_BYTES: Final = _HEADER.size + kvm.KVM_MSR_FILTER_MAX_RANGES * _RANGE.size
_ACCESSES: Final = kvm.KVM_MSR_FILTER_READ | kvm.KVM_MSR_FILTER_WRITE


@dataclass(frozen=True, slots=True)
class MsrRange:
    """MSRs [base, base + nmsrs), and the address of their bitmap: 1 allows an access, 0 denies it.

    `flags` names the accesses that are meant, KVM_MSR_FILTER_READ and ..._WRITE. The bitmap is
    whole words of 64 bits, little-endian. A range of 0 MSRs is none.
    """

    flags: int
    nmsrs: int
    base: int
    bitmap: int

    @property
    def status(self) -> int:
        """0, or EINVAL where KVM would refuse."""
        nbytes = (self.nmsrs + 63) // 64 * 8
        wrong = (
            not self.flags,
            self.flags & ~_ACCESSES,
            nbytes > kvm.KVM_MSR_FILTER_MAX_BITMAP_SIZE,
        )
        return kvm.EINVAL if self.nmsrs and any(wrong) else 0

    def _encode(self) -> bytes:
        return _RANGE.pack(
            register(self.flags, "flags", 32),
            register(self.nmsrs, "nmsrs", 32),
            register(self.base, "base", 32),
            register(self.bitmap, "bitmap"),
        )


@dataclass(frozen=True, slots=True)
class MsrFilter:
    """Up to 16 ranges, the first that has an MSR deciding, and what becomes of all other MSRs.

    No ranges at all take a filter away.
    """

    ranges: tuple[MsrRange, ...] = ()
    flags: int = kvm.KVM_MSR_FILTER_DEFAULT_ALLOW

    @property
    def status(self) -> int:
        """0, or EINVAL where KVM would refuse; RangeError is what `encode` raises."""
        empty = not any(each.nmsrs for each in self.ranges)
        wrong = (
            self.flags & ~kvm.KVM_MSR_FILTER_DEFAULT_DENY,
            empty and self.flags & kvm.KVM_MSR_FILTER_DEFAULT_DENY,
            any(each.status for each in self.ranges),
        )
        return kvm.EINVAL if any(wrong) else 0

    def encode(self) -> bytes:
        """`struct kvm_msr_filter` of a 64-bit kernel, 392 bytes.

        RangeError for more than 16 ranges, and for numbers that their fields have no room for.
        """
        most = kvm.KVM_MSR_FILTER_MAX_RANGES
        if len(self.ranges) > most:
            raise RangeError(f"{len(self.ranges)} ranges of MSRs: the most is {most}")
        head = _HEADER.pack(register(self.flags, "flags", 32))
        return (head + b"".join(each._encode() for each in self.ranges)).ljust(_BYTES, b"\0")

    @classmethod
    def decode(cls, data: Any) -> MsrFilter:
        """From 392 bytes; ranges of 0 MSRs are left out, padding is not looked at.

        FormatError for any other length.
        """
        taken = whole(data, _BYTES, "a kvm_msr_filter")
        (flags,) = _HEADER.unpack_from(taken)
        ranges = (MsrRange(*each) for each in _RANGE.iter_unpack(taken[_HEADER.size :]))
        return cls(tuple(each for each in ranges if each.nmsrs), flags)
