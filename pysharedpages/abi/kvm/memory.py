"""What a VMM tells KVM of a guest's memory: its slots, and which pages are private.

Floor: abi. Structures that go into ioctls, checked as the kernel checks them: `status` is the
errno that it would fail with, as far as the structure alone tells.

Source: Documentation/virt/kvm/api.rst, KVM_SET_USER_MEMORY_REGION, KVM_SET_USER_MEMORY_REGION2
and KVM_SET_MEMORY_ATTRIBUTES; `check_memory_region_flags`, `kvm_set_memory_region` and
`kvm_vm_ioctl_set_mem_attributes` in virt/kvm/kvm_main.c.
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
    U64_LIMIT,
    bad_byte,
    conversions,
    copied,
    register,
    whole,
)
from pysharedpages.abi.kvm import numbers as kvm
from pysharedpages.errors import RangeError

__all__ = ["MemoryAttributes", "MemorySlot", "slot_id", "split_slot"]

_REGION: Final = struct.Struct("<II3Q")
_REGION2: Final = struct.Struct("<II4QII112s")
_ATTRIBUTES: Final = struct.Struct("<4Q")


def slot_id(address_space: int, number: int) -> int:
    """The full id of a memory slot, `(address_space << 16) | number`."""
    return register(address_space, "address_space", 16) << 16 | register(number, "number", 16)


def split_slot(slot: int) -> tuple[int, int]:
    """(address space, number) of a full slot id."""
    slot = register(slot, "slot", 32)
    return slot >> 16, slot & 0xFFFF


@dataclass(frozen=True, slots=True)
class MemorySlot:
    """A memory slot: `size` bytes at `gpa`, mapped in this process at `address`.

    `guest_memfd` is None for the structure of 32 bytes, which has none, and holds the file
    descriptor that private pages come from in the one of 160 bytes.
    """

    slot: int
    flags: int
    gpa: int
    size: int
    address: int
    guest_memfd_offset: int = 0
    guest_memfd: int | None = None

    @property
    def status(self) -> int:
        """0, or EINVAL where KVM would refuse. A slot of 0 bytes deletes, and is legal."""
        guest_memfd = self.flags & kvm.KVM_MEM_GUEST_MEMFD
        # The kernel logs no private memory, and a slot that has such cannot be read-only.
        valid = kvm.KVM_MEM_GUEST_MEMFD if guest_memfd else kvm.KVM_MEM_LOG_DIRTY_PAGES
        if not guest_memfd:
            valid |= kvm.KVM_MEM_READONLY
        wrong = (
            self.flags & ~valid,
            guest_memfd and self.guest_memfd is None,
            (self.gpa | self.size | self.address) % PAGE_SIZE,
            self.gpa + self.size >= U64_LIMIT,
            self.size >> PAGE_SHIFT > kvm.KVM_MEM_MAX_NR_PAGES,
            guest_memfd and self.guest_memfd_offset % PAGE_SIZE,
            guest_memfd and self.guest_memfd_offset + self.size >= U64_LIMIT,
        )
        return kvm.EINVAL if any(wrong) else 0

    @property
    def entry(self) -> tuple[int, int, int]:
        """(slot, gfn, npages), as `GuestMemory` takes it."""
        return self.slot, self.gpa >> PAGE_SHIFT, self.size >> PAGE_SHIFT

    def encode(self) -> bytes:
        """The argument of KVM_SET_USER_MEMORY_REGION, 32 bytes, or of ..._REGION2, 160."""
        head = (
            register(self.slot, "slot", 32),
            register(self.flags, "flags", 32),
            register(self.gpa, "gpa"),
            register(self.size, "size"),
            register(self.address, "address"),
        )
        if self.guest_memfd is None:
            return _REGION.pack(*head)
        offset = register(self.guest_memfd_offset, "guest_memfd_offset")
        return _REGION2.pack(*head, offset, register(self.guest_memfd, "guest_memfd", 32), 0, b"")

    @classmethod
    def decode(cls, data: Any) -> MemorySlot:
        """The slot in either structure, told apart by length.

        FormatError for any other length, and for padding that is not zero.
        """
        taken = copied(data, _REGION2.size + 1, _REGION.size, "a memory slot")
        if len(taken) == _REGION.size:
            return cls(*_REGION.unpack(taken))
        taken = whole(taken, _REGION2.size, "a memory slot")
        *fields, pad1, pad2 = _REGION2.unpack(taken)
        if pad1 or any(pad2):
            raise bad_byte(_nonzero(taken, 44), "padding of a memory slot is not zero")
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class MemoryAttributes:
    """Which attributes the pages of [address, address + size) are to have, in bytes.

    The only one so far is KVM_MEMORY_ATTRIBUTE_PRIVATE. A new VM's memory is shared.
    """

    address: int
    size: int
    attributes: int
    flags: int = 0

    @property
    def status(self) -> int:
        """0, or EINVAL where KVM would refuse."""
        wrong = (
            self.flags,
            self.attributes & ~kvm.KVM_MEMORY_ATTRIBUTE_PRIVATE,
            not self.size,
            self.address + self.size >= U64_LIMIT,
            (self.address | self.size) % PAGE_SIZE,
        )
        return kvm.EINVAL if any(wrong) else 0

    @property
    def shared(self) -> bool:
        """Whether the pages become shared."""
        return not self.attributes & kvm.KVM_MEMORY_ATTRIBUTE_PRIVATE

    @property
    def events(self) -> NDArray[np.void]:
        """The conversion, or none where `status` is not 0."""
        npages = 0 if self.status else self.size >> PAGE_SHIFT
        return conversions([(self.address >> PAGE_SHIFT, npages, self.shared)])

    def encode(self) -> bytes:
        """The argument of KVM_SET_MEMORY_ATTRIBUTES, 32 bytes."""
        return _ATTRIBUTES.pack(
            register(self.address, "address"),
            register(self.size, "size"),
            register(self.attributes, "attributes"),
            register(self.flags, "flags"),
        )

    @classmethod
    def decode(cls, data: Any) -> MemoryAttributes:
        """From the 32 bytes of the ioctl's argument. FormatError for any other length."""
        return cls(*_ATTRIBUTES.unpack(whole(data, _ATTRIBUTES.size, "memory attributes")))

    @classmethod
    def of(cls, start: int, npages: int, shared: bool) -> MemoryAttributes:
        """For one event. RangeError where its pages or its end cannot be said in bytes."""
        if not 0 <= start < GFN_LIMIT or not 0 < npages < GFN_LIMIT - start:
            raise RangeError(f"{npages} pages from {start}: bytes end below 2^64, and there is one")
        attributes = 0 if shared else kvm.KVM_MEMORY_ATTRIBUTE_PRIVATE
        return cls(start << PAGE_SHIFT, npages << PAGE_SHIFT, attributes)


def _nonzero(data: bytes, start: int) -> int:
    return next(at for at in range(start, len(data)) if data[at])
