# tier: unit
"""KVM_ENABLE_CAP and KVM_X86_SET_MSR_FILTER, from bytes written by hand.

struct kvm_enable_cap: cap at 0, flags at 4, four arguments from 8, 104 bytes. struct
kvm_msr_filter: flags at 0, sixteen ranges from 8, 392 bytes; a range is flags, nmsrs, base, padding
and the address of the bitmap, 24 bytes.
"""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import pytest
from abi_support import bit_flips, page, truncations
from hypothesis import given

from pysharedpages import FormatError, RangeError
from pysharedpages.abi import kvm

ENABLE = [
    # What a VMM turns on, and the bytes.
    (kvm.EnableCap(201, (0x1000,)), {0: "c9000000", 8: "0010"}),
    (kvm.EnableCap(188, (4,)), {0: "bc000000", 8: "04"}),
    (kvm.EnableCap(168, (1,)), {0: "a8000000", 8: "01"}),
    (kvm.EnableCap(223, (65536,)), {0: "df000000", 8: "000001"}),
    (kvm.EnableCap(1, (1, 2, 3, 2**64 - 1)), {0: "01", 8: "01", 16: "02", 24: "03", 32: "ff" * 8}),
    (kvm.EnableCap(0xFFFFFFFF), {0: "ffffffff"}),
]


@pytest.mark.parametrize(("call", "fields"), ENABLE)
def test_enable_cap(call: kvm.EnableCap, fields: dict[int, str]) -> None:
    data = bytes(page(104, fields))
    assert call.encode() == data
    padded = (*call.arguments, 0, 0, 0, 0)[:4]
    assert kvm.EnableCap.decode(data) == kvm.EnableCap(call.capability, padded)


def test_enable_cap_that_is_wrong() -> None:
    for bad in (kvm.EnableCap(1, (0,) * 5), kvm.EnableCap(1 << 32), kvm.EnableCap(1, (-1,))):
        with pytest.raises(RangeError):
            bad.encode()
    data = bytes(page(104, {0: "c9"}))
    for length in (0, 3, 103, 105):
        with pytest.raises(FormatError) as raised:
            kvm.EnableCap.decode(data.ljust(105, b"\0")[:length])
        assert raised.value.offset == min(length, 104)
    with pytest.raises(FormatError, match="0x80") as raised:
        kvm.EnableCap.decode(bytes(page(104, {0: "c9", 4: "80"})))
    assert raised.value.offset == 4


WRITES = kvm.MsrRange(2, 64, 0x4B564DF0, 0x7FFF12345678)
FILTERS = [
    # A filter; its bytes by offset; the errno of KVM.
    (
        kvm.MsrFilter((WRITES,)),
        {8: "02000000_40000000_f04d564b_00000000_78563412ff7f0000"},
        0,
    ),
    (kvm.MsrFilter(), {}, 0),
    (kvm.MsrFilter((), 1), {0: "01000000"}, 22),
    (kvm.MsrFilter((WRITES,), 2), {0: "02", 8: "0200000040000000f04d564b0000000078563412ff7f"}, 22),
    (
        kvm.MsrFilter((kvm.MsrRange(1, 1, 0x10, 8), kvm.MsrRange(3, 12288, 0xC0000000, 16)), 1),
        {
            0: "01000000",
            8: "01000000_01000000_10000000_00000000_0800000000000000",
            32: "03000000_00300000_000000c0_00000000_1000000000000000",
        },
        0,
    ),
    (kvm.MsrFilter((kvm.MsrRange(3, 12289, 0, 0),)), {8: "03", 12: "0130"}, 22),
    (kvm.MsrFilter((kvm.MsrRange(0, 1, 0, 0),)), {12: "01"}, 22),
    (kvm.MsrFilter((kvm.MsrRange(4, 1, 0, 0),)), {8: "04", 12: "01"}, 22),
    (kvm.MsrFilter((kvm.MsrRange(2, 0xFFFFFFFF, 0, 0),)), {8: "02", 12: "ffffffff"}, 22),
    (
        kvm.MsrFilter((kvm.MsrRange(2, 1, 1, 1),) * 16),
        {8: "020000000100000001000000000000000100000000000000" * 16},
        0,
    ),
]


@pytest.mark.parametrize(("made", "fields", "status"), FILTERS, ids=range(len(FILTERS)))
def test_msr_filter(made: kvm.MsrFilter, fields: dict[int, str], status: int) -> None:
    data = bytes(page(392, fields))
    assert made.encode() == data
    assert kvm.MsrFilter.decode(data) == made
    assert made.status == status


def test_ranges_of_no_msrs_are_none() -> None:
    empty = kvm.MsrRange(0, 0, 5, 5)
    assert empty.status == 0
    assert kvm.MsrFilter((empty,), 1).status == 22
    assert kvm.MsrFilter((empty, WRITES), 1).status == 0
    assert kvm.MsrFilter.decode(kvm.MsrFilter((empty, WRITES)).encode()).ranges == (WRITES,)


def test_msr_filter_that_has_no_room() -> None:
    with pytest.raises(RangeError, match="17 ranges"):
        kvm.MsrFilter((WRITES,) * 17).encode()
    changes: list[dict[str, int]] = [
        {"flags": 1 << 32}, {"nmsrs": 1 << 32}, {"base": -1}, {"bitmap": 1 << 64},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(RangeError, match=next(iter(change))):
            kvm.MsrFilter((dataclasses.replace(WRITES, **change),)).encode()
    with pytest.raises(RangeError, match="flags"):
        kvm.MsrFilter((), 1 << 32).encode()


def test_damaged_filters() -> None:
    data = kvm.MsrFilter((WRITES,), 1).encode()
    for short in (*truncations(data), data + b"\0"):
        with pytest.raises(FormatError) as raised:
            kvm.MsrFilter.decode(short)
        assert raised.value.offset == min(len(short), 392)
    for flipped in bit_flips(data, 0, 40):
        assert kvm.MsrFilter.decode(flipped).status in (0, 22)


@given(st.binary(min_size=392, max_size=392))
def test_any_filter_is_what_its_encoding_says(data: bytes) -> None:
    found = kvm.MsrFilter.decode(data)
    assert kvm.MsrFilter.decode(found.encode()) == found
