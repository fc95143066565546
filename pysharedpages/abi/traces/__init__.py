"""Conversions and dirty pages out of trace text: QEMU's log, ftrace, trace-cmd and perf script.

| line | is |
|---|---|
| `kvm_convert_memory`, `kvm_hc_map_gpa_range`, `kvm_memory_fault` (QEMU, bytes) | a conversion |
| `kvm_hypercall` with nr 0xc (KVM_HC_MAP_GPA_RANGE, pages) | a conversion |
| `kvm_vmgexit_msr_protocol_enter`, `kvm_msr` of the GHCB MSR: request 0x014 | a conversion |
| `kvm_dirty_ring_push` | a dirty page of a slot |
| `ram_block_attributes_state_change` | a change at an offset of some RAM block: no gfn is known |
| `kvm_msr` of MSR_KVM_MIGRATION_CONTROL | whether the guest may be migrated |

A request that the platform refuses (unaligned, empty, past the last gfn, reserved bits, no such
operation, `(#GP)`) is reported as refused and converts nothing. One conversion may be traced more
than once on its way down, as a hypercall by the kernel and by QEMU and then as what QEMU does about
it; the repetition changes no page. `traces.stamps` lists the prefixes that carry a time. All other
lines are passed over. A line that is one of these events, but not as the tracer writes it, is
malformed.

Formats: QEMU's trace-events files; Linux's arch/x86/kvm/trace.h, include/trace/events/kvm.h.
"""

from __future__ import annotations

from pysharedpages.abi.traces.reader import LONGEST_LINE, TraceError, TraceReader, parse, read
from pysharedpages.abi.traces.rows import (
    BLOCK_DTYPE,
    DIRTY_DTYPE,
    NO_CPU,
    NO_TIME,
    PERMIT_DTYPE,
    REFUSED_DTYPE,
    TRACE_DTYPE,
    Batch,
    BlockState,
    Origin,
    Refusal,
)

__all__ = [
    "BLOCK_DTYPE",
    "DIRTY_DTYPE",
    "LONGEST_LINE",
    "NO_CPU",
    "NO_TIME",
    "PERMIT_DTYPE",
    "REFUSED_DTYPE",
    "TRACE_DTYPE",
    "Batch",
    "BlockState",
    "Origin",
    "Refusal",
    "TraceError",
    "TraceReader",
    "parse",
    "read",
]
