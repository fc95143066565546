# tier: unit
"""Plans of KVM_SET_MEMORY_ATTRIBUTES calls: literals, and every page of small guests."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from abi_support import spelt
from hypothesis import given
from model import ranges

from pysharedpages import PageSet, RangeError, SharedPages
from pysharedpages.abi import attributes, kvm

PRIVATE = 8


def of(*spans: tuple[int, int]) -> PageSet:
    """A set of half-open ranges."""
    return PageSet.from_ranges(ranges(*spans))


def calls(before: PageSet, after: PageSet, memory: PageSet | None = None) -> list[tuple[int, ...]]:
    """A plan as (address, size, attributes, flags)."""
    return [tuple(each) for each in attributes.plan(before, after, memory).tolist()]


NOTHING: list[tuple[int, ...]] = []


@pytest.mark.parametrize(
    ("before", "after", "plan"),
    [
        ([], [], NOTHING),
        ([(1, 2)], [(1, 2)], NOTHING),
        ([], [(1, 2)], [(0x1000, 0x1000, 0, 0)]),
        ([(1, 2)], [], [(0x1000, 0x1000, PRIVATE, 0)]),
        ([(0, 512)], [], [(0, 0x200000, PRIVATE, 0)]),
        ([(0, 10)], [(0, 3), (5, 10)], [(0x3000, 0x2000, PRIVATE, 0)]),
        ([(2, 4)], [(0, 8)], [(0, 0x2000, 0, 0), (0x4000, 0x4000, 0, 0)]),
        # Neighbours that change in opposite ways.
        ([(0, 4)], [(4, 8)], [(0, 0x4000, PRIVATE, 0), (0x4000, 0x4000, 0, 0)]),
        (
            [(0, 2), (4, 6)],
            [(2, 4)],
            [(0, 0x2000, 8, 0), (0x2000, 0x2000, 0, 0), (0x4000, 0x2000, 8, 0)],
        ),
        # Booting a guest of 24 TiB: all but its bounce buffer.
        (
            [(0, 0x180000000)],
            [(0x40000, 0x80000)],
            [(0, 0x40000000, 8, 0), (0x80000000, 0x17FF80000000, 8, 0)],
        ),
        ([(2**52 - 2, 2**52 - 1)], [], [(2**64 - 0x2000, 0x1000, PRIVATE, 0)]),
        ([(2**52 - 1, 2**52)], [(2**52 - 1, 2**52)], NOTHING),
    ],
)
def test_plans(
    before: list[tuple[int, int]], after: list[tuple[int, int]], plan: list[tuple[int, ...]]
) -> None:
    assert calls(of(*before), of(*after)) == plan
    back = [(address, size, old ^ PRIVATE, flags) for address, size, old, flags in plan]
    assert calls(of(*after), of(*before)) == back


def test_a_plan_s_entries_are_the_ioctl_s_arguments() -> None:
    table = attributes.plan(of((1, 3)), of((0x12345, 0x12346)))
    assert [each.tobytes() for each in table] == [
        spelt("0010000000000000_0020000000000000_0800000000000000_0000000000000000"),
        spelt("0050341200000000_0010000000000000_0000000000000000_0000000000000000"),
    ]
    assert attributes.ATTRIBUTES_DTYPE.itemsize == 32


def test_only_memory_is_named() -> None:
    memory = of((0, 4), (6, 8))
    assert calls(of((2, 7)), of(), memory) == [(0x2000, 0x2000, 8, 0), (0x6000, 0x1000, 8, 0)]
    assert calls(of(), of((4, 6)), memory) == NOTHING
    assert calls(of((2**52 - 1, 2**52)), of(), memory) == NOTHING


def test_the_last_page_cannot_be_named() -> None:
    for before, after in ((of((0, 2**52)), of()), (of(), of((2**52 - 1, 2**52)))):
        with pytest.raises(RangeError, match=str(2**52 - 1)):
            attributes.plan(before, after)


def test_snapshots_are_states_too() -> None:
    with SharedPages() as pages:
        before = pages.snapshot()
        pages.share(5, 3)
        assert calls(before, pages.snapshot()) == [(0x5000, 0x3000, 0, 0)]


@given(st.integers(0, 2**12 - 1), st.integers(0, 2**12 - 1), st.none() | st.integers(0, 2**12 - 1))
def test_a_plan_is_exact_and_the_shortest(before: int, after: int, mask: int | None) -> None:
    sets = [
        PageSet.from_pages(np.flatnonzero([x >> i & 1 for i in range(12)]).astype(np.uint64))
        for x in (before, after, mask or 0)
    ]
    plan = attributes.plan(sets[0], sets[1], None if mask is None else sets[2])
    changed = (before ^ after) & (0xFFF if mask is None else mask)
    state, touched = before, 0
    for each in plan:
        call = kvm.MemoryAttributes.decode(each.tobytes())
        assert call.status == 0
        span = (1 << call.size // 4096) - 1 << call.address // 4096
        assert not touched & span
        touched |= span
        state = state | span if call.shared else state & ~span
    assert (touched, state) == (changed, before ^ changed)
    # Each page that changes unlike the one before it needs a call of its own.
    kinds = [(changed >> i & 1) * (1 + (after >> i & 1)) for i in range(12)]
    assert len(plan) == sum(k and k != p for k, p in zip(kinds, [0, *kinds], strict=False))
