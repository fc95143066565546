"""What any bytes must be to the readers of Roaring files: one set, or a FormatError with its place.

Framed as they are, and with a frame around them whose length and CRC are right, so that what is
behind those is reached.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from typing import Final

from pysharedpages import FormatError, PageSet
from pysharedpages import io as pageio

__all__ = ["BYTES_PER_BYTE", "check"]

BYTES_PER_BYTE: Final = 256
_MAGIC: Final = bytes.fromhex("d1d33964")


def check(data: bytes) -> None:
    """Read the bytes in every way; AssertionError unless all that is true of any file holds."""
    pages = read(lambda: PageSet.from_roaring(data), len(data))
    if pages is not None:
        assert pages.nbytes <= BYTES_PER_BYTE * len(data) + 1024
        assert PageSet.from_roaring(pages.to_roaring()) == pages
    wide = read(lambda: PageSet.from_roaring(data, bits=64), len(data))
    assert wide is None or wide == pages
    body = _MAGIC + data
    framed = struct.pack(">I", len(body)) + body + struct.pack(">I", zlib.crc32(body))
    check_file(data, None)
    check_file(framed, wide)


def check_file(data: bytes, expected: PageSet | None) -> None:
    """Load a file of the bytes, whole and in part: both come to the same."""
    number = os.memfd_create("file")
    try:
        os.write(number, data)
        path = f"/proc/self/fd/{number}"
        whole = read(lambda: pageio.load(path), len(data))
        parts = read(lambda: in_parts(path), len(data))
    finally:
        os.close(number)
    assert whole == parts
    if expected is not None:
        assert whole == expected


def in_parts(path: str) -> PageSet:
    """The set that a mapped one has, once it is verified."""
    with pageio.load(path, mmap=True) as mapped:
        mapped.verify()
        assert mapped.count() == len(mapped)
        return mapped.pageset()


def read(call: Callable[[], PageSet], size: int) -> PageSet | None:
    """The set, or None for a FormatError, whose offset is in the bytes."""
    try:
        return call()
    except FormatError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= size
        return None
