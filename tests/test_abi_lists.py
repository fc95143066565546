# tier: unit
"""The proposed list and bitmap ioctls, written by hand; the bugs of the lists they came with."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from abi_support import PRIVATE, SHARED, bit_flips, rows, spelt, truncations
from hypothesis import given
from model import ranges

from pysharedpages import FormatError, PageSet, RangeError, SharedPages
from pysharedpages.abi import lists

EINVAL, E2BIG = 22, 7


def of(*spans: tuple[int, int]) -> PageSet:
    """A set of half-open ranges."""
    return PageSet.from_ranges(ranges(*spans))


# ranges; the entries { gfn_start, gfn_end }
LISTS = [
    ([], ""),
    ([(5, 8)], "0500000000000000_0800000000000000"),
    ([(0, 1)], "0000000000000000_0100000000000000"),
    ([(0x12345, 0x12346)], "4523010000000000_4623010000000000"),
    ([(1, 2), (3, 4)], "0100000000000000_0200000000000000 0300000000000000_0400000000000000"),
    ([(0x40000, 0x80000)], "0000040000000000_0000080000000000"),
    # 16 TiB and beyond, where a list of 32-bit gfns goes wrong.
    ([(2**32, 2**32 + 1)], "0000000001000000_0100000001000000"),
    ([(0, 6442450944)], "0000000000000000_0000008001000000"),
    ([(2**52 - 1, 2**52)], "ffffffffffff0f00_0000000000001000"),
    ([(0, 2**52)], "0000000000000000_0000000000001000"),
]


@pytest.mark.parametrize(("spans", "text"), LISTS)
def test_lists(spans: list[tuple[int, int]], text: str) -> None:
    assert lists.encode_list(of(*spans)) == spelt(text)
    assert lists.decode_list(spelt(text)) == of(*spans)
    assert lists.decode_list(spelt(text) + b"?" * 16, len(spans)) == of(*spans)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("0300000000000000_0400000000000000 0100000000000000_0200000000000000", [(1, 2), (3, 4)]),
        ("0100000000000000_0500000000000000 0300000000000000_0900000000000000", [(1, 9)]),
        ("0100000000000000_0200000000000000 0200000000000000_0300000000000000", [(1, 3)]),
        ("0100000000000000_0900000000000000 0300000000000000_0400000000000000", [(1, 9)]),
        ("0700000000000000_0700000000000000", []),
    ],
)
def test_lists_that_are_not_sorted_or_disjoint(text: str, spans: list[tuple[int, int]]) -> None:
    assert lists.decode_list(spelt(text)) == of(*spans)


@pytest.mark.parametrize(
    ("size", "answer"),
    [
        (0, (EINVAL, 0, "")),
        (15, (E2BIG, 0, "")),
        (31, (E2BIG, 0, "")),
        (32, (0, 2, LISTS[4][1])),
        (4096, (0, 2, LISTS[4][1])),
    ],
)
def test_get_list(size: int, answer: tuple[int, int, str]) -> None:
    status, nents, text = answer
    assert lists.get_list(of((1, 2), (3, 4)), size) == lists.ListAnswer(status, nents, spelt(text))


def test_get_list_of_nothing() -> None:
    assert lists.get_list(PageSet(), 16) == lists.ListAnswer(0, 0, b"")
    assert lists.get_list(PageSet(), 0).status == EINVAL
    for size in (-1, 2**32):
        with pytest.raises(RangeError, match="32 bits"):
            lists.get_list(PageSet(), size)


# pnents, buffer, size; padding at the end
ARGUMENT = "00100000007f0000_00200000007f0000_40000000_00000000"


def test_the_list_s_argument() -> None:
    argument = lists.SharedPagesList(0x7F0000001000, 0x7F0000002000, 64)
    assert argument.encode() == spelt(ARGUMENT)
    assert lists.SharedPagesList.decode(spelt(ARGUMENT)) == argument
    for short in truncations(spelt(ARGUMENT)):
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            lists.SharedPagesList.decode(short)
    with pytest.raises(FormatError, match="byte 24"):
        lists.SharedPagesList.decode(spelt(ARGUMENT) + b"\0")
    with pytest.raises(RangeError, match="size"):
        lists.SharedPagesList(0, 0, 2**32).encode()


def test_damaged_lists() -> None:
    good = spelt(LISTS[4][1])
    for short in truncations(good):
        if len(short) % 16:
            with pytest.raises(FormatError, match=f"byte {len(short)}"):
                lists.decode_list(short)
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            lists.decode_list(short, 2)
    for flipped in bit_flips(good):
        try:
            lists.decode_list(flipped)
        except (FormatError, RangeError):
            continue
    with pytest.raises(FormatError, match="byte 16: entry 1"):
        lists.decode_list(good[:16] + spelt("0400000000000000_0300000000000000"))
    with pytest.raises(RangeError, match="entry 1"):
        lists.decode_list(good[:16] + spelt("0400000000000000_0100000000001000"))
    with pytest.raises(RangeError, match="entry 0"):
        lists.decode_list(spelt("0000000000000000_ffffffffffffffff"))
    for nents in (-1, 2**31):
        with pytest.raises(RangeError, match=str(nents)):
            lists.decode_list(good, nents)


# What v10's own list and its successor in QEMU made of these is in the comments.


def shared_after(*steps: tuple[str, int, int]) -> list[list[int]]:
    """The list after some calls of share and unshare with [start, stop)."""
    with SharedPages() as pages:
        for method, start, stop in steps:
            getattr(pages, method)(start, stop - start)
        listed = lists.decode_list(lists.encode_list(pages.snapshot()))
        return [[int(start), int(stop)] for start, stop in listed.ranges()]


def test_unsharing_a_start_loses_no_page() -> None:
    # (13, 20): the end was trimmed as if it were inclusive.
    assert shared_after(("share", 10, 20), ("unshare", 10, 12)) == [[12, 20]]


def test_a_split_leaves_no_holes() -> None:
    # (10, 13) and (17, 20), or a page less on each side.
    assert shared_after(("share", 10, 20), ("unshare", 14, 16)) == [[10, 14], [16, 20]]


def test_sharing_within_a_range_does_not_shrink_it() -> None:
    # (10, 30): any overlap took over the new end.
    assert shared_after(("share", 10, 100), ("share", 20, 30)) == [[10, 100]]


def test_sharing_across_ranges_makes_them_one() -> None:
    # (0, 25) and (20, 30): what follows was never swallowed.
    steps = (("share", 0, 10), ("share", 20, 30), ("share", 5, 25))
    assert shared_after(*steps) == [[0, 30]]


def test_unsharing_across_ranges_reaches_them_all() -> None:
    # Nothing happened, and 0 came back: only a range within one node was removed.
    steps = (("share", 0, 10), ("share", 20, 30), ("unshare", 5, 25))
    assert shared_after(*steps) == [[0, 5], [25, 30]]


def test_unsharing_leaves_no_duplicate() -> None:
    # The walk ended at the first node that the range ended in; its double stayed shared.
    steps = (("share", 0, 10), ("share", 5, 25), ("share", 5, 15), ("unshare", 5, 15))
    assert shared_after(*steps) == [[0, 5], [15, 25]]


def test_setting_a_list_replaces_what_was_there() -> None:
    # Entries were appended, and the count was that of the new ones alone.
    with SharedPages() as pages:
        pages.share(100, 10)
        pages.set_list(lists.decode_list(spelt(LISTS[4][1])).ranges())
        assert pages.get_list().tolist() == [[1, 2], [3, 4]]
        pages.set_list(lists.decode_list(b"").ranges())
        assert len(pages) == 0
        pages.share(7)
        assert pages.get_list().tolist() == [[7, 8]]


def test_a_list_passes_16_tib() -> None:
    # be32 on the wire: 0x100000005 became 5.
    pages = of((0x100000005, 0x100000007))
    assert lists.decode_list(lists.encode_list(pages)) == pages


# start, pages; shared pages; the bits, 1 for private, 64 of them
BITMAPS = [
    (0, 8, [(0, 4)], "f0ffffffffffffff"),
    (0, 64, [], "ffffffffffffffff"),
    (0, 64, [(0, 64)], "0000000000000000"),
    (100, 16, [(100, 101), (115, 116)], "fe7fffffffffffff"),
    (0x12345, 64, [(0x12345, 0x1234D)], "00ffffffffffffff"),
    (0, 10, [(8, 10)], "fffcffffffffffff"),
    (2**52 - 64, 64, [(2**52 - 1, 2**52)], "ffffffffffffff7f"),
    (7, 1, [(7, 8)], "feffffffffffffff"),
    (0, 64, [(63, 64)], "ffffffffffffff7f"),
    (64, 63, [(64, 127)], "0000000000000080"),
]


@pytest.mark.parametrize(("start", "npages", "spans", "text"), BITMAPS)
def test_bitmaps(start: int, npages: int, spans: list[tuple[int, int]], text: str) -> None:
    bits = spelt(text)
    assert lists.encode_bitmap(of(*spans), start, npages, b"\xff" * 8) == bits
    argument = lists.PageEncBitmap(start, npages, 0x1000)
    events = rows(argument.events(bits))
    assert events[0] == (start, npages, PRIVATE)
    assert events[1:] == [(first, stop - first, SHARED) for first, stop in spans]
    # Bits past the pages are not looked at.
    assert rows(argument.events(bits[: (npages + 7) // 8])) == events


def test_bits_past_the_pages_are_kept() -> None:
    assert lists.encode_bitmap(of((0, 10)), 0, 10, spelt("aaaaaaaaaaaaaaaa")) == spelt(
        "00a8aaaaaaaaaaaa"
    )
    assert lists.encode_bitmap(of(), 0, 3, spelt("0000000000000000") * 2) == spelt(
        "0700000000000000" + "00" * 8
    )
    assert lists.encode_bitmap(of(), 5, 0, b"abc") == b"abc"


def test_a_bitmap_sets_its_window_alone() -> None:
    with SharedPages() as pages:
        pages.share(0, 200)
        pages.apply(lists.PageEncBitmap(100, 16, 0).events(spelt("fe7f")))
        assert pages.get_list().tolist() == [[0, 101], [115, 200]]
        pages.apply(lists.PageEncBitmap(0, 0, 0).events(b""))
        assert len(pages) == 186


# start_gfn, num_pages, enc_bitmap
BITMAP_ARGUMENT = "4523010000000000_0002000000000000_00100000007f0000"


def test_the_bitmap_s_argument() -> None:
    argument = lists.PageEncBitmap(0x12345, 512, 0x7F0000001000)
    assert argument.encode() == spelt(BITMAP_ARGUMENT)
    assert lists.PageEncBitmap.decode(spelt(BITMAP_ARGUMENT)) == argument
    for short in truncations(spelt(BITMAP_ARGUMENT)):
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            lists.PageEncBitmap.decode(short)
    for flipped in bit_flips(spelt(BITMAP_ARGUMENT)):
        assert lists.PageEncBitmap.decode(flipped).encode() == flipped


@pytest.mark.parametrize(("npages", "size"), [(0, 0), (1, 8), (64, 8), (65, 16), (2**28, 2**25)])
def test_bytes_of_a_bitmap(npages: int, size: int) -> None:
    assert lists.bitmap_bytes(npages) == size


def test_bitmaps_that_are_wrong() -> None:
    for start, npages in ((2**52, 1), (2**52 - 1, 2), (0, 2**64 - 1), (2**64 - 1, 1)):
        with pytest.raises(RangeError, match=str(npages)):
            lists.PageEncBitmap(start, npages, 0).events(bytes(8))
        with pytest.raises(RangeError, match=str(npages)):
            lists.encode_bitmap(PageSet(), start, npages, bytes(8))
    for short in truncations(bytes(2)):
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            lists.PageEncBitmap(0, 16, 0).events(short)
    for short in truncations(bytes(8)):
        with pytest.raises(FormatError, match=f"byte {len(short)}"):
            lists.encode_bitmap(PageSet(), 0, 16, short)
    with pytest.raises(FormatError, match="are needed"):
        lists.PageEncBitmap(0, 2**51, 0).events(bytes(8))


def test_the_numbers_of_the_proposed_ioctls() -> None:
    # _IOW(0xAE, 0xc5 ... 0xc9, 24 bytes), and _IO(0xAE, 0xc7)
    assert lists.KVM_GET_PAGE_ENC_BITMAP == 0x4018AEC5
    assert lists.KVM_SET_PAGE_ENC_BITMAP == 0x4018AEC6
    assert lists.KVM_PAGE_ENC_BITMAP_RESET == 0xAEC7
    assert lists.KVM_GET_SHARED_PAGES_LIST == 0x4018AEC8
    assert lists.KVM_SET_SHARED_PAGES_LIST == 0x4018AEC9


spans = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=6)


@given(spans)
def test_lists_round_trip(given_spans: list[tuple[int, int]]) -> None:
    pages = of(*((start, start + npages) for start, npages in given_spans))
    assert lists.decode_list(lists.encode_list(pages)) == pages


@given(spans, st.integers(0, 300), st.integers(0, 200), st.binary(min_size=32, max_size=32))
def test_bitmaps_round_trip(
    given_spans: list[tuple[int, int]], start: int, npages: int, into: bytes
) -> None:
    pages = of(*((first, first + count) for first, count in given_spans))
    bits = lists.encode_bitmap(pages, start, npages, into)
    whole = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    old = np.unpackbits(np.frombuffer(into, np.uint8), bitorder="little")
    assert (whole[npages:] == old[npages:]).all()
    with SharedPages() as tracker:
        tracker.apply(lists.PageEncBitmap(start, npages, 0).events(bits))
        assert tracker.snapshot() == pages & of((start, start + npages))


@given(st.binary(max_size=80))
def test_any_list(data: bytes) -> None:
    try:
        lists.decode_list(data)
    except (FormatError, RangeError):
        return
