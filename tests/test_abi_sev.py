# tier: unit
"""SEV and SEV-ES hypercalls and the migration MSR, from registers written by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from abi_support import PRIVATE, SHARED, U64_MAX, legal, page, register_flips, rows
from hypothesis import given

from pysharedpages import FormatError, RangeError
from pysharedpages.abi import kvm, sev

EINVAL, KVM_ENOSYS = 22, 1000
MINUS_EINVAL = 0xFFFFFFFFFFFFFFEA
MINUS_ENOSYS = 0xFFFFFFFFFFFFFC18
registers = st.integers(0, U64_MAX) | st.sampled_from([0, 1, 12, 0x1000, 1 << 52, U64_MAX])


@pytest.mark.parametrize(
    ("rbx", "rcx", "rdx", "event"),
    [
        # What Linux sends: 4 KiB, encrypted or not.
        (0x1000, 1, 0x00, (1, 1, SHARED)),
        (0x1000, 1, 0x10, (1, 1, PRIVATE)),
        (0x7FFFE000, 2, 0x00, (0x7FFFE, 2, SHARED)),
        (0x40000000, 512, 0x11, (0x40000, 512, PRIVATE)),
        (0x40000000, 0x40000, 0x02, (0x40000, 0x40000, SHARED)),
        (0, 0xA0, 0x10, (0, 0xA0, PRIVATE)),
        # An E820 entry of 24 TiB, above the hole below 4 GiB.
        (0x100000000, 6442450944, 0x10, (0x100000, 6442450944, PRIVATE)),
        (0xFFFFFFFFFFFFF000, 1, 0x00, (2**52 - 1, 1, SHARED)),
    ],
)
def test_map_gpa_range(rbx: int, rcx: int, rdx: int, event: tuple[int, int, int]) -> None:
    call = sev.decode_hypercall(12, rbx, rcx, rdx)
    assert (call.status, rows(call.events)) == (0, [event])
    assert call.answer() == 0
    assert call.answer(EINVAL) == MINUS_EINVAL


@pytest.mark.parametrize(
    ("rax", "rbx", "rcx", "rdx", "answer"),
    [
        (12, 0x1001, 1, 0x10, MINUS_EINVAL),
        (12, 0x1000, 0, 0x10, MINUS_EINVAL),
        (12, 0xFFFFFFFFFFFFF000, 2, 0x10, MINUS_EINVAL),
        (12, 0x1000, U64_MAX, 0, MINUS_EINVAL),
        (12, 0x1000, 1, 0x20, MINUS_EINVAL),
        (11, 0x1000, 1, 0x10, MINUS_ENOSYS),
        (0, 0x1000, 1, 0x10, MINUS_ENOSYS),
        (1 << 32 | 12, 0x1000, 1, 0x10, MINUS_ENOSYS),
    ],
)
def test_map_gpa_range_that_is_wrong(rax: int, rbx: int, rcx: int, rdx: int, answer: int) -> None:
    call = sev.decode_hypercall(rax, rbx, rcx, rdx)
    assert rows(call.events) == []
    assert call.answer() == answer


@pytest.mark.parametrize(
    ("rbx", "rcx", "rdx", "events", "answer"),
    [
        (0x1000, 1, 0, [(1, 1, SHARED)], 0),
        (0x1000, 1, 1, [(1, 1, PRIVATE)], 0),
        (0x12345000, 3, 0, [(0x12345, 3, SHARED)], 0),
        (0, 6442450944, 1, [(0, 6442450944, PRIVATE)], 0),
        # No pages are no error, and an address within a page is that page's.
        (0x1000, 0, 0, [], 0),
        (0x1FFF, 1, 0, [(1, 1, SHARED)], 0),
        (0xFFFFFFFFFFFFFFFF, 1, 1, [(2**52 - 1, 1, PRIVATE)], 0),
        (0xFFFFFFFFFFFFF000, 2, 1, [], MINUS_EINVAL),
        (0x1000, U64_MAX, 1, [], MINUS_EINVAL),
        # The attribute of the later hypercall is no status of the older.
        (0x1000, 1, 0x10, [], MINUS_EINVAL),
        (0x1000, 1, 2, [], MINUS_EINVAL),
    ],
)
def test_page_enc_status(
    rbx: int, rcx: int, rdx: int, events: list[tuple[int, int, int]], answer: int
) -> None:
    call = sev.decode_page_enc_status(12, rbx, rcx, rdx)
    assert rows(call.events) == events
    assert call.answer() == answer


def test_other_hypercalls_are_unknown_to_the_older_one_too() -> None:
    call = sev.decode_page_enc_status(5, 0x1000, 1, 0)
    assert (call.answer(), rows(call.events)) == (MINUS_ENOSYS, [])


@pytest.mark.parametrize(
    ("data", "ready", "status"),
    [(0, False, 0), (1, True, 0), (2, False, 1), (3, False, 1), (1 << 63, False, 1)],
)
def test_migration_control(data: int, ready: bool, status: int) -> None:
    control = sev.decode_migration_control(0x4B564D08, data)
    assert (control.ready, control.status) == (ready, status)
    if not status:
        assert control.encode() == data


def test_migration_control_from_an_exit() -> None:
    run = page(2352, {8: "1e000000", 40: "04000000", 44: "084d564b", 48: "0300000000000000"})
    write = kvm.decode_exit(run)
    assert isinstance(write, kvm.MsrWrite)
    control = sev.decode_migration_control(write.index, write.data)
    write.answer(run, fault=bool(control.status))
    assert (run[32], control.ready) == (1, False)
    with pytest.raises(FormatError, match="0x4b564d07"):
        sev.decode_migration_control(0x4B564D07, 1)
    with pytest.raises(RangeError, match="32 bits"):
        sev.decode_migration_control(1 << 32, 1)


def test_registers_are_64_bits() -> None:
    for decode in (sev.decode_hypercall, sev.decode_page_enc_status):
        for index in range(1, 4):
            for value in (-1, 1 << 64):
                registers = [12, 0, 0, 0]
                registers[index] = value
                with pytest.raises(RangeError, match="64 bits"):
                    decode(*registers)
        with pytest.raises(RangeError, match="64 bits"):
            decode(1 << 64, 0, 0, 0)


def test_damaged_registers() -> None:
    for decode in (sev.decode_hypercall, sev.decode_page_enc_status):
        for flipped in register_flips(12, 0x12345000, 3, 0):
            call = decode(*flipped)
            legal(call.events, flipped[1] >> 12, (flipped[1] >> 12) + flipped[2])


@given(registers, registers, registers, registers)
def test_any_registers(rax: int, rbx: int, rcx: int, rdx: int) -> None:
    for number in (rax, 12):
        for decode in (sev.decode_hypercall, sev.decode_page_enc_status):
            call = decode(number, rbx, rcx, rdx)
            legal(call.events, rbx >> 12, (rbx >> 12) + rcx)
            assert call.answer() in (0, MINUS_EINVAL, MINUS_ENOSYS)
