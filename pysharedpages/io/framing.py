"""The bytes around a set: the framing of `deletion-vector-v1`, and the Puffin file around that.

A file is looked at through a `Source`, by positional reads. Nothing is read that the file's size
does not allow, and a short read, of a file that others cut off meanwhile, is a `FormatError`.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

from pysharedpages.errors import FormatError

__all__ = ["MAGIC", "MOST", "Place", "Source", "framed", "is_framed", "locate"]

MAGIC: Final = b"\xd1\xd3\x39\x64"
_PUFFIN: Final = b"PFA1"
_TYPE: Final = "deletion-vector-v1"
MOST: Final = (1 << 31) - 1 - len(MAGIC)
"""Bytes of a vector: a length of 31 bits counts the magic too."""
_FRAME: Final = 12
"""Bytes of a blob that are not the vector: length, magic, CRC."""
_FOOTER: Final = 12
"""Bytes behind a footer's payload: its size, flags, magic."""
_ROW_POSITION: Final = 2147483645
"""The field that Iceberg computes deletion vectors for, its metadata column _pos."""


def is_framed(head: bytes) -> bool:
    """Whether a file with these first eight bytes is one that `locate` takes."""
    return head[:4] == _PUFFIN or head[4:8] == MAGIC


def framed(vector: bytes, count: int, data_file: str) -> list[bytes]:
    """A Puffin file, in pieces, with a set of `count` pages that is so serialised."""
    length = len(MAGIC) + len(vector)
    crc = zlib.crc32(vector, zlib.crc32(MAGIC))
    blob = {
        "type": _TYPE,
        "fields": [_ROW_POSITION],
        "snapshot-id": -1,
        "sequence-number": -1,
        "offset": len(_PUFFIN),
        "length": len(vector) + _FRAME,
        "properties": {"referenced-data-file": data_file, "cardinality": str(count)},
    }
    footer = {"blobs": [blob], "properties": {"created-by": "pysharedpages"}}
    payload = json.dumps(footer, separators=(",", ":")).encode("ascii")
    return [
        _PUFFIN + struct.pack(">I", length) + MAGIC,
        vector,
        struct.pack(">I", crc) + _PUFFIN + payload,
        struct.pack("<iI", len(payload), 0) + _PUFFIN,
    ]


class Source:
    """A file open for positional reads. Safe in any thread, but for `close`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        # O_NONBLOCK: a pipe that nobody writes to is refused, not waited for.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            os.close(number)
            raise OSError(errno.EINVAL, "it is no regular file", self.path)
        self.size = status.st_size
        self._file = open(number, "rb", buffering=0)  # noqa: SIM115

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; again does nothing."""
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._file.closed

    def read(self, offset: int, count: int) -> bytes:
        """So many bytes; FormatError if the file has them not, or no longer."""
        if offset + count > self.size:
            raise self.error(f"the file ends, {offset + count - self.size} bytes short", self.size)
        pieces = []
        while count:
            piece = os.pread(self._file.fileno(), min(count, 1 << 30), offset)
            if not piece:
                raise self.error("the file has become shorter", offset)
            pieces.append(piece)
            offset += len(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def error(self, what: str, offset: int) -> FormatError:
        """The error that blames a byte of this file."""
        return FormatError(f"{self.path!r}, byte {offset} of {self.size}: {what}", offset=offset)

    def error_in_vector(self, error: FormatError, start: int) -> FormatError:
        """The same for an error of `PageSet.from_roaring`, of bytes that are from `start` on."""
        return self.error(str(error).partition(": ")[2], start + (error.offset or 0))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a vector lies in a file, and what it must be."""

    source: Source
    start: int
    stop: int
    count: int | None
    count_at: int

    def check(self, vector: bytes) -> None:
        """FormatError unless the CRC that follows the vector is right."""
        crc = zlib.crc32(vector, zlib.crc32(MAGIC))
        (told,) = struct.unpack(">I", self.source.read(self.stop, 4))
        if crc != told:
            what = f"the CRC-32 is {told:#010x}, but that of the vector {crc:#010x}"
            raise self.source.error(what, self.stop)

    def check_count(self, count: int) -> None:
        """FormatError unless the footer, if there is one, tells as many pages."""
        if self.count not in (None, count):
            what = f"the cardinality is {self.count}, but the vector has {count} pages"
            raise self.source.error(what, self.count_at)


def locate(source: Source) -> Place:
    """Where the set lies in a Puffin file, or in one that is the blob alone."""
    start, stop, count, count_at = 0, source.size, None, 0
    if source.read(0, min(4, source.size)) == _PUFFIN:
        start, stop, count, count_at = _from_footer(source)
    if stop - start < _FRAME:
        raise source.error(f"{stop - start} bytes are too few for a deletion vector", stop)
    length, magic = struct.unpack(">I4s", source.read(start, 8))
    if magic != MAGIC:
        raise source.error(f"the magic is {magic.hex(' ')}, not {MAGIC.hex(' ')}", start + 4)
    if length != stop - start - 8:
        what = f"the length is {length}, but {stop - start - 8} bytes are there"
        raise source.error(what, start)
    return Place(source, start + 8, stop - 4, count, count_at)


def _from_footer(source: Source) -> tuple[int, int, int | None, int]:
    """Where the one deletion vector of a Puffin file lies; its cardinality, and the footer."""
    end = source.size - _FOOTER
    if end < 2 * len(_PUFFIN):
        raise source.error("the file ends within a footer", source.size)
    size, flags, magic = struct.unpack("<iI4s", source.read(end, _FOOTER))
    if magic != _PUFFIN:
        raise source.error("no magic of a Puffin file at its end", end + 8)
    if flags:
        raise source.error(f"flags {flags:#x}: a compressed footer is not read", end + 4)
    start = end - size
    if size < 0 or start < 2 * len(_PUFFIN):
        raise source.error(f"a footer of {size} bytes, which the file has not", end)
    if source.read(start - 4, 4) != _PUFFIN:
        raise source.error("no magic where the footer begins", start - 4)
    blob = _the_blob(source, start, source.read(start, size))
    offset, length = (_integer(source, start, blob, key) for key in ("offset", "length"))
    if not 4 <= offset <= offset + length <= start - 4:
        raise source.error(f"a blob of {length} bytes from byte {offset} on", start)
    return offset, offset + length, _cardinality(source, start, blob), start


def _integer(source: Source, start: int, blob: dict[str, Any], key: str) -> int:
    value = blob.get(key)
    if type(value) is not int:
        raise source.error(f"{key} is {str(value)[:40]!r}, no integer", start)
    return value


def _the_blob(source: Source, start: int, payload: bytes) -> dict[str, Any]:
    try:
        footer = json.loads(str(payload, "utf-8"))  # bytes might be UTF-16 to it
        blobs = [blob for blob in footer["blobs"] if blob["type"] == _TYPE]
        first: dict[str, Any] = blobs[0]
    except IndexError:
        raise source.error(f"no blob is of type {_TYPE}", start) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        what = f"the footer is no JSON of a Puffin file: {type(error).__name__}"
        at = getattr(error, "pos", 0) if isinstance(error, json.JSONDecodeError) else 0
        raise source.error(what, start + at) from None
    if len(blobs) > 1:
        raise source.error(f"{len(blobs)} blobs are of type {_TYPE}: which is meant?", start)
    if first.get("compression-codec") is not None:
        raise source.error("a deletion vector is not compressed", start)
    return first


def _cardinality(source: Source, start: int, blob: dict[str, Any]) -> int | None:
    properties = blob.get("properties")
    text = properties.get("cardinality") if isinstance(properties, dict) else None
    if text is None:
        return None
    if not isinstance(text, str) or not (text.isascii() and text.isdigit() and len(text) < 20):
        raise source.error(f"the cardinality is {str(text)[:40]!r}, no count", start)
    return int(text)
