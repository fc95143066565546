"""Snapshots over time as a memory map, drawn by matplotlib, which comes with the `plot` extra.

Not thread-safe, as matplotlib is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages import picture
from pysharedpages._core import PageSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["plot"]

_BINS: Final = 240
_LEAST: Final = 16
_GAP: Final = 3
_SHADES: Final = ("#f5f5f5", "#d3e4f3", "#a6c9e6", "#6aa6d8", "#3a7fc0", "#1c5a9c", "#08306b")


def plot(snapshots: PageSet | Sequence[PageSet], ax: Axes | None = None) -> Axes:
    """Draw sets of pages over time into `ax`, by default a new figure's, and return it.

    A row of colour for each set, the first at the bottom, named by its epoch if it is a Snapshot,
    else by its place. Along it the stretches of the address space in which any of them has members,
    with white where a gap is left out; each stretch is cut into bins, the darker the larger the
    members' part of them. `ax.figure.savefig(path)` makes a file.

    ImportError if matplotlib is missing, ValueError if there are no sets, TypeError for what is
    none, ClosedError for a closed snapshot. Looks at some hundred places of each set, and unites
    them all.
    """
    rows = [snapshots] if isinstance(snapshots, PageSet) else list(snapshots)
    if not rows:
        raise ValueError("there are 0 snapshots to plot: the least is 1")
    found = picture.stretches(PageSet().union(*rows), 8)
    borders = _borders(found)
    if ax is None:
        ax = _new_axes(len(rows))
    image = _draw(ax, np.array([_row(each, borders) for each in rows]))
    ax.set_yticks(range(len(rows)), [_name(i, each) for i, each in enumerate(rows)])
    ax.set_xticks(*_marks(found, borders))
    ax.set_xlabel("guest physical address and length, in pages of 4 KiB")
    ax.set_ylabel("epoch" if all(hasattr(each, "epoch") for each in rows) else "set")
    _legend(ax, image)
    return ax


def _new_axes(rows: int) -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        text = "plot() needs matplotlib: pip install 'pysharedpages[plot]'"
        raise ImportError(text, name=error.name) from error
    return pyplot.subplots(figsize=(9, 1.8 + 0.25 * min(rows, 40)), layout="constrained")[1]


def _borders(found: list[tuple[int, int]]) -> list[NDArray[np.uint64]]:
    """The edges of each stretch's bins: by its length, but never so few that it is not seen."""
    total = sum(stop - start for start, stop in found)
    counts = [max(_LEAST, _BINS * (stop - start) // total) for start, stop in found]
    return [picture.edges(*each, count) for each, count in zip(found, counts, strict=True)]


def _row(pages: PageSet, borders: list[NDArray[np.uint64]]) -> NDArray[np.float64]:
    """A set's levels along all stretches, NaN between them; a narrow stretch is drawn wider."""
    parts: list[NDArray[np.float64]] = []
    for edges in borders:
        levels = picture.levels(picture.shares(pages, edges)).astype(np.float64)
        parts += [np.repeat(levels, -(-_LEAST // len(levels))), np.full(_GAP, np.nan)]
    return np.concatenate(parts[:-1]) if parts else np.zeros(_LEAST)


def _draw(ax: Axes, rows: NDArray[np.float64]) -> AxesImage:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    edges = np.arange(len(_SHADES) + 1) - 0.5
    return ax.imshow(
        rows,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap=ListedColormap(_SHADES),
        norm=BoundaryNorm(edges, len(_SHADES)),
    )


def _marks(
    found: list[tuple[int, int]], borders: list[NDArray[np.uint64]]
) -> tuple[list[float], list[str]]:
    """The middle of each stretch, its address and its length."""
    places, texts, at = [], [], -0.5
    for (start, stop), edges in zip(found, borders, strict=True):
        width = (len(edges) - 1) * -(-_LEAST // (len(edges) - 1))
        places.append(at + width / 2)
        texts.append(f"{picture.size_of(start)}\n+ {picture.size_of(stop - start)}")
        at += width + _GAP
    return places, texts


def _name(place: int, pages: PageSet) -> str:
    return str(getattr(pages, "epoch", place))


def _legend(ax: Axes, image: AxesImage) -> None:
    bar = ax.figure.colorbar(image, ax=ax, ticks=range(len(_SHADES)))
    bar.ax.set_yticklabels(["none", *picture.LEVELS])
    bar.set_label("of a bin at most")
