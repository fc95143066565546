"""KVM's own interface: exits, the hypercall that converts, dirty pages, slots, attributes, and what
a VMM turns on for it.

Floor: abi. What a vCPU's kvm_run page says becomes a request with events; structures that go into
ioctls are encoded, decoded, and checked as the kernel checks them. Each file has its sources.
"""

from __future__ import annotations

from pysharedpages.abi.kvm import numbers
from pysharedpages.abi.kvm.capability import EnableCap
from pysharedpages.abi.kvm.dirty import (
    ClearDirtyLog,
    GetDirtyLog,
    bitmap_bytes,
    decode_ring,
    dirty_entries,
)
from pysharedpages.abi.kvm.exits import (
    Exit,
    Hypercall,
    MemoryFault,
    MsrRead,
    MsrWrite,
    PortIo,
    decode_exit,
)
from pysharedpages.abi.kvm.hypercall import (
    MapGpaRange,
    enable_exit_hypercall,
    hypercalls_of,
    map_gpa_range,
)
from pysharedpages.abi.kvm.memory import MemoryAttributes, MemorySlot, slot_id, split_slot
from pysharedpages.abi.kvm.msr_filter import MsrFilter, MsrRange

__all__ = [
    "ClearDirtyLog",
    "EnableCap",
    "Exit",
    "GetDirtyLog",
    "Hypercall",
    "MapGpaRange",
    "MemoryAttributes",
    "MemoryFault",
    "MemorySlot",
    "MsrFilter",
    "MsrRange",
    "MsrRead",
    "MsrWrite",
    "PortIo",
    "bitmap_bytes",
    "decode_exit",
    "decode_ring",
    "dirty_entries",
    "enable_exit_hypercall",
    "hypercalls_of",
    "map_gpa_range",
    "numbers",
    "slot_id",
    "split_slot",
]
