"""The lines that are read, each as steps and as rows: the one place that knows an event's format.

Formats are those of QEMU's trace-events files (accel/kvm, target/i386/kvm, system) and of Linux's
trace headers (arch/x86/kvm/trace.h, include/trace/events/kvm.h). QEMU gives sizes in bytes, the
hypercall and the GHCB in pages of 4 KiB.

What the meanings refuse is what the platform would: KVM_HC_MAP_GPA_RANGE as in the kernel's
Documentation/virt/kvm/x86/hypercalls.rst, a page-state change as in the GHCB specification's MSR
protocol (request 0x014), KVM_EXIT_MEMORY_FAULT as in Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi.kvm import numbers as kvm
from pysharedpages.abi.snp import MSR_GHCB
from pysharedpages.abi.traces.rows import (
    BLOCK_DTYPE,
    DIRTY_DTYPE,
    EMPTY,
    PERMIT_DTYPE,
    REFUSED_DTYPE,
    TRACE_DTYPE,
    Batch,
    Origin,
    Refusal,
)
from pysharedpages.abi.traces.steps import Blank, Choice, End, Literal, Number, Step
from pysharedpages.abi.traces.text import Values

__all__ = ["FORMS", "Fields", "Form", "Where"]

_PAGE_SHIFT: Final = np.uint64(12)
_PAGE_MASK: Final = np.uint64(0xFFF)
_MAX_PAGES: Final = np.uint64(1 << 52)

_MAP_ENCRYPTED: Final = np.uint64(kvm.KVM_MAP_GPA_RANGE_ENCRYPTED)
_MAP_RESERVED: Final = np.uint64(2**64 - 0x20)
_FAULT_PRIVATE: Final = np.uint64(kvm.KVM_MEMORY_EXIT_FLAG_PRIVATE)
_PSC_REQUEST: Final = 0x014
_PSC_GFN: Final = np.uint64((1 << 40) - 1)
_PSC_OPERATION_SHIFT: Final = np.uint64(52)
_PSC_RESERVED_SHIFT: Final = np.uint64(56)
_PSC_PRIVATE: Final = 1
_PSC_SHARED: Final = 2

Fields = dict[str, Values]
Where = dict[str, NDArray[Any]]
"""The columns time, cpu, origin and line of rows to be."""

_Masks = dict[Refusal, NDArray[np.bool_]]


class Form(NamedTuple):
    """One event: its name, the steps after it, and what its fields mean."""

    origin: Origin
    steps: tuple[Step, ...]
    means: Callable[[Fields, Where], Batch]

    @property
    def name(self) -> bytes:
        """The event's name."""
        return self.origin.event.encode()

    @property
    def opening(self) -> bytes:
        """The first of the arguments: what tells an event from a mention of its name."""
        step = self.steps[OPENING]
        assert isinstance(step, Literal)
        return step.text


OPENING: Final = 2
"""Which step is the opening: the delimiter and blanks come before."""


def _rows(dtype: np.dtype[np.void], where: Where, **columns: Any) -> NDArray[np.void]:
    rows = np.zeros(len(where["line"]), dtype)
    for name, column in (where | columns).items():
        rows[name] = column
    return rows


def _at(where: Where, mask: NDArray[np.bool_]) -> Where:
    return {name: column[mask] for name, column in where.items()}


def _converted(
    start: Values, npages: Values, shared: NDArray[Any], where: Where, refusals: _Masks
) -> Batch:
    """Events where nothing refuses; else the first reason that does."""
    refusals = refusals | {
        Refusal.EMPTY: npages == 0,
        Refusal.WRAPS: npages > _MAX_PAGES - start,
    }
    reason = np.full(len(start), len(Refusal), np.uint8)
    for refusal, mask in reversed(refusals.items()):
        reason[mask] = refusal
    good = reason == len(Refusal)
    events = _rows(
        TRACE_DTYPE, _at(where, good), start=start[good], npages=npages[good], shared=shared[good]
    )
    refused = _rows(REFUSED_DTYPE, _at(where, ~good), reason=reason[~good])
    return EMPTY._replace(events=events, refused=refused)


def _map_refusals(attributes: Values) -> _Masks:
    """The page size in bits 3:0 is only a preference, whatever it says; bits 63:5 are reserved."""
    return {Refusal.RESERVED_BITS: (attributes & _MAP_RESERVED) != 0}


def _convert_memory(fields: Fields, where: Where) -> Batch:
    return _bytes_converted(fields["start"], fields["size"], fields["message"] == 1, where, {})


def _map_gpa_range(fields: Fields, where: Where) -> Batch:
    attributes = fields["attributes"]
    shared = (attributes & _MAP_ENCRYPTED) == 0
    refusals = _map_refusals(attributes)
    return _bytes_converted(fields["gpa"], fields["size"], shared, where, refusals)


def _memory_fault(fields: Fields, where: Where) -> Batch:
    flags = fields["flags"]
    refusals = {Refusal.RESERVED_BITS: (flags & ~_FAULT_PRIVATE) != 0}
    return _bytes_converted(fields["start"], fields["size"], flags == 0, where, refusals)


def _bytes_converted(
    start: Values, size: Values, shared: NDArray[Any], where: Where, refusals: _Masks
) -> Batch:
    unaligned = {Refusal.UNALIGNED: ((start | size) & _PAGE_MASK) != 0}
    return _converted(
        start >> _PAGE_SHIFT, size >> _PAGE_SHIFT, shared, where, unaligned | refusals
    )


def _hypercall(fields: Fields, where: Where) -> Batch:
    ours = fields["nr"] == kvm.KVM_HC_MAP_GPA_RANGE
    gpa, npages, attributes = (fields[name][ours] for name in ("a0", "a1", "a2"))
    unaligned = {Refusal.UNALIGNED: (gpa & _PAGE_MASK) != 0}
    shared = (attributes & _MAP_ENCRYPTED) == 0
    refusals = unaligned | _map_refusals(attributes)
    return _converted(gpa >> _PAGE_SHIFT, npages, shared, _at(where, ours), refusals)


def _page_state_change(value: Values, where: Where, refusals: _Masks) -> Batch:
    asked = (value & _PAGE_MASK) == _PSC_REQUEST
    where, value = _at(where, asked), value[asked]
    operation = (value >> _PSC_OPERATION_SHIFT) & np.uint64(0xF)
    refusals = {refusal: mask[asked] for refusal, mask in refusals.items()} | {
        Refusal.RESERVED_BITS: (value >> _PSC_RESERVED_SHIFT) != 0,
        Refusal.OPERATION: (operation != _PSC_PRIVATE) & (operation != _PSC_SHARED),
    }
    gfn = (value >> _PAGE_SHIFT) & _PSC_GFN
    return _converted(gfn, np.ones_like(gfn), operation == _PSC_SHARED, where, refusals)


def _msr(fields: Fields, where: Where) -> Batch:
    msr, data, faulted = fields["msr"], fields["data"], fields["outcome"] == 0
    ghcb = msr == MSR_GHCB
    batch = _page_state_change(data[ghcb], _at(where, ghcb), {Refusal.FAULT: faulted[ghcb]})
    control = msr == kvm.MSR_KVM_MIGRATION_CONTROL
    reason = np.where(faulted, Refusal.FAULT, Refusal.RESERVED_BITS)
    good, bad = (control & mask for mask in (~faulted & (data <= 1), faulted | (data > 1)))
    refused = _rows(REFUSED_DTYPE, _at(where, bad), reason=reason[bad])
    permits = _rows(PERMIT_DTYPE, _at(where, good), allowed=data[good])
    return Batch.joined([batch, EMPTY._replace(permits=permits, refused=refused)])


def _vmgexit(fields: Fields, where: Where) -> Batch:
    return _page_state_change(fields["ghcb_gpa"], where, {})


def _ring_push(fields: Fields, where: Where) -> Batch:
    columns = {name: fields[name] for name in ("slot", "offset", "ring")}
    return EMPTY._replace(dirty=_rows(DIRTY_DTYPE, where, **columns))


def _block_change(fields: Fields, where: Where) -> Batch:
    columns = {name: fields[name] for name in ("offset", "size", "before", "after")}
    return EMPTY._replace(blocks=_rows(BLOCK_DTYPE, where, **columns))


def _steps(delimiter: bytes, *steps: bytes | Step) -> tuple[Step, ...]:
    arguments = (Literal(step) if isinstance(step, bytes) else step for step in steps)
    return (Literal(delimiter), Blank(), *arguments, End())


_STATES: Final = (b"discarded", b"populated", b"mixture")

FORMS: Final = (
    Form(
        Origin.KVM_CONVERT_MEMORY,
        _steps(
            b" ", b"start 0x", Number("start"), b" size 0x", Number("size"), b" ",
            Choice("message", (b"shared_to_private", b"private_to_shared")),
        ),
        _convert_memory,
    ),
    Form(
        Origin.KVM_HC_MAP_GPA_RANGE,
        _steps(
            b" ", b"gpa 0x", Number("gpa"), b" size 0x", Number("size"),
            b" attributes 0x", Number("attributes"), b" flags 0x", Number("flags"),
        ),
        _map_gpa_range,
    ),
    Form(
        Origin.KVM_MEMORY_FAULT,
        _steps(
            b" ", b"start 0x", Number("start"), b" size 0x", Number("size"),
            b" flags 0x", Number("flags"),
        ),
        _memory_fault,
    ),
    Form(
        Origin.RAM_BLOCK_ATTRIBUTES_STATE_CHANGE,
        _steps(
            b" ", b"offset 0x", Number("offset"), b" size 0x", Number("size"),
            b" from '", Choice("before", _STATES), b"' to '", Choice("after", _STATES), b"'",
        ),
        _block_change,
    ),
    Form(
        Origin.KVM_HYPERCALL,
        _steps(
            b":", b"nr 0x", Number("nr"), b" a0 0x", Number("a0"), b" a1 0x", Number("a1"),
            b" a2 0x", Number("a2"), b" a3 0x", Number("a3"),
        ),
        _hypercall,
    ),
    Form(
        Origin.KVM_MSR,
        _steps(
            b":", b"msr_write ", Number("msr", bits=32), b" = 0x", Number("data"),
            Choice("outcome", (b" (#GP)", b"")),
        ),
        _msr,
    ),
    Form(
        Origin.KVM_VMGEXIT_MSR_PROTOCOL_ENTER,
        _steps(
            b":", b"vcpu ", Number("vcpu", base=10, bits=32),
            b", ghcb_gpa ", Number("ghcb_gpa", digits=16),
        ),
        _vmgexit,
    ),
    Form(
        Origin.KVM_DIRTY_RING_PUSH,
        _steps(
            b":", b"ring ", Number("ring", base=10, bits=31),
            b": dirty 0x", Number("dirty", bits=32), b" reset 0x", Number("reset", bits=32),
            b" slot ", Number("slot", base=10, bits=32), b" offset 0x", Number("offset"),
            b" (used ", Number("used", base=10, bits=32), b")",
        ),
        _ring_push,
    ),
)  # fmt: skip
"""Every event that is read."""
