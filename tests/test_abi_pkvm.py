# tier: unit
"""pKVM's memory calls, from registers written by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from abi_support import PRIVATE, SHARED, U64_MAX, legal, register_flips, rows
from hypothesis import given

from pysharedpages import RangeError
from pysharedpages.abi import pkvm

HYP_MEMINFO, MEM_SHARE, MEM_UNSHARE = 0xC6000002, 0xC6000003, 0xC6000004
INVALID_PARAMETER = 0xFFFFFFFFFFFFFFFD
NOT_SUPPORTED = 0xFFFFFFFFFFFFFFFF
registers = st.integers(0, U64_MAX) | st.sampled_from([0, 0x1000, 0x10000, 1 << 52, U64_MAX])


@pytest.mark.parametrize(
    ("r0", "r1", "granule", "event"),
    [
        (MEM_SHARE, 0x80000000, 4096, (0x80000, 1, SHARED)),
        (MEM_UNSHARE, 0x80000000, 4096, (0x80000, 1, PRIVATE)),
        (MEM_SHARE, 0x80004000, 16384, (0x80004, 4, SHARED)),
        (MEM_UNSHARE, 0x80004000, 16384, (0x80004, 4, PRIVATE)),
        (MEM_SHARE, 0x80010000, 65536, (0x80010, 16, SHARED)),
        (MEM_UNSHARE, 0x80010000, 65536, (0x80010, 16, PRIVATE)),
        (MEM_SHARE, 0, 4096, (0, 1, SHARED)),
        (MEM_SHARE, 0xFFFFFFFFFF000, 4096, (0xFFFFFFFFFF, 1, SHARED)),
        (MEM_UNSHARE, 0xFFFFFFFFF0000, 65536, (0xFFFFFFFFF0, 16, PRIVATE)),
        # The function is W0, the lower half of R0.
        (0xFFFFFFFFC6000003, 0x1000, 4096, (1, 1, SHARED)),
    ],
)
def test_sharing(r0: int, r1: int, granule: int, event: tuple[int, int, int]) -> None:
    call = pkvm.decode_hvc(r0, r1, 0, 0, granule=granule)
    assert (call.status, rows(call.events), call.answer()) == (0, [event], 0)
    # The hypervisor knows that the granule is shared already.
    assert call.answer(pkvm.INVALID_PARAMETER) == INVALID_PARAMETER


@pytest.mark.parametrize(
    ("r1", "r2", "r3", "granule"),
    [
        (0x80000800, 0, 0, 4096),
        (0x80000001, 0, 0, 4096),
        (0x80001000, 0, 0, 16384),
        (0x80004000, 0, 0, 65536),
        (0x80000000, 1, 0, 4096),
        (0x80000000, 0, 1 << 63, 4096),
        (0x10000000000000, 0, 0, 4096),  # 2^52
        (U64_MAX - 4095, 0, 0, 4096),
    ],
)
@pytest.mark.parametrize("r0", [MEM_SHARE, MEM_UNSHARE])
def test_sharing_that_is_wrong(r0: int, r1: int, r2: int, r3: int, granule: int) -> None:
    call = pkvm.decode_hvc(r0, r1, r2, r3, granule=granule)
    assert (rows(call.events), call.answer()) == ([], INVALID_PARAMETER)


@pytest.mark.parametrize("granule", [4096, 16384, 65536])
def test_meminfo_tells_the_granule(granule: int) -> None:
    call = pkvm.decode_hvc(HYP_MEMINFO, 0, 0, 0, granule=granule)
    assert (rows(call.events), call.answer()) == ([], granule)
    for arguments in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        wrong = pkvm.decode_hvc(HYP_MEMINFO, *arguments, granule=granule)
        assert wrong.answer() == INVALID_PARAMETER


@pytest.mark.parametrize("r0", [0, 0x86000000, 0xC6000001, 0xC6000005, 0xC6000007, 0x84000000])
def test_other_functions(r0: int) -> None:
    call = pkvm.decode_hvc(r0, 0x1000, 0, 0)
    assert (rows(call.events), call.answer()) == ([], NOT_SUPPORTED)


def test_addresses_have_a_width() -> None:
    assert pkvm.decode_hvc(MEM_SHARE, 0xFFFFFFF000, 0, 0, ipa_bits=40).status == 0
    assert pkvm.decode_hvc(MEM_SHARE, 0x10000000000, 0, 0, ipa_bits=40).status == -3
    for ipa_bits in (31, 53):
        with pytest.raises(RangeError, match=str(ipa_bits)):
            pkvm.decode_hvc(MEM_SHARE, 0, 0, 0, ipa_bits=ipa_bits)


def test_granules_and_errors_that_pkvm_does_not_have() -> None:
    for granule in (0, 1, 8192, 2 << 20):
        with pytest.raises(RangeError, match=str(granule)):
            pkvm.decode_hvc(MEM_SHARE, 0, 0, 0, granule=granule)
    with pytest.raises(RangeError, match="22"):
        pkvm.decode_hvc(MEM_SHARE, 0, 0, 0).answer(22)
    for index in range(4):
        for value in (-1, 1 << 64):
            given = [MEM_SHARE, 0, 0, 0]
            given[index] = value
            with pytest.raises(RangeError, match="64 bits"):
                pkvm.decode_hvc(*given)


def within(call: pkvm.GranuleChange, r1: int) -> None:
    """Assert that events stay within the granule named."""
    legal(call.events, r1 >> 12, (r1 + call.granule) >> 12)
    assert len(call.events) <= 1


def test_damaged_registers() -> None:
    for granule in (4096, 16384, 65536):
        for flipped in register_flips(MEM_SHARE, 0x80010000, 0, 0):
            within(pkvm.decode_hvc(*flipped, granule=granule), flipped[1])


@given(
    st.sampled_from([MEM_SHARE, MEM_UNSHARE, HYP_MEMINFO]) | registers,
    registers,
    registers,
    registers,
    st.sampled_from([4096, 16384, 65536]),
)
def test_any_registers(r0: int, r1: int, r2: int, r3: int, granule: int) -> None:
    for reserved in ((r2, r3), (0, 0)):
        call = pkvm.decode_hvc(r0, r1, *reserved, granule=granule)
        within(call, r1)
        assert call.answer() in (0, granule, INVALID_PARAMETER, NOT_SUPPORTED)
