"""What lines of a trace become: rows of a few arrays, each with where and when it stood."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK_DTYPE",
    "DIRTY_DTYPE",
    "EMPTY",
    "NO_CPU",
    "NO_TIME",
    "PERMIT_DTYPE",
    "REFUSED_DTYPE",
    "TRACE_DTYPE",
    "Batch",
    "BlockState",
    "Origin",
    "Refusal",
]

NO_TIME: Final = -(2**63)
"""The time of a line that carries none; as `timedelta64` it is NaT."""

NO_CPU: Final = -1
"""The cpu of a line that carries none."""


class Origin(IntEnum):
    """The trace event that a line reports."""

    KVM_CONVERT_MEMORY = 0
    KVM_HC_MAP_GPA_RANGE = 1
    KVM_MEMORY_FAULT = 2
    RAM_BLOCK_ATTRIBUTES_STATE_CHANGE = 3
    KVM_HYPERCALL = 4
    KVM_MSR = 5
    KVM_VMGEXIT_MSR_PROTOCOL_ENTER = 6
    KVM_DIRTY_RING_PUSH = 7

    @property
    def event(self) -> str:
        """The event's own name, as it stands in a trace."""
        return self.name.lower()


class Refusal(IntEnum):
    """Why a well-formed request converts nothing: the platform refuses it."""

    UNALIGNED = 0
    EMPTY = 1
    WRAPS = 2
    RESERVED_BITS = 3
    OPERATION = 4
    FAULT = 5


class BlockState(IntEnum):
    """What QEMU holds of a range of a RAM block: private, shared, or some of each."""

    DISCARDED = 0
    POPULATED = 1
    MIXTURE = 2


_WHERE: Final = [("time", "<i8"), ("cpu", "<i4"), ("origin", "u1"), ("line", "<u8")]

TRACE_DTYPE: Final = np.dtype(
    [("start", "<u8"), ("npages", "<u8"), ("shared", "u1"), *_WHERE], align=True
)
"""One conversion, the fields of EVENT_DTYPE first; 48 bytes.

`start` and `npages` are in pages of 4 KiB. `time` is in nanoseconds of the trace's own clock, or
NO_TIME; `cpu` the host CPU that traced the line, or NO_CPU; `origin` an `Origin`; `line` counts
from 1. `rows[["start", "npages", "shared"]]` is what `SharedPages.apply` takes.
"""

DIRTY_DTYPE: Final = np.dtype(
    [("slot", "<u4"), ("offset", "<u8"), ("ring", "<u4"), *_WHERE], align=True
)
"""A page found dirty: the full slot id, the page within the slot, and the ring it was pushed to."""

BLOCK_DTYPE: Final = np.dtype(
    [("offset", "<u8"), ("size", "<u8"), ("before", "u1"), ("after", "u1"), *_WHERE], align=True
)
"""A range of a RAM block that changed state: bytes from the start of a block that the line does
not name, so it is no event on gfns. `before` and `after` are each a `BlockState`."""

PERMIT_DTYPE: Final = np.dtype([("allowed", "u1"), *_WHERE], align=True)
"""The guest wrote MSR_KVM_MIGRATION_CONTROL: `allowed` is what it wrote, 1 or 0."""

REFUSED_DTYPE: Final = np.dtype([("reason", "u1"), *_WHERE], align=True)
"""A request that the platform refuses, so that nothing is converted; `reason` is a `Refusal`."""


class Batch(NamedTuple):
    """What some lines said; each array is in the order of the lines."""

    events: NDArray[np.void]
    """Conversions, of TRACE_DTYPE."""
    dirty: NDArray[np.void]
    """Dirty pages, of DIRTY_DTYPE."""
    blocks: NDArray[np.void]
    """Changes within RAM blocks, of BLOCK_DTYPE."""
    permits: NDArray[np.void]
    """What the guest said of being migrated, of PERMIT_DTYPE."""
    refused: NDArray[np.void]
    """Requests that converted nothing, of REFUSED_DTYPE."""

    @classmethod
    def joined(cls, batches: list[Batch]) -> Batch:
        """All rows of the batches, in the order of their lines."""
        return cls(*map(_in_order, zip(*batches, strict=True))) if batches else EMPTY


def _in_order(parts: tuple[NDArray[np.void], ...]) -> NDArray[np.void]:
    some = [part for part in parts if len(part)]
    if not some:
        return parts[0]
    rows = np.concatenate(some) if len(some) > 1 else some[0]
    line = rows["line"]
    return rows if (line[1:] >= line[:-1]).all() else rows[np.argsort(line, kind="stable")]


EMPTY: Final = Batch(
    np.empty(0, TRACE_DTYPE),
    np.empty(0, DIRTY_DTYPE),
    np.empty(0, BLOCK_DTYPE),
    np.empty(0, PERMIT_DTYPE),
    np.empty(0, REFUSED_DTYPE),
)
"""No rows."""
