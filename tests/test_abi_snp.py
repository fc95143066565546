# tier: unit
"""SNP page state changes, from MSR values and buffers written by hand.

An entry is a little-endian word: cur_page in bits 11:0, gfn in 51:12, operation in 55:52 (1 is
private, 2 shared), 2 MiB in 56. A header is cur_entry and the inclusive end_entry, 2 bytes each,
and 4 reserved.
"""

from __future__ import annotations

import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from abi_support import (
    PRIVATE,
    SHARED,
    U64_MAX,
    bit_flips,
    legal,
    register_flips,
    rows,
    spelt,
    truncations,
)
from hypothesis import given

from pysharedpages import FormatError, RangeError, SharedPages
from pysharedpages.abi import snp

INVALID_HEADER = 0x0000000100000001
INVALID_ENTRY = 0x0000000100000002
GENERIC = 0x0000010000000000


@pytest.mark.parametrize(
    ("value", "event"),
    [
        (0x0010000012345014, (0x12345, 1, PRIVATE)),
        (0x0020000012345014, (0x12345, 1, SHARED)),
        (0x0010000000000014, (0, 1, PRIVATE)),
        (0x0020000000000014, (0, 1, SHARED)),
        (0x0020000000001014, (1, 1, SHARED)),
        (0x001000007FFFF014, (0x7FFFF, 1, PRIVATE)),
        (0x0020000100000014, (0x100000, 1, SHARED)),
        (0x0028000000000014, (0x8000000000, 1, SHARED)),
        (0x001FFFFFFFFFF014, (0xFFFFFFFFFF, 1, PRIVATE)),
        (0x002FFFFFFFFFF014, (0xFFFFFFFFFF, 1, SHARED)),
    ],
)
def test_msr(value: int, event: tuple[int, int, int]) -> None:
    request = snp.decode_msr(value)
    assert (request.status, rows(request.events)) == (0, [event])
    assert request.answer() == 0x0000000000000015
    assert request.answer(failed=True) == 0x8000000000000015
    assert request.encode() == value


@pytest.mark.parametrize(
    "value",
    [
        0x0000000012345014,  # operations 0, 3, 4 and 15
        0x0030000012345014,
        0x0040000012345014,
        0x00F0000012345014,
        0x0120000012345014,  # bit 56 is no page size here
        0x8010000012345014,
        0xFFFFFFFFFFFFF014,
    ],
)
def test_msr_that_is_wrong(value: int) -> None:
    request = snp.decode_msr(value)
    assert (request.answer(), rows(request.events)) == (0x8000000000000015, [])


@pytest.mark.parametrize("value", [0, 0x0020000012345015, 0x0020000012345012, 0x12345000, U64_MAX])
def test_msr_that_is_no_page_state_change(value: int) -> None:
    with pytest.raises(FormatError, match="byte 0"):
        snp.decode_msr(value)


VECTORS = [
    # name; the buffer; the events; the buffer when all is done
    (
        "one page private",
        "0000_0000_00000000 0050341200001000",
        [(0x12345, 1, PRIVATE)],
        "0100_0000_00000000 0150341200001000",
    ),
    (
        "one page shared",
        "0000_0000_00000000 0050341200002000",
        [(0x12345, 1, SHARED)],
        "0100_0000_00000000 0150341200002000",
    ),
    (
        "neighbours are one change",
        "0000_0200_00000000 0050000000002000 0060000000002000 0070000000002000",
        [(5, 3, SHARED)],
        "0300_0200_00000000 0150000000002000 0160000000002000 0170000000002000",
    ),
    (
        "neighbours of two kinds are two",
        "0000_0200_00000000 0050000000002000 0060000000002000 0070000000001000",
        [(5, 2, SHARED), (7, 1, PRIVATE)],
        "0300_0200_00000000 0150000000002000 0160000000002000 0170000000001000",
    ),
    (
        "2 MiB",
        "0000_0000_00000000 0000200000002001",
        [(0x200, 512, SHARED)],
        "0100_0000_00000000 0002200000002001",
    ),
    (
        "2 MiB twice",
        "0000_0100_00000000 0000400000001001 0000600000001001",
        [(0x400, 1024, PRIVATE)],
        "0200_0100_00000000 0002400000001001 0002600000001001",
    ),
    (
        "sizes are not mixed",
        "0000_0100_00000000 0000200000002001 0000400000002000",
        [(0x200, 512, SHARED), (0x400, 1, SHARED)],
        "0200_0100_00000000 0002200000002001 0100400000002000",
    ),
    (
        "2 MiB, of which 3 pages are done",
        "0000_0000_00000000 0300200000002001",
        [(0x203, 509, SHARED)],
        "0100_0000_00000000 0002200000002001",
    ),
    (
        "what is done is skipped",
        "0000_0200_00000000 0002200000002001 0150000000002000 0060000000002000",
        [(6, 1, SHARED)],
        "0300_0200_00000000 0002200000002001 0150000000002000 0160000000002000",
    ),
    (
        "from the entry where it stopped",
        "0100_0100_00000000 0050000000002000 0060000000001000",
        [(6, 1, PRIVATE)],
        "0200_0100_00000000 0050000000002000 0160000000001000",
    ),
    (
        "nothing left",
        "0500_0000_00000000 0050000000002000",
        [],
        "0500_0000_00000000 0050000000002000",
    ),
    (
        "smash and unsmash convert nothing",
        "0000_0200_00000000 0000200000003001 0000200000004001 0050000000002000",
        [(5, 1, SHARED)],
        "0300_0200_00000000 0002200000003001 0002200000004001 0150000000002000",
    ),
    (
        "the same page twice",
        "0000_0100_00000000 0050000000002000 0050000000001000",
        [(5, 1, SHARED), (5, 1, PRIVATE)],
        "0200_0100_00000000 0150000000002000 0150000000001000",
    ),
    (
        "downwards",
        "0000_0100_00000000 0060000000002000 0050000000002000",
        [(6, 1, SHARED), (5, 1, SHARED)],
        "0200_0100_00000000 0160000000002000 0150000000002000",
    ),
    (
        "the last page that an entry can name",
        "0000_0000_00000000 00f0ffffffff2f00",
        [(0xFFFFFFFFFF, 1, SHARED)],
        "0100_0000_00000000 01f0ffffffff2f00",
    ),
    (
        # Its 511 pages end at 0x400; a sum of 0x200 + 511 would join 0x3ff and convert 0x400 too.
        "a part is joined with nothing",
        "0000_0100_00000000 0100200000002001 00f03f0000002000",
        [(0x201, 511, SHARED), (0x3FF, 1, SHARED)],
        "0200_0100_00000000 0002200000002001 01f03f0000002000",
    ),
]


@pytest.mark.parametrize(
    ("text", "events", "after"), [each[1:] for each in VECTORS], ids=[each[0] for each in VECTORS]
)
def test_page_state_change(text: str, events: list[tuple[int, int, int]], after: str) -> None:
    request = snp.decode_page_state_change(spelt(text))
    assert (request.status, rows(request.events)) == (0, events)
    assert request.answer() == (spelt(after), 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "0000_0000_00000000",  # an entry, and none there
        "0000_0100_00000000 0050000000002000",
        "0000_ffff_00000000 0050000000002000",  # end_entry 65535
        "ffff_ffff_00000000 0050000000002000",
        "0000_0000_01000000 0050000000002000",  # reserved
        "0000_0000_00000080 0050000000002000",
    ],
)
def test_headers_that_are_wrong(text: str) -> None:
    request = snp.decode_page_state_change(spelt(text))
    assert (request.status, rows(request.events)) == (INVALID_HEADER, [])
    assert request.answer() == (spelt(text)[:8], 0, INVALID_HEADER)


def test_at_most_253_entries() -> None:
    entry = spelt("0050000000002000")
    most = snp.decode_page_state_change(spelt("0000_fc00_00000000") + entry * 253)
    assert rows(most.events) == [(5, 1, SHARED)] * 253
    more = snp.decode_page_state_change(spelt("0000_fd00_00000000") + entry * 300)
    assert more.status == INVALID_HEADER


@pytest.mark.parametrize(
    "entry",
    [
        "0010200000002001",  # 2 MiB at gfn 0x201
        "0000100000001001",  # 2 MiB at gfn 0x100
        "0102200000002001",  # cur_page 513 of 512
        "ff0f200000002001",  # cur_page 4095
        "0250000000002000",  # cur_page 2 of 1
        "0050000000002002",  # reserved
        "0050000000002080",
    ],
)
def test_entries_that_are_wrong(entry: str) -> None:
    first = "0060000000001000"
    alone = snp.decode_page_state_change(spelt("0000_0000_00000000" + entry))
    assert (alone.status, rows(alone.events)) == (INVALID_ENTRY, [])
    assert alone.answer() == (spelt("0000_0000_00000000" + entry), 0, INVALID_ENTRY)
    # What precedes the entry is converted all the same, and cur_entry names it.
    second = snp.decode_page_state_change(spelt("0000_0200_00000000" + first + entry + first))
    assert (second.status, rows(second.events)) == (INVALID_ENTRY, [(6, 1, PRIVATE)])
    after = spelt("0100_0200_00000000 0160000000001000" + entry + first)
    assert second.answer() == (after, 0, INVALID_ENTRY)


RESUMED = "0000_0300_00000000 0050000000002000 0060000000002000 0000400000001001 0000200000003001"


@pytest.mark.parametrize(
    ("done", "after"),
    [
        (
            0,
            "0000_0300_00000000 0050000000002000 0060000000002000"
            " 0000400000001001 0000200000003001",
        ),
        (
            1,
            "0100_0300_00000000 0150000000002000 0060000000002000"
            " 0000400000001001 0000200000003001",
        ),
        (
            2,
            "0200_0300_00000000 0150000000002000 0160000000002000"
            " 0000400000001001 0000200000003001",
        ),
        (
            5,
            "0200_0300_00000000 0150000000002000 0160000000002000"
            " 0300400000001001 0000200000003001",
        ),
        (
            514,
            "0400_0300_00000000 0150000000002000 0160000000002000"
            " 0002400000001001 0002200000003001",
        ),
    ],
)
def test_partial_success(done: int, after: str) -> None:
    request = snp.decode_page_state_change(spelt(RESUMED))
    assert rows(request.events) == [(5, 2, SHARED), (0x400, 512, PRIVATE)]
    assert request.answer(done) == (spelt(after), 0, 0)
    assert request.answer(done, failed=True) == (spelt(after), 0, GENERIC)
    rest = snp.decode_page_state_change(request.answer(done).buffer)
    assert sum(npages for _, npages, _ in rows(rest.events)) == 514 - done


def test_a_failure_is_of_the_first_page_by_default() -> None:
    request = snp.decode_page_state_change(spelt(RESUMED))
    assert request.answer(failed=True) == (spelt(RESUMED), 0, GENERIC)
    for done in (-1, 515):
        with pytest.raises(RangeError, match=str(done)):
            request.answer(done)


def test_a_guest_that_is_served_a_few_pages_at_a_time_gets_there() -> None:
    buffer = spelt(RESUMED)
    with SharedPages(initial="shared") as pages:
        pages.unshare(5, 2)
        for _ in range(200):
            request = snp.decode_page_state_change(buffer)
            wanted = sum(npages for _, npages, _ in rows(request.events))
            if not wanted:
                break
            start, npages, shared = rows(request.events)[0]
            done = min(npages, 7)
            pages.convert(start, done, bool(shared))
            buffer, _, code = request.answer(done)
            assert code == 0
        assert pages.get_list().tolist() == [[0, 0x400], [0x600, 2**52]]


def test_the_buffer_is_read_once() -> None:
    shared_with_the_guest = bytearray(spelt(RESUMED))
    request = snp.decode_page_state_change(shared_with_the_guest)
    shared_with_the_guest[:] = b"\xff" * len(shared_with_the_guest)
    assert rows(request.events) == [(5, 2, SHARED), (0x400, 512, PRIVATE)]
    assert request.answer(0).buffer == spelt(RESUMED)


def within(data: bytes) -> None:
    """Decode, and assert that every event's pages are named by an entry that is not done."""
    request = snp.decode_page_state_change(data)
    words = np.frombuffer(data[8 : 8 + (len(data) - 8) // 8 * 8], "<u8").tolist()
    named: dict[int, set[int]] = {PRIVATE: set(), SHARED: set()}
    for word in words[:253]:
        gfn, done, operation = word >> 12 & 0xFFFFFFFFFF, word & 0xFFF, word >> 52 & 0xF
        if operation in (1, 2):
            named[operation - 1] |= set(range(gfn + done, gfn + (512 if word >> 56 & 1 else 1)))
    for start, npages, shared in rows(request.events):
        assert set(range(start, start + npages)) <= named[shared]
    legal(request.events, 0, 1 << 40)
    answer = request.answer()
    assert answer.sw_exitinfo2 == request.status
    assert len(answer.buffer) <= len(data)
    assert answer.buffer[2:8] == data[2:8]


def test_damaged_buffers() -> None:
    for good in (RESUMED, VECTORS[2][1], VECTORS[7][1], VECTORS[15][1]):
        for short in truncations(spelt(good)):
            if len(short) < 8:
                with pytest.raises(FormatError, match=f"byte {len(short)}"):
                    snp.decode_page_state_change(short)
            else:
                assert snp.decode_page_state_change(short).status == INVALID_HEADER
        for flipped in bit_flips(spelt(good)):
            within(flipped)


def test_damaged_msr_values() -> None:
    for (value,) in register_flips(0x0020000012345014):
        try:
            request = snp.decode_msr(value)
        except FormatError:
            assert value & 0xFFF != 0x014
            continue
        gfn = value >> 12 & 0xFFFFFFFFFF
        legal(request.events, gfn, gfn + 1)


@given(st.binary(min_size=8, max_size=120))
def test_any_buffer(data: bytes) -> None:
    within(data)
    within(struct.pack("<HHI", data[0] % 8, data[2] % 12, 0) + data[8:])


entries = st.builds(
    lambda done, gfn, operation, huge: (
        (min(done, 512 if huge else 1))
        | gfn * (512 if huge else 1) << 12
        | operation << 52
        | huge << 56
    ),
    st.integers(0, 512) | st.just(0),
    st.integers(0, 3),
    st.sampled_from([1, 2, 2, 3]),
    st.integers(0, 1),
)


@given(st.lists(entries, min_size=1, max_size=20), st.integers(0, 20), st.data())
def test_any_legal_buffer_is_done_in_any_steps(
    words: list[int], current: int, data: st.DataObject
) -> None:
    buffer = struct.pack(f"<HHI{len(words)}Q", current, len(words) - 1, 0, *words)
    within(buffer)
    first = snp.decode_page_state_change(buffer)
    with SharedPages(initial="shared") as straight, SharedPages(initial="shared") as steps:
        straight.apply(first.events)
        while True:
            request = snp.decode_page_state_change(buffer)
            if not len(request.events):
                break
            start, npages, shared = rows(request.events)[0]
            done = data.draw(st.integers(1, npages))
            steps.convert(start, done, bool(shared))
            buffer = request.answer(done).buffer
        assert straight.snapshot() == steps.snapshot()
