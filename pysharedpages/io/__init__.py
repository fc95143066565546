"""Sets in files that others read: Roaring bitmaps in Apache Iceberg's Puffin format.

`save` writes a complete Puffin file with one blob of type `deletion-vector-v1`, from byte 4 on:

| bytes | what |
|---|---|
| 4, big-endian | the length of the magic and the vector |
| 4 | the magic, D1 D3 39 64 |
| n | the set in the portable Roaring format of 64 bits |
| 4, big-endian | the CRC-32 of the magic and the vector |

An engine that is given the place of a deletion vector (Spark, Trino, Iceberg itself) reads the
blob; readers of Puffin files (PyIceberg, ClickHouse) need the file around it. `load` reads
both: a Puffin file that has one such blob, or a file that is the blob alone.

Sources: iceberg.apache.org/puffin-spec; github.com/RoaringBitmap/RoaringFormatSpec.
"""

from __future__ import annotations

import os
from typing import Literal, TypeAlias, overload

from pysharedpages._core import PageSet, roaring_within
from pysharedpages.errors import FormatError
from pysharedpages.io.framing import MOST, Source, framed, locate
from pysharedpages.io.mapped import MappedSet
from pysharedpages.io.replacing import replace_file

__all__ = ["MappedSet", "load", "save"]

_Path: TypeAlias = str | os.PathLike[str]


def save(path: _Path, pageset: PageSet, *, data_file: str = "") -> None:
    """Write a set, or a snapshot, to `path` as a Puffin file. O(n + bytes).

    The file appears whole, in the place of one that is there and with its permissions, once it is
    on the disk; a failure leaves what was there, and nothing else. A link stays a link: what it
    names is replaced. A process that is killed meanwhile may leave a file `.*.part` beside it.
    `data_file` is the blob's property `referenced-data-file`.

    Raises `RangeError` for a set of more than 2^31 - 1 bytes, which the format cannot hold, and
    `OSError`, also where `path` is there and no regular file.
    """
    if not isinstance(pageset, PageSet):
        raise TypeError(f"what is saved is a PageSet, not {type(pageset).__name__}")
    if not isinstance(data_file, str):
        raise TypeError(f"data_file must be str, not {type(data_file).__name__}")
    data_file.encode("utf-8")  # UnicodeEncodeError, a ValueError, for lone surrogates
    replace_file(path, framed(roaring_within(pageset, MOST), len(pageset), data_file))


@overload
def load(path: _Path, mmap: Literal[False] = ...) -> PageSet: ...
@overload
def load(path: _Path, mmap: Literal[True]) -> MappedSet: ...
@overload
def load(path: _Path, mmap: bool) -> PageSet | MappedSet: ...


def load(path: _Path, mmap: bool = False) -> PageSet | MappedSet:
    """The set in a file that `save` or another writer of deletion vectors made.

    With `mmap`, a `MappedSet`, which has read the headers alone and reads what it is asked for.

    Raises `FormatError`, with the byte of the file that is to blame, for anything else, and
    `OSError`.
    """
    if mmap:
        return MappedSet(path)
    with Source(path) as source:
        place = locate(source)
        data = source.read(place.start, place.stop - place.start)
        place.check(data)
        try:
            pages = PageSet.from_roaring(data, bits=64)
        except FormatError as error:
            raise source.error_in_vector(error, place.start) from None
        place.check_count(len(pages))
        return pages
