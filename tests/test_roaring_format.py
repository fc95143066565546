# tier: model
"""The portable Roaring format: official vectors, exchange with pyroaring, and bytes that lie."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyroaring
import pytest
from abi_support import bit_flips, truncations
from model import GFN_LIMIT, canonical, ranges
from roaring_files import Container, bits, narrow, runs, values, wide

from pysharedpages import FormatError, PageSet, RangeError

DATA = Path(__file__).parent / "data" / "roaring"
BYTES_PER_BYTE = 256
"""A set takes at most so many times the bytes of its file."""


def page_set(*pairs: tuple[int, int]) -> PageSet:
    return PageSet.from_ranges(ranges(*pairs))


# The official vectors


def thousands() -> PageSet:
    """What both vectors of 32 bits hold."""
    low = np.arange(0, 100_000, 1000, dtype=np.uint64)
    threes = 3 * np.arange(100_000, 200_000, dtype=np.uint64)
    return PageSet.from_pages(np.concatenate([low, threes])) | page_set((700_000, 800_000))


def evens() -> PageSet:
    """What bitmap64.bin holds."""
    low = PageSet.from_pages(np.arange(0, 65536, 2, dtype=np.uint64))
    return low | page_set((1 << 32, (1 << 32) + 1_000_000), (1 << 48, (1 << 48) + 1))


def two_buckets() -> PageSet:
    """What portable_bitmap64.bin holds: the same in two sets of 32 bits."""
    one = page_set((0, 36865), (40960, 65537), (131072, 131073), (131077, 131078))
    one |= PageSet.from_pages(np.arange(524288, 589824, 2, dtype=np.uint64))
    return one | PageSet.from_pages(one.pages() + np.uint64(1 << 32))


@pytest.mark.parametrize(
    ("name", "width", "expected", "is_canonical"),
    [
        ("bitmapwithruns.bin", 32, thousands(), True),
        ("bitmapwithoutruns.bin", 32, thousands(), False),
        ("bitmap64.bin", 64, evens(), True),
        ("portable_bitmap64.bin", 64, two_buckets(), True),
    ],
)
def test_official_vectors(name: str, width: int, expected: PageSet, is_canonical: bool) -> None:
    data = (DATA / name).read_bytes()
    assert PageSet.from_roaring(data) == expected
    assert PageSet.from_roaring(data, bits=width) == expected
    assert (expected.to_roaring(width) == data) is is_canonical
    with pytest.raises(FormatError):
        PageSet.from_roaring(data, bits=96 - width)


# Exchange with pyroaring


def random_set(rng: np.random.Generator, width: int) -> PageSet:
    """Ranges of many lengths, here and there, or many in few leaves."""
    top = 1 << int(rng.integers(1, 33 if width == 32 else 53))
    count = int(rng.integers(0, 120))
    starts = rng.integers(0, top, count, dtype=np.uint64)
    if rng.random() < 0.4:
        count = int(rng.integers(1, 20_000))
        base = int(rng.integers(0, top))
        starts = (base + rng.integers(0, 1 << 17, count, dtype=np.uint64)) % np.uint64(top)
        lengths = rng.integers(1, 3, count, dtype=np.uint64)
    else:
        lengths = rng.integers(1, 2 << int(rng.integers(0, 20)), count, dtype=np.uint64)
    stops = np.minimum(starts + lengths, np.uint64(top))
    return PageSet.from_ranges(np.stack([starts, stops], 1))


def rival_class(width: int) -> Any:
    return pyroaring.BitMap if width == 32 else pyroaring.BitMap64


@pytest.mark.parametrize("width", [32, 64])
def test_exchange_with_pyroaring(width: int, rng: np.random.Generator, scale: float) -> None:
    cls = rival_class(width)
    for _ in range(round(150 * scale)):
        pages = random_set(rng, width)
        data = pages.to_roaring(width)
        theirs = cls()
        for start, stop in canonical(pages.ranges()):
            theirs.add_range(start, stop)
        assert cls.deserialize(data) == theirs
        assert PageSet.from_roaring(theirs.serialize()) == pages
        assert PageSet.from_roaring(data) == pages
        if len(pages) < 100_000:
            by_page = cls(pages.pages())
            assert PageSet.from_roaring(by_page.serialize(), bits=width) == pages
            by_page.run_optimize()
            assert by_page.serialize() == data


def test_equal_sets_are_equal_bytes(rng: np.random.Generator, scale: float) -> None:
    for _ in range(round(40 * scale)):
        one, two = random_set(rng, 64), random_set(rng, 64)
        assert ((one | two) - one).to_roaring() == (two - one).to_roaring()
        assert ((one ^ two) ^ two).to_roaring() == one.to_roaring()


def test_any_buffer_is_read() -> None:
    pages = page_set((3, 9), (1 << 40, (1 << 40) + 70_000))
    data = pages.to_roaring()
    for given in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        assert PageSet.from_roaring(given) == pages


def test_widths() -> None:
    top = page_set(((1 << 32) - 1, 1 << 32))
    assert PageSet.from_roaring(top.to_roaring(32)) == top
    beyond = page_set(((1 << 32) - 1, (1 << 32) + 1))
    with pytest.raises(RangeError, match="gfn 4294967296 "):
        beyond.to_roaring(32)
    for width in (0, 16, 65, "64", None):
        with pytest.raises(ValueError, match="32 or 64"):
            beyond.to_roaring(width)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="32 or 64"):
        PageSet.from_roaring(b"", bits=33)
    everything = page_set((0, 1 << 32))
    assert PageSet.from_roaring(everything.to_roaring(32)) == everything


def test_a_count_of_parts_that_looks_like_a_cookie() -> None:
    for count in (12346, 12347, 12347 + (3 << 16)):
        part = narrow([values(0, 7)])
        data = wide(*((high, part) for high in range(count)))
        pages = PageSet.from_roaring(data)
        assert len(pages) == pages.nranges == count
        assert pages.to_roaring() == data


# Bytes that lie

GOOD = [values(0, 1, 5), bits(3, *range(0, 10_000, 2)), runs(9, (0, 3), (10, 20))]


def refused(data: bytes, offset: int, what: str) -> None:
    with pytest.raises(FormatError, match=what) as caught:
        PageSet.from_roaring(data)
    assert caught.value.offset == offset


def test_what_is_not_the_shortest_is_read() -> None:
    data = narrow([runs(0, (4, 2), (6, 3), (9, 1)), values(1, 0, 1, 2, 3), runs(2, (0, 65536))])
    assert PageSet.from_roaring(data) == page_set((4, 10), (65536, 65540), (131072, 196608))
    assert PageSet.from_roaring(wide((5, narrow([])))) == PageSet()


@pytest.mark.parametrize(
    ("containers", "offset", "what"),
    [
        ([values(0, 1), values(0, 2)], 12, "key is not above"),
        ([values(7, 1), values(6, 2)], 12, "key is not above"),
        ([values(0, 5, 5)], 18, "not above the one before"),
        ([values(0, 5, 4)], 18, "not above the one before"),
        ([values(0, *range(40), 39)], 16 + 80, "not above the one before"),
        ([bits(0, *range(5000), pages=5001)], 16, "more or fewer bits"),
        ([runs(0, (5, 3), (7, 1))], 15, "begins before the end"),
        ([runs(0, (5, 3), (4, 1))], 15, "begins before the end"),
        ([runs(0, *((i * 4, 2) for i in range(40)), (3, 1))], 11 + 160, "begins before the end"),
        ([runs(0, (65535, 2))], 13, "beyond its container"),
        ([runs(0, (65535, 2), (1, 1))], 13, "beyond its container"),
        ([runs(0, (5, 3), pages=4)], 9, "more or fewer pages"),
        ([runs(0, pages=1)], 9, "more or fewer pages"),
    ],
)
def test_containers_that_lie(containers: list[Container], offset: int, what: str) -> None:
    data = narrow(containers)
    refused(data, offset, what)
    refused(wide((0, data)), offset + 12, what)


def test_headers_that_lie() -> None:
    refused(b"", 0, "the end")
    refused(bytes(7), 7, "the end")
    refused(b"\x00" * 4 + b"\x01" * 4, 0, "neither a cookie")
    refused(struct.pack("<II", 12346, 65537), 4, "65,536 containers")
    refused(struct.pack("<II", 12346, 65536), 8, "the end, within the keys")
    refused(wide((0, b"\x99" * 8)), 12, "no cookie")
    part = narrow([values(0, 7)])
    refused(wide((1, part), (1, part)), 12 + len(part), "high half is not above")
    refused(wide((1, part), (0, part)), 12 + len(part), "high half is not above")
    refused(wide((GFN_LIMIT >> 32, part)), 8, "beyond 2\\^52")
    refused(struct.pack("<Q", 3) + wide((1, part))[8:], 12 + len(part), "the end, where the high")
    for data in (part, wide((1, part))):
        refused(data + b"\x00", len(data), "beyond the end")
    wrong = bytearray(part)
    wrong[12] += 2
    refused(bytes(wrong), 12, "not where its container begins")


@pytest.mark.parametrize("data", [narrow(GOOD), wide((0, narrow(GOOD)), (7, narrow(GOOD[2:])))])
def test_cut_off_at_every_byte(data: bytes) -> None:
    for damaged in truncations(data):
        with pytest.raises(FormatError) as caught:
            PageSet.from_roaring(damaged)
        assert caught.value.offset is not None
        assert caught.value.offset <= len(damaged)


SMALL = [values(0, 1, 5), runs(9, (0, 3), (10, 20)), values(10, 65535), values(65535, 0)]


@pytest.mark.parametrize(
    ("data", "spare"), [(narrow(SMALL), 4), (wide((0, narrow(SMALL)), (7, narrow(SMALL[:2]))), 10)]
)
def test_every_bit_flipped(data: bytes, spare: int) -> None:
    """What is read is what its bytes say: another set, but for the spare bits of flags."""
    good = PageSet.from_roaring(data)
    found = []
    for damaged in bit_flips(data):
        try:
            found.append(PageSet.from_roaring(damaged))
        except FormatError as error:
            assert error.offset is not None
            assert error.offset <= len(damaged)
    assert found.count(good) == spare
    assert spare < len(found) < 8 * len(data)
    for pages in found:
        assert PageSet.from_roaring(pages.to_roaring()) == pages


def far_apart(step: int) -> bytes:
    """A page in each of many sets of 32 bits: all nodes on the way to it for 15 bytes."""
    highs = range(0, GFN_LIMIT >> 32, step)
    one = narrow([runs(0, (0, 1))])
    return wide(*((high, one) for high in highs))


@pytest.mark.parametrize(
    "data",
    [
        *(far_apart(1 << bits) for bits in range(8, 20)),
        narrow([values(key, 1, 3, 5) for key in range(0, 65536, 64)]),
        narrow([runs(key, (0, 1), (2, 1), (4, 1)) for key in range(0, 65536, 64)]),
        narrow([bits(key, *range(0, 8194, 2)) for key in range(9)]),
        narrow([runs(0, *((i * 2, 1) for i in range(1025)))]),
    ],
)
def test_memory_is_bounded_by_the_input(data: bytes) -> None:
    assert PageSet.from_roaring(data).nbytes <= BYTES_PER_BYTE * len(data) + 1024
