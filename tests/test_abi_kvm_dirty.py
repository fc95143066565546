# tier: unit
"""Dirty logs and dirty rings: structures written by hand, and KVM's rules of alignment."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from abi_support import bit_flips, spelt, truncations
from hypothesis import given

from pysharedpages import RING_DTYPE, DirtyLog, FormatError, GuestMemory, RangeError, SharedPages
from pysharedpages.abi import kvm

EINVAL = 22

# slot, padding, address
GET = [
    ((0, 0), "00000000_00000000_0000000000000000"),
    ((3, 0x7F0000001000), "03000000_00000000_00100000007f0000"),
    ((0x10002, 0x7FFFFFFFF000), "02000100_00000000_00f0ffffff7f0000"),
    ((0xFFFFFFFF, 2**64 - 1), "ffffffff_00000000_ffffffffffffffff"),
]
# slot, num_pages, first_page, address
CLEAR = [
    ((0, 64, 0, 0), "00000000_40000000_0000000000000000_0000000000000000"),
    ((2, 64, 128, 0x1000), "02000000_40000000_8000000000000000_0010000000000000"),
    (
        (0x10005, 0x7FFFFFFF, 0, 0x7F0000001000),
        "05000100_ffffff7f_0000000000000000_00100000007f0000",
    ),
    ((1, 0, 2**32, 8), "01000000_00000000_0000000001000000_0800000000000000"),
]


@pytest.mark.parametrize(("fields", "text"), GET)
def test_get_dirty_log(fields: tuple[int, int], text: str) -> None:
    assert kvm.GetDirtyLog(*fields).encode() == spelt(text)
    assert kvm.GetDirtyLog.decode(spelt(text)) == kvm.GetDirtyLog(*fields)


@pytest.mark.parametrize(("fields", "text"), CLEAR)
def test_clear_dirty_log(fields: tuple[int, int, int, int], text: str) -> None:
    assert kvm.ClearDirtyLog(*fields).encode() == spelt(text)
    assert kvm.ClearDirtyLog.decode(spelt(text)) == kvm.ClearDirtyLog(*fields)


def test_damaged_structures() -> None:
    good = spelt(GET[1][1])
    for short in truncations(good):
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            kvm.GetDirtyLog.decode(short)
    for flipped in bit_flips(good, 4, 8):
        with pytest.raises(FormatError, match="byte 4"):
            kvm.GetDirtyLog.decode(flipped)
    with pytest.raises(FormatError, match="byte 16"):
        kvm.GetDirtyLog.decode(good + b"\0")
    clear = spelt(CLEAR[1][1])
    for short in truncations(clear):
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            kvm.ClearDirtyLog.decode(short)
    with pytest.raises(FormatError, match="byte 24"):
        kvm.ClearDirtyLog.decode(clear * 2)
    for call in (kvm.GetDirtyLog(2**32, 0), kvm.GetDirtyLog(0, 2**64), kvm.GetDirtyLog(-1, 0)):
        with pytest.raises(RangeError, match="bits"):
            call.encode()
    for wide in ((0, 2**32, 0, 0), (0, 0, 2**64, 0), (0, 0, 0, -1)):
        with pytest.raises(RangeError, match="bits"):
            kvm.ClearDirtyLog(*wide).encode()


@pytest.mark.parametrize(
    ("first", "num", "slot_pages", "status"),
    [
        (0, 64, 64, 0),
        (0, 64, 1000, 0),
        (64, 64, 1000, 0),
        (960, 40, 1000, 0),  # the last pages need no multiple of 64
        (0, 1000, 1000, 0),
        (1024, 0, 1024, 0),
        (0, 0, 1000, 0),
        (960, 64, 1000, EINVAL),  # beyond the slot
        (960, 39, 1000, EINVAL),  # ends neither at 64 nor with the slot
        (0, 63, 1000, EINVAL),
        (32, 64, 1000, EINVAL),
        (1, 999, 1000, EINVAL),
        (1024, 0, 1000, EINVAL),
        (64, 2**32 - 1, 1000, EINVAL),
        (2**64 - 64, 64, 1000, EINVAL),
    ],
)
def test_the_64_page_rules(first: int, num: int, slot_pages: int, status: int) -> None:
    assert kvm.ClearDirtyLog(0, num, first, 0).status(slot_pages) == status


@pytest.mark.parametrize(
    ("start", "stop", "slot_pages", "first", "num", "bytes_on"),
    [
        (0, 1, 1000, 0, 64, 0),
        (63, 65, 1000, 0, 128, 0),
        (64, 128, 1000, 64, 64, 8),
        (970, 971, 1000, 960, 40, 120),
        (999, 1000, 1000, 960, 40, 120),
        (0, 1000, 1000, 0, 1000, 0),
        (5, 5, 1000, 0, 0, 0),
        (1000, 1000, 1000, 960, 0, 120),
        (2**31 - 2, 2**31 - 1, 2**31 - 1, 2**31 - 64, 63, 2**28 - 8),
    ],
)
def test_the_smallest_legal_call(
    start: int, stop: int, slot_pages: int, first: int, num: int, bytes_on: int
) -> None:
    call = kvm.ClearDirtyLog.covering(7, start, stop, slot_pages, 0x1000)
    assert call == kvm.ClearDirtyLog(7, num, first, 0x1000 + bytes_on)
    assert call.status(slot_pages) == 0


def test_calls_for_pages_that_a_slot_does_not_have() -> None:
    for start, stop, npages in ((0, 11, 10), (-1, 1, 10), (5, 4, 10), (0, 1, 2**31), (0, 0, -1)):
        with pytest.raises(RangeError):
            kvm.ClearDirtyLog.covering(0, start, stop, npages, 0)


@pytest.mark.parametrize(
    ("npages", "size"),
    [(0, 0), (1, 8), (64, 8), (65, 16), (1000, 128), (2**28, 2**25), (2**31 - 1, 2**28)],
)
def test_bytes_of_a_bitmap(npages: int, size: int) -> None:
    assert kvm.bitmap_bytes(npages) == size


def test_a_slot_has_at_most_2_31_pages_but_one() -> None:
    for npages in (2**31, -1):
        with pytest.raises(RangeError, match=str(npages)):
            kvm.bitmap_bytes(npages)


RING = (
    "01000000_00000000_0500000000000000"  # dirty, slot 0, page 5
    "01000000_02000100_8967452301000000"  # dirty, address space 1 slot 2, page 0x123456789
    "00000000_00000000_0000000000000000"  # not filled yet
    "02000000_00000000_0600000000000000"  # harvested, to be reset
)


def listed(data: str, fetch: int = 0) -> list[tuple[int, int]]:
    """The entries to harvest as (slot, offset)."""
    entries = kvm.dirty_entries(kvm.decode_ring(spelt(data)), fetch)
    assert entries.dtype == RING_DTYPE
    return [(int(each["slot"]), int(each["offset"])) for each in entries]


def test_a_ring_is_harvested_in_order_up_to_the_first_that_is_not_dirty() -> None:
    assert listed(RING) == [(0, 5), (0x10002, 0x123456789)]
    assert listed(RING, 1) == [(0x10002, 0x123456789)]
    assert listed(RING, 2) == listed(RING, 3) == []
    assert listed(RING, 4) == listed(RING, 4 + 2**40) == [(0, 5), (0x10002, 0x123456789)]
    assert listed("") == []


def test_a_ring_wraps() -> None:
    last = "01000000_00000000_0700000000000000"
    assert listed(RING[: 3 * 34] + last, 3) == [(0, 7), (0, 5), (0x10002, 0x123456789)]
    assert listed(last * 3, 5) == [(0, 7)] * 3


def test_a_ring_entry_that_is_dirty_and_to_be_reset_is_not_harvested_again() -> None:
    assert listed("03000000_00000000_0700000000000000") == []


def test_ring_entries_reach_a_dirty_log() -> None:
    log = DirtyLog(GuestMemory([(0, 100, 10), (0x10002, 0, 2**31 - 1)]))
    log.add_ring(kvm.dirty_entries(kvm.decode_ring(spelt(RING[:34])), 0))
    with SharedPages() as pages, log.take() as harvest:
        assert pages.snapshot().merge(harvest).private.tolist() == [[105, 106]]


def test_damaged_rings() -> None:
    good = spelt(RING)
    for short in truncations(good):
        if len(short) % 16:
            with pytest.raises(FormatError, match=str(len(short))):
                kvm.decode_ring(short)
        else:
            assert len(kvm.decode_ring(short)) == len(short) // 16
    with pytest.raises(FormatError, match="byte 16"):
        kvm.decode_ring(good[:16] + spelt("04000000") + good[20:])
    with pytest.raises(FormatError, match="byte 48"):
        kvm.decode_ring(good[:48] + spelt("01000080") + good[52:])
    with pytest.raises(RangeError, match="-1"):
        kvm.dirty_entries(kvm.decode_ring(good), -1)


def test_a_ring_is_copied() -> None:
    ring = bytearray(spelt(RING))
    entries = kvm.decode_ring(ring)
    ring[:] = bytes(len(ring))
    assert entries["flags"].tolist() == [1, 1, 0, 2]


@given(st.binary(max_size=80), st.integers(0, 10))
def test_any_ring(data: bytes, fetch: int) -> None:
    try:
        entries = kvm.decode_ring(data)
    except FormatError:
        return
    taken = kvm.dirty_entries(entries, fetch)
    assert len(taken) <= len(entries)
    assert (taken["flags"] == 1).all()


@given(st.integers(1, 5000), st.data())
def test_any_covering_call_is_legal(slot_pages: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, slot_pages))
    stop = data.draw(st.integers(start, slot_pages))
    call = kvm.ClearDirtyLog.covering(0, start, stop, slot_pages, 0)
    assert call.status(slot_pages) == 0
    if start < stop:
        assert call.first_page <= start and stop <= call.first_page + call.num_pages
