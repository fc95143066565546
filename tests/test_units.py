# tier: unit
"""Sizes in text: what is read, what is refused, and with which bound in the message."""

from __future__ import annotations

import pytest

from pysharedpages.errors import FormatError, RangeError
from pysharedpages.units import format_bytes, parse_bytes, parse_pages


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("7B", 7),
        ("512MiB", 536_870_912),
        ("512 mib", 536_870_912),
        (" 1T ", 1_099_511_627_776),
        ("1.5KiB", 1536),
        ("16EiB", 18_446_744_073_709_551_616),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "1MB", "1 parsec", "-1", "1e3", "0x10", "1_000", "1.MiB", "9" * 5000]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="is no size"):
        parse_bytes(text)


def test_part_of_a_byte_is_refused() -> None:
    with pytest.raises(FormatError, match=r"'0\.3KiB' is not a whole number of bytes"):
        parse_bytes("0.3KiB")


def test_sizes_above_64_bits_are_refused() -> None:
    with pytest.raises(RangeError, match=r"'16\.5EiB' is above the largest size, 2\^64 bytes"):
        parse_bytes("16.5EiB")


def test_only_text_is_taken() -> None:
    with pytest.raises(TypeError, match="not int"):
        parse_bytes(4096)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "page_size", "pages"),
    [("1TiB", 4096, 268_435_456), ("1TiB", 65536, 16_777_216), ("16EiB", 4096, 1 << 52)],
)
def test_pages_are_counted(text: str, page_size: int, pages: int) -> None:
    assert parse_pages(text, page_size) == pages


@pytest.mark.parametrize(
    ("text", "page_size", "message"),
    [
        ("5000B", 4096, "not a multiple of the page size, 4096 bytes"),
        ("16EiB", 2048, "is 9007199254740992 pages"),
        ("4KiB", 0, "a page of 0 bytes"),
    ],
)
def test_pages_out_of_bounds_are_refused(text: str, page_size: int, message: str) -> None:
    with pytest.raises(RangeError, match=message):
        parse_pages(text, page_size)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1000, "1000B"), (1536, "1536B"), (1 << 40, "1TiB"), (3 << 20, "3MiB")],
)
def test_sizes_are_shown_in_the_largest_exact_unit(size: int, text: str) -> None:
    assert format_bytes(size) == text
