"""What the tests of the conversion ABIs share: bytes spelt in hex, and every way to damage them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysharedpages import EVENT_DTYPE

U64_MAX = 2**64 - 1
PRIVATE, SHARED = 0, 1


def spelt(text: str) -> bytes:
    """Bytes written in hex, in memory order; blanks and `_` only separate fields."""
    return bytes.fromhex(text.replace("_", ""))


def page(size: int, fields: dict[int, str]) -> bytearray:
    """A page of zeros with bytes written in hex at offsets."""
    data = bytearray(size)
    for offset, text in fields.items():
        value = spelt(text)
        data[offset : offset + len(value)] = value
    return data


def rows(events: NDArray[np.void]) -> list[tuple[int, int, int]]:
    """Events as (start, npages, shared)."""
    assert events.dtype == EVENT_DTYPE
    return [(int(each["start"]), int(each["npages"]), int(each["shared"])) for each in events]


def truncations(data: bytes) -> Iterator[bytes]:
    """The data cut off at every byte, the empty one first."""
    return (data[:length] for length in range(len(data)))


def bit_flips(data: bytes, first: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The data with every single bit of bytes [first, stop) flipped."""
    for bit in range(first * 8, (len(data) if stop is None else stop) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def register_flips(*registers: int) -> Iterator[tuple[int, ...]]:
    """The registers with every single bit of each flipped."""
    for index in range(len(registers)):
        for bit in range(64):
            flipped = list(registers)
            flipped[index] ^= 1 << bit
            yield tuple(flipped)


def legal(events: Any, first: int = 0, stop: int = 2**52) -> None:
    """Assert that all events lie within [first, stop), and convert something each."""
    for start, npages, shared in rows(events):
        assert first <= start and npages > 0 and start + npages <= stop, (start, npages)
        assert shared in (PRIVATE, SHARED)
