# tier: unit
"""Exits of a kvm_run page and KVM_HC_MAP_GPA_RANGE, from bytes written by hand.

Offsets are those of struct kvm_run on x86-64: exit_reason at 8; hypercall.nr at 32, args from 40,
ret at 88; msr.error at 32, reason at 40, index at 44, data at 48; memory_fault.flags at 32, gpa at
40, size at 48.
"""

from __future__ import annotations

import mmap
import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from abi_support import PRIVATE, SHARED, U64_MAX, bit_flips, legal, page, rows, spelt, truncations
from hypothesis import given

from pysharedpages import FormatError, RangeError, SharedPages
from pysharedpages.abi import kvm, snp
from pysharedpages.abi.kvm import numbers

RUN_BYTES = 2352
HYPERCALL = {8: "03000000", 32: "0c00000000000000"}
EINVAL, EAGAIN, EFAULT, EHWPOISON = 22, 11, 14, 133


def map_range(gpa: str, npages: str, attributes: str) -> bytearray:
    """A kvm_run page with the hypercall's arguments, eight bytes each in hex."""
    return page(RUN_BYTES, {**HYPERCALL, 40: gpa, 48: npages, 56: attributes})


MAP_GPA_RANGE = [
    # gpa, pages of 4 KiB, attributes; the event; bytes of a page
    ("0010000000000000", "0100000000000000", "0000000000000000", (0x1, 1, SHARED), 4096),
    ("0050341200000000", "0100000000000000", "1000000000000000", (0x12345, 1, PRIVATE), 4096),
    ("0000004000000000", "0002000000000000", "1100000000000000", (0x40000, 512, PRIVATE), 2 << 20),
    (
        "0000000000010000",
        "0000040000000000",
        "1200000000000000",
        (1 << 28, 1 << 18, PRIVATE),
        1 << 30,
    ),
    # A page size is a preference: the range is aligned to 4 KiB alone.
    ("00f01f0000000000", "0100000000000000", "0100000000000000", (0x1FF, 1, SHARED), 2 << 20),
    ("00f01f0000000000", "0300000000000000", "0200000000000000", (0x1FF, 3, SHARED), 1 << 30),
    # 24 TiB, as an E820 entry is marked private at boot: 6,442,450,944 pages in one call.
    ("0000000000000000", "0000008001000000", "1000000000000000", (0, 6442450944, PRIVATE), 4096),
    ("00f0ffffffffffff", "0100000000000000", "1000000000000000", ((1 << 52) - 1, 1, PRIVATE), 4096),
    ("0000000000000000", "0000000000001000", "0000000000000000", (0, 1 << 52, SHARED), 4096),
    # 0x8 is the ioctl's private bit, not the hypercall's: the pages become shared.
    ("0010000000000000", "0200000000000000", "0800000000000000", (0x1, 2, SHARED), 0),
    ("0010000000000000", "0200000000000000", "1300000000000000", (0x1, 2, PRIVATE), 0),
]


@pytest.mark.parametrize(("gpa", "npages", "attributes", "event", "size"), MAP_GPA_RANGE)
def test_map_gpa_range(
    gpa: str, npages: str, attributes: str, event: tuple[int, int, int], size: int
) -> None:
    run = map_range(gpa, npages, attributes)
    before = bytes(run)
    call = kvm.decode_exit(run)
    assert isinstance(call, kvm.MapGpaRange)
    assert (rows(call.events), call.status, call.page_size) == ([event], 0, size)
    assert run == before
    run[88:96] = spelt("ffffffffffffffff")
    call.answer(run)
    assert run == before


WRONG_RANGES = [
    ("0110000000000000", "0100000000000000", "0000000000000000"),  # gpa 0x1001
    ("0008000000000000", "0100000000000000", "1000000000000000"),  # gpa 0x800
    ("0010000000000000", "0000000000000000", "1000000000000000"),  # no pages
    ("00f0ffffffffffff", "0200000000000000", "1000000000000000"),  # one page past the end
    ("0010000000000000", "ffffffffffffffff", "1000000000000000"),  # wraps
    ("0000000000000000", "0100000000001000", "0000000000000000"),  # 2^52 + 1 pages
    ("0010000000000000", "0100000000000000", "2000000000000000"),  # bit 5 is reserved
    ("0010000000000000", "0100000000000000", "1000000000000080"),  # bit 63 too
    ("ffffffffffffffff", "ffffffffffffffff", "ffffffffffffffff"),
]


@pytest.mark.parametrize(("gpa", "npages", "attributes"), WRONG_RANGES)
def test_map_gpa_range_that_is_wrong_converts_nothing(
    gpa: str, npages: str, attributes: str
) -> None:
    run = map_range(gpa, npages, attributes)
    call = kvm.decode_exit(run)
    assert isinstance(call, kvm.MapGpaRange)
    assert (call.status, rows(call.events)) == (EINVAL, [])
    call.answer(run)
    assert run[88:96] == spelt("1600000000000000")
    call.answer(run, signed=True)
    assert run[88:96] == spelt("eaffffffffffffff")


@pytest.mark.parametrize(
    ("error", "signed", "ret"),
    [
        (0, False, "0000000000000000"),
        (0, True, "0000000000000000"),
        (EINVAL, False, "1600000000000000"),
        (EAGAIN, False, "0b00000000000000"),
        (EINVAL, True, "eaffffffffffffff"),
        (EAGAIN, True, "f5ffffffffffffff"),
        (1000, True, "18fcffffffffffff"),
        (12, True, "f4ffffffffffffff"),
    ],
)
def test_return_values(error: int, signed: bool, ret: str) -> None:
    run = map_range("0010000000000000", "0100000000000000", "1000000000000000")
    call = kvm.decode_exit(run)
    assert isinstance(call, kvm.MapGpaRange)
    call.answer(run, error, signed=signed)
    assert run[88:96] == spelt(ret)
    assert not any(run[96:])


def test_return_values_that_kvm_refuses() -> None:
    call = kvm.map_gpa_range(0x1000, 1, 0)
    for error in (1, 12, 1000, 95):
        with pytest.raises(RangeError, match=str(error)):
            call.result(error)
    with pytest.raises(RangeError, match="12 bits"):
        call.result(4096, signed=True)
    with pytest.raises(TypeError, match="read-only"):
        call.answer(bytes(RUN_BYTES))
    with pytest.raises(FormatError, match="byte 95"):
        call.answer(bytearray(95))


def test_a_hypercall_of_another_number() -> None:
    # KVM_HC_SEND_IPI is 10.
    run = page(RUN_BYTES, {8: "03000000", 32: "0a00000000000000", 40: "0100000000000000"})
    call = kvm.decode_exit(run)
    assert call == kvm.Hypercall(10, (1, 0, 0, 0))
    call.answer(run)
    assert run[88:96] == spelt("18fcffffffffffff")
    call.answer(run, 0)
    assert not any(run[88:96])


FAULTS = [
    # flags, gpa, size; the event; the argument of KVM_SET_MEMORY_ATTRIBUTES
    (
        ("0800000000000000", "0000008000000000", "0010000000000000"),
        (0x80000, 1, PRIVATE),
        "0000008000000000_0010000000000000_0800000000000000_0000000000000000",
    ),
    (
        ("0000000000000000", "0000e0fe00000000", "0000200000000000"),
        (0xFEE00, 512, SHARED),
        "0000e0fe00000000_0000200000000000_0000000000000000_0000000000000000",
    ),
    (
        ("0800000000000000", "00f0ffffffffff00", "0010000000000000"),
        (0xFFFFFFFFFFF, 1, PRIVATE),
        "00f0ffffffffff00_0010000000000000_0800000000000000_0000000000000000",
    ),
]


@pytest.mark.parametrize(("fields", "event", "argument"), FAULTS)
@pytest.mark.parametrize("errno", [EFAULT, EHWPOISON])
def test_memory_fault(
    fields: tuple[str, str, str], event: tuple[int, int, int], argument: str, errno: int
) -> None:
    flags, gpa, size = fields
    run = page(RUN_BYTES, {8: "27000000", 32: flags, 40: gpa, 48: size})
    fault = kvm.decode_exit(run, errno)
    assert isinstance(fault, kvm.MemoryFault)
    assert (rows(fault.events), fault.status) == ([event], 0)
    assert fault.answer() == spelt(argument)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({32: "0100000000000000", 48: "0010000000000000"}, "byte 32"),
        ({32: "1800000000000000", 48: "0010000000000000"}, "byte 32"),
        ({32: "0800000000000080", 48: "0010000000000000"}, "byte 32"),
        ({40: "0100000000000000", 48: "0010000000000000"}, "byte 40"),
        ({48: "0000000000000000"}, "byte 48"),
        ({48: "ff0f000000000000"}, "byte 48"),
    ],
)
def test_memory_fault_that_is_none(fields: dict[int, str], message: str) -> None:
    run = page(RUN_BYTES, {8: "27000000", **fields})
    with pytest.raises(FormatError, match=message):
        kvm.decode_exit(run, EFAULT)


def test_memory_fault_past_the_end() -> None:
    run = page(RUN_BYTES, {8: "27000000", 40: "00f0ffffffffffff", 48: "0020000000000000"})
    with pytest.raises(RangeError, match="0xfffffffffffff000"):
        kvm.decode_exit(run, EFAULT)


def test_the_page_is_stale_after_other_failures() -> None:
    fault = page(RUN_BYTES, {8: "27000000", 48: "0010000000000000"})
    for errno in (4, 11, 22):  # EINTR, EAGAIN, EINVAL
        assert kvm.decode_exit(fault, errno) is None
    with pytest.raises(FormatError, match="byte 8"):
        kvm.decode_exit(fault)
    call = map_range("0010000000000000", "0100000000000000", "1000000000000000")
    assert kvm.decode_exit(call, EFAULT) is None


def test_wrmsr() -> None:
    # A filtered write of a page state change, in the layout of the GHCB MSR: 0x12345 to shared.
    run = page(RUN_BYTES, {8: "1e000000", 40: "04000000", 44: "f04d564b", 48: "1450341200002000"})
    write = kvm.decode_exit(run)
    assert write == kvm.MsrWrite(0x4B564DF0, 0x0020000012345014, 4)
    assert rows(snp.decode_msr(write.data).events) == [(0x12345, 1, SHARED)]
    write.answer(run, fault=True)
    assert run[32:40] == spelt("0100000000000000")
    write.answer(run)
    assert run[32:40] == spelt("0000000000000000")


def test_rdmsr() -> None:
    run = page(RUN_BYTES, {8: "1d000000", 40: "02000000", 44: "084d564b"})
    read = kvm.decode_exit(run)
    assert read == kvm.MsrRead(0x4B564D08, 2)
    read.answer(run, 1)
    assert run[32] == 0 and run[48:56] == spelt("0100000000000000")
    read.answer(run, fault=True)
    assert run[32] == 1


@pytest.mark.parametrize("reason", ["00000000", "08000000", "04000080", "ffffffff"])
def test_reasons_of_an_msr_exit(reason: str) -> None:
    with pytest.raises(FormatError, match="byte 40"):
        kvm.decode_exit(page(RUN_BYTES, {8: "1e000000", 40: reason}))


PORTS = [
    # direction, size, port, count, where the data lies; what lies there; port, size, count, data
    ("01", "04", "1100", "01000000", "0010000000000000", "40e20100", (0x11, 4, 1)),
    ("01", "01", "f803", "03000000", "0010000000000000", "616263", (0x3F8, 1, 3)),
    ("01", "02", "ffff", "02000000", "fc1f000000000000", "01020304", (0xFFFF, 2, 2)),
    ("00", "04", "f80c", "01000000", "0010000000000000", "00000000", (0xCF8, 4, 1)),
    ("00", "01", "6000", "02000000", "fe1f000000000000", "0000", (0x60, 1, 2)),
]


@pytest.mark.parametrize(
    ("direction", "size", "port", "count", "where", "data", "fields"), PORTS, ids=range(5)
)
def test_ports(
    direction: str,
    size: str,
    port: str,
    count: str,
    where: str,
    data: str,
    fields: tuple[int, int, int],
) -> None:
    offset = int.from_bytes(spelt(where), "little")
    named = {8: "02000000", 32: direction, 33: size, 34: port, 36: count, 40: where}
    run = page(8192, {**named, offset: data})
    access = kvm.decode_exit(run)
    assert isinstance(access, kvm.PortIo)
    assert (access.port, access.size, access.count) == fields
    if direction == "01":
        assert access.data == spelt(data)
        with pytest.raises(RangeError, match="reads 0"):
            access.answer(run, b"x")
        return
    assert access.data is None
    given = bytes(range(1, 1 + len(spelt(data))))
    access.answer(run, given)
    assert run[offset : offset + len(given)] == given
    with pytest.raises(RangeError, match=f"reads {len(given)}"):
        access.answer(run, given[1:])


@pytest.mark.parametrize(
    ("fields", "offset"),
    [
        ({32: "02"}, 32),
        ({33: "00"}, 33),
        ({33: "03"}, 33),
        ({33: "08"}, 33),
        ({36: "00000000"}, 36),
        ({36: "02000000"}, 40),
        ({36: "ffffffff"}, 40),
        ({40: "ff1f000000000000"}, 40),
        ({40: "ffffffffffffffff"}, 40),
    ],
)
def test_ports_that_no_cpu_has(fields: dict[int, str], offset: int) -> None:
    good = {8: "02000000", 32: "01", 33: "02", 34: "1100", 36: "01000000", 40: "fe1f000000000000"}
    assert kvm.decode_exit(page(8192, good)) == kvm.PortIo(0x11, 2, 1, 0x1FFE, b"\0\0")
    with pytest.raises(FormatError, match=f"byte {offset}") as raised:
        kvm.decode_exit(page(8192, {**good, **fields}))
    assert raised.value.offset == offset


def test_other_exits() -> None:
    full = kvm.decode_exit(page(RUN_BYTES, {8: "1f000000"}))
    assert full == kvm.Exit(31) and full.ring_full
    halt = kvm.decode_exit(page(RUN_BYTES, {8: "05000000"}))
    assert halt == kvm.Exit(5) and not halt.ring_full


def test_the_capability_mask() -> None:
    head = "c9000000_00000000_0010000000000000"
    assert kvm.enable_exit_hypercall(12) == spelt(head) + bytes(88)
    assert kvm.enable_exit_hypercall() == spelt("c9000000") + bytes(100)
    assert kvm.hypercalls_of(0x1000) == (12,)
    assert kvm.hypercalls_of(0) == ()
    assert kvm.hypercalls_of(0x8000000000001401) == (0, 10, 12, 63)
    for number in (10, -1, 64):
        with pytest.raises(RangeError, match=str(number)):
            kvm.enable_exit_hypercall(number)
    with pytest.raises(RangeError, match="12"):
        kvm.enable_exit_hypercall(12, supported=0)


def test_any_buffer_is_read_and_none_is_kept() -> None:
    run = map_range("0010000000000000", "0100000000000000", "1000000000000000")
    spaced = np.zeros(RUN_BYTES * 2, np.uint8)
    spaced[::2] = np.frombuffer(run, np.uint8)
    mapped = mmap.mmap(-1, RUN_BYTES)
    mapped[:] = bytes(run)
    for buffer in (
        run,
        bytes(run),
        mapped,
        memoryview(run),
        np.frombuffer(run, np.uint8),
        spaced[::2],
    ):
        call = kvm.decode_exit(buffer)
        assert isinstance(call, kvm.MapGpaRange)
        assert rows(call.events) == [(1, 1, PRIVATE)]
    first = kvm.decode_exit(run)
    assert isinstance(first, kvm.MapGpaRange)
    run[40:48] = spelt("0090000000000000")
    assert rows(first.events) == [(1, 1, PRIVATE)]


def test_a_tracker_takes_the_events() -> None:
    with SharedPages() as pages:
        for gpa, npages, attributes, (start, count, shared), _ in MAP_GPA_RANGE:
            call = kvm.decode_exit(map_range(gpa, npages, attributes))
            assert isinstance(call, kvm.MapGpaRange)
            pages.apply(call.events)
            assert (start in pages) == (start + count - 1 in pages) == bool(shared)


def checked(run: bytes, errno: int) -> None:
    """Decode a page; only typed errors may come out, and events within the request."""
    try:
        found = kvm.decode_exit(run, errno)
    except (FormatError, RangeError):
        return
    if isinstance(found, kvm.MapGpaRange):
        gpa, npages = struct.unpack_from("<QQ", run, 40)
        legal(found.events, gpa >> 12, (gpa >> 12) + npages)
        found.answer(bytearray(run))
    elif isinstance(found, kvm.PortIo) and found.data is not None:
        assert len(found.data) == found.size * found.count <= len(run)
    elif isinstance(found, kvm.MemoryFault):
        gpa, size = struct.unpack_from("<QQ", run, 40)
        legal(found.events, gpa >> 12, gpa + size >> 12)


def test_damaged_pages() -> None:
    call = bytes(map_range("0050341200000000", "0100000000000000", "1000000000000000")[:104])
    fault = bytes(page(104, {8: "27000000", 32: "0800000000000000", 48: "0010000000000000"}))
    write = bytes(page(104, {8: "1e000000", 40: "04000000"}))
    for good, errno in ((call, 0), (fault, EFAULT), (write, 0)):
        assert kvm.decode_exit(good, errno) is not None
        for short in truncations(good):
            with pytest.raises(FormatError, match=f"ends at byte {len(short)}") as raised:
                kvm.decode_exit(short, errno)
            assert raised.value.offset == len(short)
        for flipped in bit_flips(good):
            checked(flipped, errno)


@given(
    st.binary(min_size=104, max_size=120),
    st.sampled_from([2, 3, 29, 30, 31, 39]),
    st.sampled_from([0, EFAULT]),
    st.sampled_from([12, 10]),
)
def test_any_page(data: bytes, reason: int, errno: int, number: int) -> None:
    checked(data, errno)
    fields = bytearray(data)
    struct.pack_into("<I", fields, 8, reason)
    checked(bytes(fields), errno)
    struct.pack_into("<Q", fields, 32, number)
    checked(bytes(fields), errno)


@given(st.integers(0, 2**52 - 1), st.integers(1, 2**52), st.sampled_from([0, 1, 2, 16, 17, 18]))
def test_any_arguments_round_trip(gfn: int, npages: int, attributes: int) -> None:
    run = bytearray(RUN_BYTES)
    struct.pack_into("<I", run, 8, 3)
    struct.pack_into("<4Q", run, 32, numbers.KVM_HC_MAP_GPA_RANGE, gfn << 12, npages, attributes)
    call = kvm.decode_exit(run)
    assert isinstance(call, kvm.MapGpaRange)
    fits = gfn + npages <= 2**52
    assert call.status == (0 if fits else EINVAL)
    assert rows(call.events) == ([(gfn, npages, int(attributes < 16))] if fits else [])


def test_registers_are_64_bits() -> None:
    for value in (-1, U64_MAX + 1):
        for arguments in ((value, 1, 0), (0, value, 0), (0, 1, value)):
            with pytest.raises(RangeError, match="64 bits"):
                kvm.map_gpa_range(*arguments)
