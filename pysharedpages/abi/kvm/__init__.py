"""KVM's own interface: exits, the hypercall that converts, dirty pages, slots and attributes.

Floor: abi. What a vCPU's kvm_run page says becomes a request with events; structures that go into
ioctls are encoded, decoded, and checked as the kernel checks them. Each file has its sources.
"""

from __future__ import annotations

from pysharedpages.abi.kvm import numbers
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
    decode_exit,
)
from pysharedpages.abi.kvm.hypercall import (
    MapGpaRange,
    enable_exit_hypercall,
    hypercalls_of,
    map_gpa_range,
)
from pysharedpages.abi.kvm.memory import MemoryAttributes, MemorySlot, slot_id, split_slot

__all__ = [
    "ClearDirtyLog",
    "Exit",
    "GetDirtyLog",
    "Hypercall",
    "MapGpaRange",
    "MemoryAttributes",
    "MemoryFault",
    "MemorySlot",
    "MsrRead",
    "MsrWrite",
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
