# tier: unit
"""The RMP: entries, RMPREAD results and segments written by hand, and walks of small tables.

An entry's lower word: assigned 0, 2 MiB 1, immutable 2, gfn in 50:12, ASID in 60:51, VMSA 61,
validated 62.
"""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from abi_support import bit_flips, spelt, truncations
from hypothesis import given

from pysharedpages import FormatError, PageSet, RangeError
from pysharedpages.abi import rmp

NONE = "0000000000000000"
HIGH = "0000000000000000"


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (NONE, rmp.RmpEntry(False, False, False, 0, 0)),
        ("0150341200002800", rmp.RmpEntry(True, False, False, 0x12345, 5)),
        ("0150341200002840", rmp.RmpEntry(True, False, False, 0x12345, 5, False, True)),
        ("0300200000000800", rmp.RmpEntry(True, True, False, 0x200, 1)),
        ("0300200000000840", rmp.RmpEntry(True, True, False, 0x200, 1, False, True)),
        ("0110000000000820", rmp.RmpEntry(True, False, False, 1, 1, True, False)),
        ("010000000000f81f", rmp.RmpEntry(True, False, False, 0, 1023)),
        ("01f0ffffffff0f00", rmp.RmpEntry(True, False, False, 2**39 - 1, 1)),
        ("0500000000000000", rmp.RmpEntry(True, False, True, 0, 0)),
        ("0400000000000000", rmp.RmpEntry(False, False, True, 0, 0)),
        ("07f0ffffffffff7f", rmp.RmpEntry(True, True, True, 2**39 - 1, 1023, True, True)),
    ],
)
def test_entries(text: str, entry: rmp.RmpEntry) -> None:
    assert rmp.decode_entry(spelt(text + HIGH)) == entry
    assert entry.encode() == spelt(text + HIGH)
    # Nothing is known of the upper word.
    assert rmp.decode_entry(spelt(text + "ffffffffffffffff")) == entry


@pytest.mark.parametrize("text", ["0800000000000000", "010f000000000800", "0100000000000080"])
def test_entries_with_reserved_bits(text: str) -> None:
    with pytest.raises(FormatError, match="byte 0"):
        rmp.decode_entry(spelt(text + HIGH))
    with pytest.raises(FormatError, match="byte 32"):
        rmp.private_pages(spelt((NONE + HIGH) * 2 + text + HIGH), 1)


def test_fields_that_do_not_fit() -> None:
    for entry in (
        rmp.RmpEntry(True, False, False, 2**39, 1),
        rmp.RmpEntry(True, False, False, 0, 1024),
    ):
        with pytest.raises(RangeError, match="bits"):
            entry.encode()


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("0050341200000000_01_00_00_00_05000000", rmp.RmpEntry(True, False, False, 0x12345, 5)),
        ("0000200000000000_01_01_00_00_01000000", rmp.RmpEntry(True, True, False, 0x200, 1)),
        ("0000000000000000_01_00_01_00_00000000", rmp.RmpEntry(True, False, True, 0, 0)),
        # A 2 MiB region with assigned pages, of which this is none: hpage_region_status.
        ("0000000000000000_00_02_00_00_00000000", rmp.RmpEntry(False, False, False, 0, 0)),
        (
            "00f0ffffffffff00_ff_ff_ff_ff_ffffffff",
            rmp.RmpEntry(True, True, True, 2**44 - 1, 2**32 - 1),
        ),
    ],
)
def test_rmpread(text: str, entry: rmp.RmpEntry) -> None:
    assert rmp.decode_rmpread(spelt(text)) == entry


def test_damaged_entries() -> None:
    for decode, good in (
        (rmp.decode_entry, spelt("0150341200002840" + HIGH)),
        (rmp.decode_rmpread, spelt("0050341200000000_01_00_00_00_05000000")),
    ):
        for short in truncations(good):
            with pytest.raises(FormatError, match=f"byte {len(short)}"):
                decode(short)
        with pytest.raises(FormatError, match="byte 16"):
            decode(good + b"\0")
        for flipped in bit_flips(good):
            try:
                assert decode(flipped).gfn < 2**52
            except FormatError:
                continue


def table(entries: dict[int, str], npages: int) -> bytes:
    """Entries by host page, the others empty."""
    data = bytearray(npages * 16)
    for pfn, text in entries.items():
        data[pfn * 16 : pfn * 16 + 8] = spelt(text)
    return bytes(data)


def test_a_walk_finds_the_pages_of_one_guest() -> None:
    entries = {
        0: "0150000000000800",  # gfn 5 of guest 1
        7: "0140000000000800",  # gfn 4
        8: "0150000000001000",  # gfn 5 of guest 2
        9: "0500000000000000",  # the firmware's
        512: "0300200000000800",  # 2 MiB at gfn 0x200 of guest 1
        513: "0170000000000800",  # not looked at: the entry before speaks for it
        1024: "0160000000000820",  # gfn 6, a VMSA
        1100: "00f0000000000800",  # not assigned
    }
    found = rmp.private_pages(table(entries, 1200), 1)
    assert found.ranges().tolist() == [[4, 7], [0x200, 0x400]]
    assert rmp.private_pages(table(entries, 1200), 2).ranges().tolist() == [[5, 6]]
    assert rmp.private_pages(table(entries, 1200), 3) == PageSet()
    assert rmp.private_pages(b"", 1) == PageSet()
    assert rmp.private_pages(table(entries, 1200), 1, first_pfn=1 << 20) == found


def test_a_walk_goes_on_over_its_batches() -> None:
    npages = (1 << 18) + 600
    entries = {
        0: "0100000000000800",
        (1 << 18) - 1: "0110000000000800",
        1 << 18: "0300200000000800",
    }
    assert rmp.private_pages(table(entries, npages), 1).ranges().tolist() == [
        [0, 2],
        [0x200, 0x400],
    ]
    wrong = table({(1 << 18) + 3: "0300200000000800"}, npages)
    with pytest.raises(FormatError, match=f"byte {((1 << 18) + 3) * 16}"):
        rmp.private_pages(wrong, 1)


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 5, 7, 8, 9])
def test_a_walk_of_any_number_of_batches(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rmp, "_BATCH", 512)
    entries = {pfn: f"01{pfn // 512 << 4:02x}000000000800" for pfn in range(0, batches * 512, 512)}
    found = rmp.private_pages(table(entries, batches * 512), 1)
    assert found.ranges().tolist() == [[0, batches]]


@pytest.mark.parametrize(
    ("pfn", "text"),
    [
        (3, "0300200000000800"),  # not the first page of 2 MiB of the host's
        (0, "0310200000000800"),  # nor of the guest's
        (511, "0300000000000800"),
    ],
)
def test_misaligned_2_mib_pages(pfn: int, text: str) -> None:
    with pytest.raises(FormatError, match=f"byte {pfn * 16}:"):
        rmp.private_pages(table({pfn: text}, 1024), 1)


def test_walks_that_cannot_be() -> None:
    for asid in (0, 1024, -1):
        with pytest.raises(RangeError, match=str(asid) if asid >= 0 else "0x1"):
            rmp.private_pages(b"", asid)
    for first_pfn in (1, -512):
        with pytest.raises(RangeError, match=str(first_pfn)):
            rmp.private_pages(b"", 1, first_pfn=first_pfn)
    for short in truncations(bytes(32)):
        if len(short) % 16:
            with pytest.raises(FormatError, match=f"byte {len(short)}"):
                rmp.private_pages(short, 1)


def test_table_sizes() -> None:
    # 16 bytes a page, 4 GiB a TiB, and the bookkeeping of 16 KiB.
    assert rmp.table_bytes(0) == 0x4000
    assert rmp.table_bytes(1) == 0x4010
    assert rmp.table_bytes(1 << 28) == 0x100004000
    assert rmp.table_bytes(1 << 33) == 0x2000004000


def segment_table(words: dict[int, str]) -> bytes:
    """A segment table with words in hex at indices."""
    data = bytearray(4096)
    for index, text in words.items():
        data[index * 8 : index * 8 + 8] = spelt(text)
    return bytes(data)


def test_segments() -> None:
    # 64 GiB a segment: shift 36 = 0x24. Segment 0 covers 64 GiB, segment 3 only 1 GiB.
    words = {0: "4000000040000000", 3: "0100100080000000"}
    assert rmp.decode_segments(segment_table(words), 0x2401) == (
        rmp.RmpSegment(0x4000000000, 0, 1 << 24),
        rmp.RmpSegment(0x8000100000, 3 << 24, 1 << 18),
    )
    # One that claims more than a segment covers a segment.
    assert rmp.decode_segments(segment_table({1: "ffff0f0040000000"}), 0x2401) == (
        rmp.RmpSegment(0x4000000000, 1 << 24, 1 << 24),
    )
    assert rmp.decode_segments(segment_table({}), 0x1E01) == ()
    assert rmp.decode_segments(segment_table({511: "0100f0ffffff0f00"}), 0x2B01) == (
        rmp.RmpSegment(0xFFFFFFFF00000, 511 << 31, 1 << 18),
    )


def test_segments_that_are_wrong() -> None:
    empty = segment_table({})
    for config in (0, 0x2400, 0x0001, 0x1D01, 0x3501, 0x3F01):
        with pytest.raises(FormatError, match=hex(config)):
            rmp.decode_segments(empty, config)
    with pytest.raises(FormatError, match="byte 24"):
        rmp.decode_segments(segment_table({3: "0100100080001000"}), 0x2401)
    with pytest.raises(FormatError, match="byte 8"):
        rmp.decode_segments(segment_table({1: "0100100080000000"}), 0x3401)
    for size in (0, 1, 4095, 4097):
        with pytest.raises(FormatError, match=f"byte {min(size, 4096)}"):
            rmp.decode_segments(bytes(size), 0x2401)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=64), st.integers(1, 1023), st.booleans())
def test_any_table(words: list[int], asid: int, legal: bool) -> None:
    low = np.array(words, np.uint64)
    if legal:
        low &= np.uint64(0x7FFFFFFFFFFFF005)
    data = np.stack([low, np.zeros_like(low)], axis=1).tobytes()
    try:
        found = rmp.private_pages(data, asid)
    except FormatError:
        assert not legal
        return
    wanted = {w >> 12 & 2**39 - 1 for w in low.tolist() if w & 1 and w >> 51 & 1023 == asid}
    if legal:
        assert set(found) == wanted


@given(st.binary(min_size=4096, max_size=4096), st.integers(0, 2**14))
def test_any_segments(data: bytes, config: int) -> None:
    try:
        found = rmp.decode_segments(data, config)
    except FormatError:
        return
    for each in found:
        assert 0 < each.pages <= 1 << 40 and each.first_pfn + each.pages <= 1 << 40
