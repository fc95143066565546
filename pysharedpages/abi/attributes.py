"""The KVM_SET_MEMORY_ATTRIBUTES calls that turn one state of a guest's pages into another.

Floor: abi. KVM has no way to ask for attributes, and guest_memfd may clear pages whose attribute
is set again: calls name exactly the pages that change. Pure functions, safe in any thread.

Source: Documentation/virt/kvm/api.rst, KVM_SET_MEMORY_ATTRIBUTES.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet
from pysharedpages.abi._request import GFN_LIMIT, PAGE_SHIFT
from pysharedpages.abi.kvm.numbers import KVM_MEMORY_ATTRIBUTE_PRIVATE
from pysharedpages.errors import RangeError

__all__ = ["ATTRIBUTES_DTYPE", "plan"]

ATTRIBUTES_DTYPE: Final = np.dtype(
    [("address", "<u8"), ("size", "<u8"), ("attributes", "<u8"), ("flags", "<u8")]
)
"""struct kvm_memory_attributes of <linux/kvm.h>. 32 bytes; `table[i].tobytes()` is an argument."""


def plan(before: PageSet, after: PageSet, memory: PageSet | None = None) -> NDArray[np.void]:
    """The fewest calls that take shared pages `before` to `after`, by address.

    Returns (n,) ATTRIBUTES_DTYPE. Both are sets of shared pages; a new VM's memory is all shared.
    No call names a page whose state is the same before and after, or that is not in `memory`.
    Each is one maximal range of pages that change alike: fewer would name others. Time and memory
    are those of two set differences and their ranges.

    RangeError if the last page below 2^52 changes: KVM takes no range that ends at 2^64 bytes.
    """
    parts = []
    for changed, attributes in (
        (before - after, KVM_MEMORY_ATTRIBUTE_PRIVATE),
        (after - before, 0),
    ):
        kept = changed if memory is None else changed & memory
        ranges = kept.ranges()
        if len(ranges) and int(ranges[-1, 1]) == GFN_LIMIT:
            raise RangeError(f"gfn {GFN_LIMIT - 1} changes: its bytes end at 2^64")
        table = np.zeros(len(ranges), ATTRIBUTES_DTYPE)
        table["address"] = ranges[:, 0] << np.uint64(PAGE_SHIFT)
        table["size"] = ranges[:, 1] - ranges[:, 0] << np.uint64(PAGE_SHIFT)
        table["attributes"] = attributes
        parts.append(table)
    calls = np.concatenate(parts)
    return calls[np.argsort(calls["address"], kind="stable")]
