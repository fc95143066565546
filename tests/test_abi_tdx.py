# tier: unit
"""TDX MapGPA, from registers written by hand. Bit GPAW - 1, 47 or 51, is the shared bit."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from abi_support import PRIVATE, SHARED, U64_MAX, legal, register_flips, rows
from hypothesis import given

from pysharedpages import FormatError, RangeError, SharedPages
from pysharedpages.abi import tdx

INVALID_OPERAND = 0x8000000000000000
ALIGN_ERROR = 0x8000000000000002
SUBFUNC_UNSUPPORTED = 0x8000000000000003
S48, S52 = 0x800000000000, 0x8000000000000
registers = st.integers(0, U64_MAX) | st.sampled_from([0, 1, 0x1000, S48, S52, U64_MAX])


def request(r12: int, r13: int, gpaw: int = 48) -> tdx.MapGpa:
    """The call with its leaf filled in."""
    return tdx.decode_map_gpa(0, 0x10001, r12, r13, gpaw=gpaw)


@pytest.mark.parametrize(
    ("r12", "r13", "gpaw", "event"),
    [
        (0x0000000000001000, 0x1000, 48, (1, 1, PRIVATE)),
        (0x0000800000001000, 0x1000, 48, (1, 1, SHARED)),
        (0x0000800040000000, 0x200000, 48, (0x40000, 512, SHARED)),
        (0x0000000040000000, 0x40000000, 48, (0x40000, 0x40000, PRIVATE)),
        (0x00007FFFFFFFF000, 0x1000, 48, (0x7FFFFFFFF, 1, PRIVATE)),
        (0x0000FFFFFFFFF000, 0x1000, 48, (0x7FFFFFFFF, 1, SHARED)),
        (0x0000800000000000, 0x800000000000, 48, (0, 0x800000000, SHARED)),
        (0x0008000000001000, 0x3000, 52, (1, 3, SHARED)),
        (0x0000800000001000, 0x3000, 52, (0x800000001, 3, PRIVATE)),
        (0x000FFFFFFFFFF000, 0x1000, 52, (0x7FFFFFFFFF, 1, SHARED)),
        # 70 TiB of 64-bit MMIO in one call.
        (0x0000100000000000, 0x460000000000, 48, (0x100000000, 0x460000000, PRIVATE)),
    ],
)
def test_map_gpa(r12: int, r13: int, gpaw: int, event: tuple[int, int, int]) -> None:
    call = request(r12, r13, gpaw)
    assert (call.status, rows(call.events)) == (0, [event])
    assert call.answer() == (0, 0)
    assert call.trusted is False


@pytest.mark.parametrize(
    ("r12", "r13", "gpaw", "status"),
    [
        (0x1000, 0, 48, INVALID_OPERAND),  # nothing
        (0x7FFFFFFFF000, 0x2000, 48, INVALID_OPERAND),  # on both sides of the shared bit
        (0x0, 0x800000001000, 48, INVALID_OPERAND),
        (0x0, 0x1800000000000, 48, INVALID_OPERAND),  # from private on, around, to private
        (0xFFFFFFFFF000, 0x2000, 48, INVALID_OPERAND),  # leaves the guest's addresses
        (0x1000000000000, 0x1000, 48, INVALID_OPERAND),
        (0xFFFFFFFFFFFFF000, 0x2000, 48, INVALID_OPERAND),  # wraps
        (0x1000, U64_MAX, 48, INVALID_OPERAND),
        (0x8000000000000 - 0x1000, 0x2000, 52, INVALID_OPERAND),
        (0x10000000000000, 0x1000, 52, INVALID_OPERAND),
        (0x1001, 0x1000, 48, ALIGN_ERROR),
        (0x1000, 0x1001, 48, ALIGN_ERROR),
        (0x800000000800, 0x800, 48, ALIGN_ERROR),
        (0x7FFFFFFFFFFF, 2, 48, INVALID_OPERAND),  # what is wrong twice is no operand first
    ],
)
def test_map_gpa_that_is_wrong(r12: int, r13: int, gpaw: int, status: int) -> None:
    call = request(r12, r13, gpaw)
    assert rows(call.events) == []
    assert call.answer() == (status, r12)
    assert len(call.chunks()) == 0
    with pytest.raises(RangeError, match="done is 1"):
        call.answer(1)


def test_other_leaves() -> None:
    for r10, r11 in ((0, 0x10002), (0, 0), (1, 0x10001), (0, 0x100010001)):
        call = tdx.decode_map_gpa(r10, r11, 0x1000, 0x1000)
        assert (call.answer(), rows(call.events)) == ((SUBFUNC_UNSUPPORTED, 0x1000), [])


@pytest.mark.parametrize(
    ("done", "failed", "r10", "r11"),
    [
        (0, False, 1, 0x800040000000),  # RETRY where it began
        (1, False, 1, 0x800040001000),
        (512, False, 1, 0x800040200000),
        (1535, False, 1, 0x8000405FF000),
        (0, True, INVALID_OPERAND, 0x800040000000),
        (512, True, INVALID_OPERAND, 0x800040200000),
        (1536, False, 0, 0),
    ],
)
def test_partial_success(done: int, failed: bool, r10: int, r11: int) -> None:
    call = request(S48 | 0x40000000, 0x600000)
    assert call.answer(done, failed=failed) == (r10, r11)
    if done < 1536:
        assert call.done(r10, r11) == done
    rest = call.rest(r10, r11)
    if r10 == 1:
        assert rest is not None
        assert rows(rest.events) == [(0x40000 + done, 1536 - done, SHARED)]
        assert request(rest.gpa, rest.size) == rest
    else:
        assert rest is None


def test_a_failure_is_of_the_first_page_by_default() -> None:
    assert request(0x1000, 0x2000).answer(failed=True) == (INVALID_OPERAND, 0x1000)
    for done, failed in ((3, False), (-1, False), (2, True)):
        with pytest.raises(RangeError):
            request(0x1000, 0x2000).answer(done, failed=failed)


@pytest.mark.parametrize(
    ("r10", "r11"),
    [
        (1, 0x40000000),  # without the shared bit
        (1, 0x80003FFFF000),  # before the request
        (1, 0x800040600000),  # its end
        (1, 0x800040000800),  # within a page
        (1, 0),
        (1, U64_MAX),
        (INVALID_OPERAND, 0x800040600000),
        (INVALID_OPERAND, 0x800140000000),
        (2, 0x800040000000),
        (0x8000000000000001, 0x800040000000),
        (U64_MAX, 0x800040000000),
    ],
)
def test_answers_that_lie(r10: int, r11: int) -> None:
    call = request(S48 | 0x40000000, 0x600000)
    for read in (call.done, call.rest):
        with pytest.raises(FormatError, match=r"R1[01] is"):
            read(r10, r11)


def test_answers_that_convert_nothing() -> None:
    call = request(S48 | 0x40000000, 0x600000)
    assert call.done(ALIGN_ERROR, 0) == call.done(SUBFUNC_UNSUPPORTED, U64_MAX) == 0
    assert request(0x1000, 0).done(INVALID_OPERAND, 0x1000) == 0
    assert call.done(0, U64_MAX) == 1536


def test_chunks_are_what_kvm_makes_of_it() -> None:
    call = request(S48 | 0x40100000, 0x500000)
    assert rows(call.chunks()) == [
        (0x40100, 512, SHARED),
        (0x40300, 512, SHARED),
        (0x40500, 256, SHARED),
    ]
    assert rows(request(0x1000, 0x1000).chunks()) == [(1, 1, PRIVATE)]
    # Older QEMU took 64 MiB at a time.
    assert len(request(0, 1 << 40).chunks(64 << 20)) == 16384
    for most in (0, -4096, 4097):
        with pytest.raises(RangeError, match=str(most)):
            call.chunks(most)


def test_a_guest_that_is_always_told_to_retry_gets_there() -> None:
    with SharedPages() as pages:
        call: tdx.MapGpa | None = request(S48 | 0x1000, 0x5000)
        while call is not None:
            pages.apply(call.chunks(4096)[:1])
            call = call.rest(*call.answer(1))
        assert pages.get_list().tolist() == [[1, 6]]


def test_widths_and_registers() -> None:
    for gpaw in (47, 49, 64, 0):
        with pytest.raises(RangeError, match=str(gpaw)):
            request(0x1000, 0x1000, gpaw)
    for index in range(4):
        for value in (-1, 1 << 64):
            given = [0, 0x10001, 0, 0]
            given[index] = value
            with pytest.raises(RangeError, match="64 bits"):
                tdx.decode_map_gpa(*given)


def within(call: tdx.MapGpa) -> None:
    """Assert that events stay in the request, which lies below the shared bit."""
    legal(call.events, call.start, call.start + (call.size >> 12))
    legal(call.events, 0, 1 << call.gpaw - 13)


def test_damaged_registers() -> None:
    for flipped in register_flips(0, 0x10001, S48 | 0x40000000, 0x600000):
        for gpaw in (48, 52):
            within(tdx.decode_map_gpa(*flipped, gpaw=gpaw))


@given(registers, registers, st.sampled_from([48, 52]), registers, registers)
def test_any_registers(r12: int, r13: int, gpaw: int, r10: int, r11: int) -> None:
    call = request(r12, r13, gpaw)
    within(call)
    try:
        assert 0 <= call.done(r10, r11) <= call.npages
        rest = call.rest(r10, r11)
    except FormatError:
        return
    if rest is not None:
        within(rest)


@given(st.integers(0, 2**35 - 1), st.integers(1, 2**20), st.booleans(), st.data(), st.booleans())
def test_answers_round_trip(
    start: int, npages: int, shared: bool, data: st.DataObject, failed: bool
) -> None:
    npages = min(npages, 2**35 - start)
    call = request((S48 if shared else 0) | start << 12, npages << 12)
    done = data.draw(st.integers(0, npages - 1))
    assert call.done(*call.answer(done, failed=failed)) == done
    assert call.done(*call.answer()) == npages
