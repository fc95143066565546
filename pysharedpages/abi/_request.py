"""What every decoder returns, and the bytes, registers and events that requests are made of.

Floor: abi. Knows no platform. Pure functions, safe in any thread.
"""

from __future__ import annotations

import mmap
import operator
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pysharedpages._buffers import EVENT_DTYPE, as_bits
from pysharedpages.errors import FormatError, RangeError

__all__ = [
    "GFN_LIMIT",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "U64_LIMIT",
    "Request",
    "bad_byte",
    "conversions",
    "copied",
    "negative",
    "pages_done",
    "part",
    "register",
    "whole",
    "write_at",
]

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
GFN_LIMIT: Final = 1 << 52
U64_LIMIT: Final = 1 << 64

# Buffers of bytes for themselves: a slice copies, and one that is assigned is written.
_SLICED: Final = (bytes, bytearray, mmap.mmap)
_WRITTEN: Final = (bytearray, mmap.mmap)


class Request(Protocol):
    """A decoded request to convert pages."""

    @property
    def events(self) -> NDArray[np.void]:
        """The conversions asked for, in order: (n,) EVENT_DTYPE."""

    @property
    def status(self) -> int:
        """0, or the platform's own code for what is wrong with the request."""


def bad_byte(offset: int, what: str) -> FormatError:
    """The error for a byte, of what the caller gave, that is wrong."""
    return FormatError(f"byte {offset}: {what}", offset=offset)


def part(buffer: Any, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a buffer, or those of them that it has, read once."""
    view = buffer if isinstance(buffer, _SLICED) else as_bits(buffer)
    return bytes(view[start:stop])


def copied(buffer: Any, most: int, least: int, what: str) -> bytes:
    """The first bytes of a buffer, at most `most`, read once.

    FormatError if there are fewer than `least`.
    """
    data = part(buffer, 0, most)
    if len(data) < least:
        text = f"{what} ends at byte {len(data)}: {least} bytes are needed"
        raise FormatError(text, offset=len(data))
    return data


def whole(buffer: Any, size: int, what: str) -> bytes:
    """A buffer of exactly `size` bytes, read once. FormatError for any other length."""
    data = copied(buffer, size + 1, size, what)
    if len(data) > size:
        raise FormatError(f"{what} goes on at byte {size}, where it ends", offset=size)
    return data


def write_at(page: Any, offset: int, value: bytes) -> None:
    """Write bytes into a caller's buffer. TypeError if it cannot be written."""
    view = page if isinstance(page, _WRITTEN) else memoryview(page).cast("B")
    if isinstance(view, memoryview) and view.readonly:
        raise TypeError("the page to answer in is read-only")
    if len(view) < offset + len(value):
        text = f"the page ends at byte {len(view)}: the answer ends at {offset + len(value)}"
        raise FormatError(text, offset=len(view))
    view[offset : offset + len(value)] = value


def register(value: Any, name: str, bits: int = 64) -> int:
    """An unsigned register or field. RangeError if it does not fit into its bits."""
    number = operator.index(value)
    if not 0 <= number < 1 << bits:
        raise RangeError(f"{name} is {number:#x}, not within {bits} bits")
    return number


def negative(code: int) -> int:
    """-code, as a 64-bit register holds it."""
    return -code % U64_LIMIT


def conversions(rows: Sequence[tuple[int, int, bool]]) -> NDArray[np.void]:
    """Events (start, npages, shared) as an array; those of no pages are left out."""
    return np.array([row for row in rows if row[1]], EVENT_DTYPE)


def pages_done(done: Any, npages: int, failed: bool = False) -> int:
    """How many of `npages` were converted, by default all, or none if the next one `failed`.

    RangeError if that is more than there are.
    """
    if done is None:
        return 0 if failed else npages
    count = operator.index(done)
    if not 0 <= count <= npages:
        raise RangeError(f"done is {count}, not within the {npages} pages of the request")
    return count
