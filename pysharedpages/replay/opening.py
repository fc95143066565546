"""Traces as files: plain, gzip or Zstandard, told apart by their first bytes, or standard input."""

from __future__ import annotations

import errno
import gzip
import importlib
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Final

from pysharedpages.errors import FormatError, SharedPagesError

__all__ = ["MissingDecoderError", "Trace", "open_trace"]

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
# A frame to skip may come first, as parallel compressors write it (RFC 8878, 3.1.2).
_ZSTD_FRAMES: Final = (_ZSTD, *(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60)))
# A Zstandard block of four bytes can stand for 128 KiB: fed in small pieces, what one piece
# becomes stays bounded.
_ZSTD_PIECE: Final = 1 << 10
_READ: Final = 1 << 20


class MissingDecoderError(SharedPagesError):
    """The file needs a decoder that is not installed; the message says which."""


class Trace:
    """An open trace; `size` is that of the file in bytes, None where it has none."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = _Counted(raw)
        buffered = io.BufferedReader(self._raw, _READ)
        head = buffered.peek(len(_ZSTD))[: len(_ZSTD)]
        self._pieces: Iterator[bytes]
        if head.startswith(_GZIP):
            self._pieces = _gunzipped(buffered)
        elif head in _ZSTD_FRAMES:
            self._pieces = _unzstd(buffered)
        else:
            self._pieces = iter(lambda: buffered.read1(_READ), b"")
        self.size = _size_of(raw)

    @property
    def position(self) -> int:
        """Bytes of the file read so far, before decompression."""
        return self._raw.count

    def read(self, size: int = _READ, /) -> bytes:
        """The next bytes: `size` of them or a little more; fewer at the end, and none after it.

        Raises `FormatError` where compressed data are damaged or cut off.
        """
        parts, count = [], 0
        for part in self._pieces:
            parts.append(part)
            count += len(part)
            if count >= size:
                break
        return b"".join(parts)


class _Counted(io.RawIOBase):
    """Counts what is read from a binary file."""

    def __init__(self, raw: BinaryIO) -> None:
        self._source = raw
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._take(len(buffer))
        # The first read tells the formats apart, and a pipe may give it byte by byte.
        while not self.count and 0 < len(data) < len(_ZSTD):
            more = self._take(len(buffer) - len(data))
            if not more:
                break
            data += more
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)

    def _take(self, most: int) -> bytes:
        data: bytes | None = self._source.read(most)
        if data is None:
            # Without this it would be taken for the end.
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return data


@contextmanager
def open_trace(path: str) -> Iterator[Trace]:
    """The trace at `path`, or on standard input if that is "-".

    Raises `OSError` if it cannot be opened, `MissingDecoderError` if it is compressed by
    Zstandard and no decoder is installed.
    """
    if path == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        yield Trace(sys.stdin.buffer)
        return
    with open(path, "rb", buffering=0) as raw:
        yield Trace(raw)


def _size_of(raw: BinaryIO) -> int | None:
    try:
        return os.fstat(raw.fileno()).st_size or None
    except (OSError, ValueError):
        return None


def _gunzipped(source: io.BufferedReader[_Counted]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=source, mode="rb") as file:
        while True:
            try:
                data = file.read1(_READ)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise FormatError(f"damaged gzip data: {error}") from error
            if not data:
                return
            yield data


def _unzstd(source: io.BufferedReader[_Counted]) -> Iterator[bytes]:
    new, errors = _zstd_decoder()
    decoder = new()
    while data := source.read(_ZSTD_PIECE):
        while data:
            if decoder.eof:
                decoder = new()
            try:
                out = decoder.decompress(data)
            except errors as error:
                raise FormatError(f"damaged Zstandard data: {error}") from error
            data = decoder.unused_data if decoder.eof else b""
            if out:
                yield out
    if not decoder.eof:
        raise FormatError("Zstandard data are cut off")


def _zstd_decoder() -> tuple[Callable[[], Any], type[Exception]]:
    """A maker of decoders, and what they raise: Python's own from 3.14, else zstandard's."""
    with suppress(ImportError):
        own = importlib.import_module("compression.zstd")
        return own.ZstdDecompressor, own.ZstdError
    try:
        package = importlib.import_module("zstandard")
    except ImportError:
        raise MissingDecoderError(
            "a .zst trace needs zstandard: pip install 'pysharedpages[cli]'"
        ) from None
    return lambda: package.ZstdDecompressor().decompressobj(), package.ZstdError
