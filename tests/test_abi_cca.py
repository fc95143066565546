# tier: unit
"""CCA's RSI_IPA_STATE_SET, from registers written by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from abi_support import PRIVATE, SHARED, U64_MAX, legal, register_flips, rows
from hypothesis import given

from pysharedpages import FormatError, RangeError, SharedPages
from pysharedpages.abi import cca

IPA_STATE_SET = 0xC4000197
EMPTY, RAM, DESTROYED, DEV = 0, 1, 2, 3
registers = st.integers(0, U64_MAX) | st.sampled_from([0, 1, 0x1000, 1 << 47, 1 << 52, U64_MAX])


def request(base: int, top: int, ripas: int, flags: int = 0, ipa_bits: int = 48) -> cca.StateChange:
    """The call with its function filled in."""
    return cca.decode_ipa_state_set(IPA_STATE_SET, base, top, ripas, flags, ipa_bits=ipa_bits)


@pytest.mark.parametrize(
    ("base", "top", "ripas", "flags", "ipa_bits", "event"),
    [
        (0x80000000, 0x80001000, EMPTY, 1, 48, (0x80000, 1, SHARED)),
        (0x80000000, 0x80001000, RAM, 0, 48, (0x80000, 1, PRIVATE)),
        (0x80000000, 0x80200000, EMPTY, 0, 48, (0x80000, 512, SHARED)),
        (0x80001000, 0x80204000, RAM, 1, 48, (0x80001, 515, PRIVATE)),
        (0, 0x1000, RAM, 0, 48, (0, 1, PRIVATE)),
        (0, 0x800000000000, RAM, 0, 48, (0, 0x800000000, PRIVATE)),
        (0x7FFFFFFFF000, 0x800000000000, EMPTY, 0, 48, (0x7FFFFFFFF, 1, SHARED)),
        (0x100000000, 0x180000000, RAM, 1, 34, (0x100000, 0x80000, PRIVATE)),
        (0x7FFFF000, 0x80000000, EMPTY, 0, 32, (0x7FFFF, 1, SHARED)),
        (0, 0x8000000000000, RAM, 0, 52, (0, 0x8000000000, PRIVATE)),
        # 24 TiB at once.
        (0x8000000000, 0x188000000000, RAM, 0, 48, (0x8000000, 6442450944, PRIVATE)),
    ],
)
def test_state_changes(
    base: int,
    top: int,
    ripas: int,
    flags: int,
    ipa_bits: int,
    event: tuple[int, int, int],
) -> None:
    call = request(base, top, ripas, flags, ipa_bits)
    assert rows(call.events) == [event]
    assert call.change_destroyed is bool(flags)
    assert call.answer() == (0, top, 0)


@pytest.mark.parametrize(
    ("base", "top", "ripas", "flags", "ipa_bits"),
    [
        (0x1000, 0x1000, RAM, 0, 48),  # empty
        (0x2000, 0x1000, RAM, 0, 48),  # the top is no size
        (0x80000000, 0x1000, EMPTY, 0, 48),
        (0x1001, 0x3000, RAM, 0, 48),
        (0x1000, 0x3800, RAM, 0, 48),
        (0x7FFFFFFFF000, 0x800000001000, RAM, 0, 48),  # leaves the protected half
        (0x800000000000, 0x800000001000, EMPTY, 0, 48),  # the unprotected alias
        (0x80000000, 0x80001000, EMPTY, 0, 32),
        (0x1000, U64_MAX - 4095, RAM, 0, 52),
        (0x1000, 0x2000, DESTROYED, 0, 48),
        (0x1000, 0x2000, DEV, 0, 48),
        (0x1000, 0x2000, 1 << 63, 0, 48),
        (0x1000, 0x2000, RAM, 2, 48),
        (0x1000, 0x2000, RAM, 1 << 63, 48),
    ],
)
def test_state_changes_that_are_wrong(
    base: int, top: int, ripas: int, flags: int, ipa_bits: int
) -> None:
    call = request(base, top, ripas, flags, ipa_bits)
    assert (rows(call.events), call.answer()) == ([], (1, 0, 0))
    with pytest.raises(RangeError, match="done is 1"):
        call.answer(1)


@pytest.mark.parametrize("x0", [0, 0xC4000196, 0xC4000198, 0xC6000003])
def test_other_functions(x0: int) -> None:
    call = cca.decode_ipa_state_set(x0, 0x1000, 0x2000, RAM, 0)
    assert (rows(call.events), call.answer()) == ([], (U64_MAX, 0, 0))


@pytest.mark.parametrize(
    ("done", "rejected", "answer"),
    [
        (0, False, (0, 0x80000000, 0)),
        (1, False, (0, 0x80001000, 0)),
        (511, False, (0, 0x801FF000, 0)),
        (512, False, (0, 0x80200000, 0)),
        (0, True, (0, 0x80000000, 1)),
        (256, True, (0, 0x80100000, 1)),
    ],
)
def test_the_progress_pointer(done: int, rejected: bool, answer: tuple[int, int, int]) -> None:
    call = request(0x80000000, 0x80200000, EMPTY, 1)
    assert call.answer(done, rejected=rejected) == answer
    assert call.done(*answer) == done
    rest = call.rest(*answer)
    if rejected or done == 512:
        assert rest is None
    else:
        assert rest == request(0x80000000 + done * 4096, 0x80200000, EMPTY, 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((0, 0x7FFFF000, 0), "X1"),
        ((0, 0x80201000, 0), "X1"),
        ((0, 0x80000800, 0), "X1"),
        ((0, 0, 0), "X1"),
        ((0, U64_MAX, 1), "X1"),
        ((0, 0x80001000, 2), "X2"),
        ((0, 0x80001000, 1 << 63), "X2"),
    ],
)
def test_answers_that_lie(answer: tuple[int, int, int], message: str) -> None:
    call = request(0x80000000, 0x80200000, EMPTY)
    for read in (call.done, call.rest):
        with pytest.raises(FormatError, match=message):
            read(*answer)


def test_answers_that_fail_convert_nothing() -> None:
    call = request(0x80000000, 0x80200000, EMPTY)
    for status in (1, 2, 3, 4, U64_MAX):
        assert call.done(status, 0, 7) == 0
        assert call.rest(status, 0, 7) is None
    assert request(0x2000, 0x1000, RAM).done(0, 0, 0) == 0


def test_a_refusal_is_of_all_by_default() -> None:
    call = request(0x80000000, 0x80002000, RAM)
    assert call.answer(rejected=True) == (0, 0x80000000, 1)
    for done, rejected in ((3, False), (-1, False), (2, True)):
        with pytest.raises(RangeError):
            call.answer(done, rejected=rejected)


def test_a_realm_that_is_served_a_page_at_a_time_gets_there() -> None:
    with SharedPages() as pages:
        call: cca.StateChange | None = request(0x1000, 0x6000, EMPTY)
        while call is not None:
            pages.share(call.base >> 12)
            call = call.rest(*call.answer(1))
        assert pages.get_list().tolist() == [[1, 6]]


def test_widths_and_registers() -> None:
    for ipa_bits in (31, 53):
        with pytest.raises(RangeError, match=str(ipa_bits)):
            request(0, 0x1000, RAM, 0, ipa_bits)
    for index in range(5):
        for value in (-1, 1 << 64):
            given = [IPA_STATE_SET, 0, 0x1000, 1, 0]
            given[index] = value
            with pytest.raises(RangeError, match="64 bits"):
                cca.decode_ipa_state_set(*given)


def within(call: cca.StateChange, base: int, top: int, ipa_bits: int) -> None:
    """Assert that events stay in the request and in the protected half."""
    legal(call.events, base >> 12, top >> 12)
    legal(call.events, 0, 1 << ipa_bits - 13)


def test_damaged_registers() -> None:
    for flipped in register_flips(IPA_STATE_SET, 0x80000000, 0x80200000, EMPTY, 1):
        for ipa_bits in (40, 48, 52):
            call = cca.decode_ipa_state_set(*flipped, ipa_bits=ipa_bits)
            within(call, flipped[1], flipped[2], ipa_bits)


@given(registers, registers, registers, registers, st.integers(32, 52))
def test_any_registers(base: int, top: int, ripas: int, flags: int, ipa_bits: int) -> None:
    for state, flag in ((ripas, flags), (ripas & 1, flags & 1)):
        call = request(base, top, state, flag, ipa_bits)
        within(call, base, top, ipa_bits)
    try:
        assert 0 <= call.done(0, ripas, flags & 1) <= call.npages
    except FormatError:
        return


@given(st.integers(0, 2**35 - 1), st.integers(1, 2**20), st.data(), st.booleans())
def test_answers_round_trip(start: int, npages: int, data: st.DataObject, rejected: bool) -> None:
    top = min(start + npages, 2**35)
    call = request(start << 12, top << 12, RAM)
    done = data.draw(st.integers(0, top - start - 1))
    assert call.done(*call.answer(done, rejected=rejected)) == done
