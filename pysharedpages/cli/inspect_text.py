"""The text that `pysharedpages inspect` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pysharedpages.picture import ASCII, BLOCKS, line
from pysharedpages.units import format_bytes

if TYPE_CHECKING:
    from pysharedpages._core import PageSet
    from pysharedpages.cli.inspect import Contents

__all__ = ["text_of"]

_PAGE: Final = 4096
_BAR: Final = 32


def text_of(contents: Contents, name: str, pages: PageSet, *, unicode: bool) -> Iterator[str]:
    """The lines about the file `name`; without `unicode`, ASCII alone. Pages are of 4 KiB."""
    blocks = BLOCKS if unicode else ASCII
    yield f"{name}: {contents.format}, {contents.bytes:,} bytes"
    yield f"  {contents.pages:,} pages ({_size(contents.pages)}) in {contents.ranges:,} ranges"
    if not contents.pages:
        return
    yield ""
    yield f"  |{line(pages, sum(map(len, contents.picture)), blocks)}|"
    for row in contents.picture:
        start, stop = row[0][0], row[-1][1]
        width = f"{len(row)} x {_size(row[0][1] - start)}" if len(row) > 1 else "1 block"
        held = sum(members for _, _, members in row)
        yield f"  {_range(start, stop)}  {held:,} pages, {width}"
    yield from _largest(contents)
    yield from _histogram(contents, blocks[-1])


def _largest(contents: Contents) -> Iterator[str]:
    if not contents.largest_ranges:
        return
    yield ""
    yield "largest ranges"
    for start, stop in contents.largest_ranges:
        yield f"  {_range(start, stop)}  {stop - start:,} pages ({_size(stop - start)})"
    left = contents.ranges - len(contents.largest_ranges)
    if left:
        yield f"  and {left:,} smaller ones"


def _histogram(contents: Contents, block: str) -> Iterator[str]:
    yield ""
    yield f"  {'pages in a range':>24} {'ranges':>14} {'pages':>18}"
    most = max(ranges for _, ranges, _ in contents.histogram)
    for least, ranges, pages in contents.histogram:
        bar = block * -(-ranges * _BAR // most)
        span = f"{least:,}" if least == 1 else f"{least:,} to {2 * least - 1:,}"
        yield f"  {span:>24} {ranges:>14,} {pages:>18,} {bar}"


def _range(start: int, stop: int) -> str:
    return f"{start:#15x} - {stop:#15x}"


def _size(pages: int) -> str:
    return format_bytes(pages * _PAGE)
