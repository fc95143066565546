"""`pysharedpages inspect`: what a file of pages holds."""

from __future__ import annotations

import argparse
import json
import re
import struct
import sys
from dataclasses import asdict, dataclass
from io import BytesIO
from tokenize import TokenError
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet
from pysharedpages.cli.exits import Exit, UsageError
from pysharedpages.cli.inspect_text import text_of
from pysharedpages.errors import FormatError, RangeError
from pysharedpages.io import load
from pysharedpages.io.framing import Source, is_framed
from pysharedpages.picture import bins

__all__ = ["Contents", "add_parser", "contents_of", "run"]

_DESCRIPTION: Final = """\
Show which pages a file holds: how many, in which ranges, and where.

Files are told by content: what io.save wrote or another writer of Iceberg's deletion vectors, plain
Roaring bitmaps of 32 or 64 bits in the portable format, and .npy arrays of ranges."""

_EPILOG: Final = "exit codes: 0 done; 1 the file is malformed; 2 usage, or it cannot be read"

_NPY: Final = b"\x93NUMPY"
_NO_HEADER: Final = (
    *(ValueError, LookupError, TypeError, SyntaxError, TokenError),
    *(RecursionError, MemoryError),
)
"""What NumPy's reader of headers, which evaluates text, raises for text that is none."""
_COOKIES: Final = (12346, 12347)
_BINS: Final = 64


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-parser of this command."""
    parser = commands.add_parser(
        "inspect",
        help="show which pages a file holds",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the file")
    parser.add_argument(
        "--top",
        type=_count,
        default=10,
        metavar="N",
        help="how many of the largest ranges to list (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run, parser=parser)


@dataclass(frozen=True)
class Contents:
    """What a file holds. Ranges are (start, stop), by gfn."""

    format: str
    bytes: int
    pages: int
    ranges: int
    first: int | None
    last: int | None
    largest_ranges: list[tuple[int, int]]
    histogram: list[tuple[int, int, int]]
    """(least pages of a range, ranges, pages): of each power of two that has some."""
    picture: list[list[tuple[int, int, int]]]
    """For each stretch of the address space its bins: (start, stop, pages)."""


def run(options: argparse.Namespace) -> Exit:
    """Read the file and print what it holds."""
    try:
        form, size, pages = _read(options.file)
    except (FormatError, RangeError) as error:
        print(f"pysharedpages: {options.file}: {error}", file=sys.stderr)
        return Exit.CHECK_FAILED
    except OSError as error:
        raise UsageError(f"cannot read {options.file}: {error.strerror}") from error
    contents = contents_of(pages, form, size, options.top)
    if options.json:
        print(json.dumps({"file": options.file} | asdict(contents), indent=2))
        return Exit.DONE
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    name = options.file.encode(encoding, "backslashreplace").decode(encoding)
    for line in text_of(contents, name, pages, unicode=encoding.lower().startswith("utf")):
        print(line)
    return Exit.DONE


def contents_of(pages: PageSet, form: str, size: int, top: int) -> Contents:
    """What is to be told of a set that was read from `size` bytes."""
    table = pages.ranges()
    lengths = table[:, 1] - table[:, 0]
    largest = np.sort(np.argsort(lengths, kind="stable")[::-1][:top])
    return Contents(
        format=form,
        bytes=size,
        pages=len(pages),
        ranges=len(table),
        first=pages.min() if pages else None,
        last=pages.max() if pages else None,
        largest_ranges=[(start, stop) for start, stop in table[largest].tolist()],
        histogram=_histogram(lengths),
        picture=[
            [(each.start, each.stop, each.members) for each in row] for row in bins(pages, _BINS)
        ],
    )


def _histogram(lengths: NDArray[np.uint64]) -> list[tuple[int, int, int]]:
    # Lengths are at most 2^52, so floating point has their powers right.
    powers = np.log2(lengths.astype(np.float64)).astype(np.int64)
    return [
        (1 << power, int(np.sum(powers == power)), int(lengths[powers == power].sum()))
        for power in np.unique(powers).tolist()
    ]


def _read(path: str) -> tuple[str, int, PageSet]:
    """The format of a file, its bytes, and its pages."""
    with Source(path) as source:
        head = source.read(0, min(8, source.size))
        if is_framed(head):
            return "deletion vector", source.size, load(path)
        data = source.read(0, source.size)
    if head.startswith(_NPY):
        return "ranges (.npy)", len(data), PageSet.from_ranges(_ranges_of(data))
    form, pages = _read_roaring(data)
    return form, len(data), pages


def _read_roaring(data: bytes) -> tuple[str, PageSet]:
    """Of a file that may be of either width, the error is that of the one it begins like."""
    narrow = len(data) >= 4 and struct.unpack("<I", data[:4])[0] & 0xFFFF in _COOKIES
    widths = (32, 64) if narrow else (64, 32)
    first_error: FormatError | None = None
    for width in widths:
        try:
            return f"Roaring bitmap, {width} bits", PageSet.from_roaring(data, bits=width)
        except FormatError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _ranges_of(data: bytes) -> NDArray[np.uint64]:
    """The array of a .npy file; it is never unpickled."""
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        header: Any = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = header(file)
    except _NO_HEADER as error:
        what = f"no header of a .npy file of version 1 or 2: {type(error).__name__}"
        raise FormatError(what, offset=0) from None
    start = file.tell()
    if dtype != np.dtype("<u8") or len(shape) != 2 or shape[1] != 2 or fortran:
        text = f"ranges are (n, 2) in C order of uint64, not {shape} of {dtype}"
        raise FormatError(text, offset=start)
    if shape[0] * 16 != len(data) - start:
        text = f"{shape[0]} ranges need {shape[0] * 16} bytes, not {len(data) - start}"
        raise FormatError(text, offset=len(data))
    return np.frombuffer(data, "<u8", offset=start).reshape(-1, 2)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no count from 0 to 999,999")
    return int(text)
