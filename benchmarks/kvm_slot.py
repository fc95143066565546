"""A real KVM's dirty log of one large memory slot that no vCPU writes to, for its cost alone.

Source of layouts: <linux/kvm.h>, Documentation/virt/kvm/api.rst 4.8 and 4.35.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from types import TracebackType
from typing import Final

import numpy as np
from workloads import Words

from pysharedpages.abi.kvm.numbers import (
    KVM_CREATE_VM,
    KVM_GET_DIRTY_LOG,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_SET_USER_MEMORY_REGION,
)

KVM: Final = "/dev/kvm"
MAP_NORESERVE: Final = 0x4000
PAGE_SIZE: Final = 4096


class KvmSlot:
    """A virtual machine with one slot of `npages` in dirty logging; memory is only reserved.

    OSError where the host has no KVM, or not the room.
    """

    def __init__(self, npages: int) -> None:
        self._words = np.zeros(npages // 64, np.uint64)
        self._memory = mmap.mmap(
            -1, npages * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        )
        kvm = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
        finally:
            os.close(kvm)
        first = ctypes.c_char.from_buffer(self._memory)
        region = (0, KVM_MEM_LOG_DIRTY_PAGES, 0, npages * PAGE_SIZE, ctypes.addressof(first))
        del first
        try:
            fcntl.ioctl(self._vm, KVM_SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", *region))
        except OSError:
            self.close()
            raise
        self._request = struct.pack("=IIQ", 0, 0, self._words.ctypes.data)

    def dirty_log(self) -> Words:
        """KVM_GET_DIRTY_LOG, into the same bitmap each time."""
        fcntl.ioctl(self._vm, KVM_GET_DIRTY_LOG, self._request)
        return self._words

    def close(self) -> None:
        """Ends the machine."""
        os.close(self._vm)
        self._memory.close()

    def __enter__(self) -> KvmSlot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
