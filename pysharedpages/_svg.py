"""A set's address space as strips of SVG, for notebooks.

A row for each stretch of the address space that has members, under a line of text that names it;
the gaps between them are left out, and named. A row is a number of bins, the darker the larger the
members' part of them, by powers of ten; a bin with any member at all is seen. No scripts, styles or
outside resources; text is in the page's own colour, so that light and dark pages do alike.

Pure functions of an immutable set, safe in any thread. They look at some thousand places, whatever
the set's size, and count its ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise
from typing import Final, Protocol

import numpy as np

from pysharedpages import picture

__all__ = ["closed", "strips"]

_ROWS: Final = 5
_BINS: Final = 160
_LEVELS: Final = len(picture.LEVELS)
_WIDTH: Final = 640
_BAR: Final = 16
_ROW: Final = 44
_HEAD: Final = 26
_INK: Final = "#2f7ed8"


class Pages(picture.Pages, Protocol):
    """What is asked of a set; PageSet and Snapshot have it."""

    @property
    def nranges(self) -> int: ...


def closed(name: str) -> str:
    """What stands for a closed snapshot."""
    return f"<pre>&lt;{escape(name)}, closed&gt;</pre>"


def strips(name: str, pages: Pages) -> str:
    """An <svg> element of less than 20,000 characters."""
    found = picture.stretches(pages, _ROWS)
    title = (
        f"{name}: {len(pages):,} pages ({picture.size_of(len(pages))}) in {pages.nranges:,} ranges"
    )
    body = [_text(0, 14, title, bold=True)]
    for row, (start, stop) in enumerate(found):
        gap = start - found[row - 1][1] if row else 0
        top = _HEAD + row * _ROW
        body.append(_text(0, top + 12, _label(pages, start, stop, gap)))
        body += _bar(pages, start, stop, top + 18)
    bottom = _HEAD + len(found) * _ROW
    if found:
        body += _legend(bottom)
        bottom += _BAR + 1
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{_WIDTH}" height="{bottom}"'
        f' viewBox="0 0 {_WIDTH} {bottom}" font-family="sans-serif" font-size="12"'
        f' fill="currentColor"><title>{escape(title)}</title>{"".join(body)}</svg>'
    )


def _label(pages: Pages, start: int, stop: int, gap: int) -> str:
    inside = pages.count(start, stop)
    low, length, held, left_out = map(picture.size_of, (start, stop - start, inside, gap))
    after = f", after a gap of {left_out}" if gap else ""
    return f"[{start:#x}, {stop:#x}), {length} at {low}{after}: {inside:,} pages, {held}"


def _bar(pages: Pages, start: int, stop: int, top: int) -> Iterator[str]:
    """The row of a stretch: a path for each darkness, neighbours of the same one joined."""
    shares = picture.shares(pages, picture.edges(start, stop, _BINS))
    levels = picture.levels(shares)
    borders = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
    paths: dict[int, list[str]] = {}
    for low, high in pairwise(borders):
        x, width = (each * _WIDTH / len(levels) for each in (low, high - low))
        box = f"M{x:.5g} {top}h{width:.5g}v{_BAR}h-{width:.5g}z"
        paths.setdefault(int(levels[low]), []).append(box)
    for level, boxes in sorted(paths.items()):
        if level:
            yield f'<path d="{"".join(boxes)}" {_ink(level)}/>'
    yield _frame(0, top, _WIDTH)


def _legend(top: int) -> Iterator[str]:
    """The darknesses, each before the part of a bin that it stands for."""
    yield _text(0, top + 12, "of a bin at most:")
    for level, part in enumerate(picture.LEVELS, 1):
        x = 100 + 84 * (level - 1)
        yield f'<path d="M{x} {top}h20v{_BAR}h-20z" {_ink(level)}/>'
        yield _frame(x, top, 20)
        yield _text(x + 24, top + 12, part)


def _ink(level: int) -> str:
    return f'fill="{_INK}" fill-opacity="{0.25 + 0.75 * (level - 1) / (_LEVELS - 1):.2f}"'


def _frame(x: int, top: int, width: int) -> str:
    return (
        f'<rect x="{x}.5" y="{top}.5" width="{width - 1}" height="{_BAR - 1}" fill="none"'
        ' stroke="currentColor" stroke-opacity="0.4"/>'
    )


def _text(x: int, y: int, text: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}"{weight}>{escape(text)}</text>'
