"""Sizes written as text: "512MiB" in bytes, "1TiB" in pages.

A multiple is a power of 1,024 and is spelt `KiB MiB GiB TiB PiB EiB`, or by its letter
alone; case and the space before it do not matter. `MB` is refused: half of its users mean
1,000,000 bytes. Everything here is a pure function, safe in any thread.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from pysharedpages.errors import FormatError, RangeError

__all__ = ["format_bytes", "parse_bytes", "parse_pages"]

_LETTERS: Final = "KMGTPE"
_SIZE: Final = re.compile(
    r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?:B|([KMGTPE])(?:iB)?)?", re.IGNORECASE | re.ASCII
)
# Guest frame numbers stay below 2^52, which is every byte of a 64-bit address at 4 KiB a page.
_MAX_BYTES: Final = 1 << 64
_MAX_PAGES: Final = 1 << 52


def parse_bytes(text: str) -> int:
    """The number of bytes that `text` names, 0 to 2^64.

    A decimal fraction is taken where it comes to whole bytes: "1.5KiB" is 1,536.

    Raises `TypeError` if `text` is no string, `FormatError` if it is no size, and
    `RangeError` if the size is above 2^64 bytes.
    """
    if not isinstance(text, str):
        raise TypeError(f"a size in text must be str, not {type(text).__name__}")
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise FormatError(f"{_shown(text)} is no size: give a number and B, KiB, MiB, GiB or TiB")
    number, letter = match.groups()
    power = _LETTERS.index(letter.upper()) + 1 if letter else 0
    size = Fraction(number) * (1 << 10 * power)
    if size.denominator != 1:
        raise FormatError(f"{_shown(text)} is not a whole number of bytes")
    if size > _MAX_BYTES:
        raise RangeError(f"{_shown(text)} is above the largest size, 2^64 bytes")
    return size.numerator


def parse_pages(text: str, page_size: int = 4096) -> int:
    """The number of pages of `page_size` bytes that `text` names, 0 to 2^52.

    Raises what `parse_bytes` raises, and `RangeError` if `page_size` is below 1, if the
    size is no multiple of it, or if the pages are more than 2^52.
    """
    if page_size < 1:
        raise RangeError(f"a page of {page_size} bytes: the least is 1")
    pages, rest = divmod(parse_bytes(text), page_size)
    if rest:
        raise RangeError(f"{_shown(text)} is not a multiple of the page size, {page_size} bytes")
    if pages > _MAX_PAGES:
        raise RangeError(f"{_shown(text)} is {pages} pages: the most is 2^52")
    return pages


def format_bytes(size: int) -> str:
    """`size` bytes in the largest unit that names it exactly: 1,536 is "1536B", 2^40 "1TiB"."""
    power = 0
    while size and size % 1024 == 0 and power < len(_LETTERS):
        size //= 1024
        power += 1
    return f"{size}{_LETTERS[power - 1]}iB" if power else f"{size}B"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
