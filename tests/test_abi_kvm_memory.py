# tier: unit
"""Memory slots and memory attributes: structures written by hand, checked as the kernel does."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from abi_support import PRIVATE, SHARED, bit_flips, legal, rows, spelt, truncations
from hypothesis import given

from pysharedpages import FormatError, GuestMemory, RangeError
from pysharedpages.abi import kvm

EINVAL = 22
PAD = "00000000" + "00" * 112

SLOTS = [
    # slot, flags, guest_phys_addr, memory_size, userspace_addr
    (
        kvm.MemorySlot(0, 0, 0, 0x100000, 0x7F1200000000),
        "00000000_00000000_0000000000000000_0000100000000000_00000000127f0000",
    ),
    (
        kvm.MemorySlot(0x10003, 1, 0x100000000, 0x80000000, 0x1000),
        "03000100_01000000_0000000001000000_0000008000000000_0010000000000000",
    ),
    (
        kvm.MemorySlot(1, 3, 0x1000, 0, 0),
        "01000000_03000000_0010000000000000_0000000000000000_0000000000000000",
    ),
    # the same, and guest_memfd_offset, guest_memfd, padding
    (
        kvm.MemorySlot(2, 4, 0x40000000, 0x200000, 0x5000, 0x200000, 7),
        "02000000_04000000_0000004000000000_0000200000000000_0050000000000000"
        "_0000200000000000_07000000" + PAD,
    ),
    (
        kvm.MemorySlot(2, 1, 0x40000000, 0x200000, 0x5000, 0, 0),
        "02000000_01000000_0000004000000000_0000200000000000_0050000000000000"
        "_0000000000000000_00000000" + PAD,
    ),
]


@pytest.mark.parametrize(("slot", "text"), SLOTS)
def test_memory_slots(slot: kvm.MemorySlot, text: str) -> None:
    assert slot.encode() == spelt(text)
    assert kvm.MemorySlot.decode(spelt(text)) == slot
    assert slot.status == 0


@pytest.mark.parametrize(
    "slot",
    [
        kvm.MemorySlot(0, 8, 0, 0x1000, 0),  # an unknown flag
        kvm.MemorySlot(0, 4, 0, 0x1000, 0),  # guest memory without a file
        kvm.MemorySlot(0, 5, 0, 0x1000, 0, 0, 3),  # private memory is not logged
        kvm.MemorySlot(0, 6, 0, 0x1000, 0, 0, 3),  # nor read-only
        kvm.MemorySlot(0, 0, 0x800, 0x1000, 0),
        kvm.MemorySlot(0, 0, 0, 0x1001, 0),
        kvm.MemorySlot(0, 0, 0, 0x1000, 1),
        kvm.MemorySlot(0, 4, 0, 0x1000, 0, 0x10, 3),
        kvm.MemorySlot(0, 0, 0, 1 << 43, 0),  # 2^31 pages
        kvm.MemorySlot(0, 0, 2**64 - 0x1000, 0x1000, 0),
        kvm.MemorySlot(0, 0, 2**64 - 0x1000, 0x2000, 0),
        kvm.MemorySlot(0, 4, 0, 0x1000, 0, 2**64 - 0x1000, 3),
    ],
)
def test_memory_slots_that_kvm_refuses(slot: kvm.MemorySlot) -> None:
    assert slot.status == EINVAL


def test_slots_make_a_guest_s_memory() -> None:
    memory = GuestMemory([SLOTS[1][0].entry])
    assert list(memory) == [(0x10003, 0x100000, 0x80000)]
    assert kvm.MemorySlot(0, 0, 0, (2**31 - 1) << 12, 0).status == 0


def test_slot_ids() -> None:
    assert kvm.slot_id(0, 5) == 5
    assert kvm.slot_id(1, 2) == 0x10002
    assert kvm.slot_id(0xFFFF, 0xFFFF) == 0xFFFFFFFF
    assert kvm.split_slot(0x10002) == (1, 2)
    for pair in ((1 << 16, 0), (0, 1 << 16), (-1, 0)):
        with pytest.raises(RangeError, match="16 bits"):
            kvm.slot_id(*pair)
    with pytest.raises(RangeError, match="32 bits"):
        kvm.split_slot(1 << 32)


def test_damaged_slots() -> None:
    whole = spelt(SLOTS[3][1])
    for short in truncations(whole):
        if len(short) == 32:
            assert kvm.MemorySlot.decode(short).guest_memfd is None
            continue
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            kvm.MemorySlot.decode(short)
    with pytest.raises(FormatError, match="byte 160"):
        kvm.MemorySlot.decode(whole + b"\0")
    for at, flipped in enumerate(bit_flips(whole, 52)):
        with pytest.raises(FormatError, match=f"byte {52 + at // 8}:"):
            kvm.MemorySlot.decode(flipped)
    with pytest.raises(RangeError, match="flags"):
        kvm.MemorySlot(0, -1, 0, 0, 0).encode()


# address, size, attributes, flags
ATTRIBUTES = [
    (
        (0x1000, 0x1000, 8, 0),
        "0010000000000000_0010000000000000_0800000000000000_0000000000000000",
        (1, 1, PRIVATE),
    ),
    (
        (0, 0x200000, 0, 0),
        "0000000000000000_0000200000000000_0000000000000000_0000000000000000",
        (0, 512, SHARED),
    ),
    (
        (0x10000000000, 0x18000000000, 8, 0),
        "0000000000010000_0000000080010000_0800000000000000_0000000000000000",
        (1 << 28, 0x18000000, PRIVATE),
    ),
    (
        (2**64 - 0x2000, 0x1000, 0, 0),
        "00e0ffffffffffff_0010000000000000_0000000000000000_0000000000000000",
        (2**52 - 2, 1, SHARED),
    ),
]


@pytest.mark.parametrize(("fields", "text", "event"), ATTRIBUTES)
def test_memory_attributes(
    fields: tuple[int, int, int, int], text: str, event: tuple[int, int, int]
) -> None:
    call = kvm.MemoryAttributes(*fields)
    assert call.encode() == spelt(text)
    assert kvm.MemoryAttributes.decode(spelt(text)) == call
    assert (call.status, rows(call.events)) == (0, [event])
    start, npages, shared = event
    assert kvm.MemoryAttributes.of(start, npages, bool(shared)) == call


@pytest.mark.parametrize(
    "fields",
    [
        (0x1000, 0x1000, 8, 1),  # flags
        (0x1000, 0x1000, 0x10, 0),  # the hypercall's bit, not the attribute's
        (0x1000, 0x1000, 0xC, 0),
        (0x1000, 0, 8, 0),
        (0x1001, 0x1000, 8, 0),
        (0x1000, 0x800, 8, 0),
        (2**64 - 0x1000, 0x1000, 8, 0),  # ends at 2^64
        (2**64 - 0x1000, 0x2000, 8, 0),
    ],
)
def test_memory_attributes_that_kvm_refuses(fields: tuple[int, int, int, int]) -> None:
    call = kvm.MemoryAttributes(*fields)
    assert (call.status, rows(call.events)) == (EINVAL, [])


def test_events_that_no_call_can_name() -> None:
    for start, npages in ((2**52 - 1, 1), (0, 2**52), (0, 0), (-1, 1), (2**52, 1)):
        with pytest.raises(RangeError):
            kvm.MemoryAttributes.of(start, npages, True)


def test_damaged_attributes() -> None:
    good = spelt(ATTRIBUTES[0][1])
    for short in truncations(good):
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            kvm.MemoryAttributes.decode(short)
    for flipped in bit_flips(good):
        call = kvm.MemoryAttributes.decode(flipped)
        assert call.encode() == flipped
        legal(call.events)


@given(st.binary(min_size=32, max_size=32))
def test_any_attributes(data: bytes) -> None:
    call = kvm.MemoryAttributes.decode(data)
    assert call.encode() == data
    legal(call.events, call.address >> 12, call.address + call.size >> 12)


@given(st.binary(max_size=170))
def test_any_slot(data: bytes) -> None:
    try:
        slot = kvm.MemorySlot.decode(data)
    except FormatError:
        return
    assert slot.encode() == data
    assert slot.status in (0, EINVAL)
