# tier: unit
"""The pictures that notebooks and `plot` show: well-formed, small, and of what is in the set."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from model import GFN_LIMIT, gfns, ranges

from pysharedpages import ClosedError, PageSet, SharedPages, picture, plot

GIB, TIB = 1 << 18, 1 << 28
SVG = "{http://www.w3.org/2000/svg}"
ROOT = Path(__file__).resolve().parent.parent
HARMLESS = {"svg", "title", "text", "path", "rect"}
Make = Callable[..., SharedPages]


def made(*pairs: tuple[int, int]) -> PageSet:
    """The set of these ranges."""
    return PageSet.from_ranges(ranges(*pairs))


def boot() -> PageSet:
    """The `boot` workload of the benchmarks in 1 TiB, and device memory at 70 TiB."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import workloads
    finally:
        sys.path.pop(0)
    return PageSet.from_ranges(workloads.shared("boot")) | made((70 * TIB, 70 * TIB + 4096))


def drawn(pages: PageSet) -> ElementTree.Element:
    """The picture, read as XML: nothing in it is active or comes from elsewhere."""
    text = pages._repr_html_()
    assert len(text) < 20_000
    assert text.isascii()
    root = ElementTree.fromstring(text)
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= HARMLESS
    assert not re.search(r"script|href|url|style|on\w+=", text)
    return root


def lines(root: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def rows(root: ElementTree.Element) -> int:
    """Frames as wide as the picture: one a stretch."""
    return sum(each.get("width") == "639" for each in root.iter(f"{SVG}rect"))


def test_an_empty_set() -> None:
    root = drawn(PageSet())
    assert lines(root) == ["PageSet: 0 pages (0 KiB) in 0 ranges"]
    assert rows(root) == 0


def test_one_page() -> None:
    root = drawn(made((5, 6)))
    assert lines(root)[:2] == [
        "PageSet: 1 pages (4 KiB) in 1 ranges",
        "[0x5, 0x6), 4 KiB at 20 KiB: 1 pages, 4 KiB",
    ]
    first = next(iter(root.iter(f"{SVG}path")))
    assert (first.get("d"), first.get("fill-opacity")) == ("M0 44h640v16h-640z", "1.00")


def test_every_page() -> None:
    root = drawn(made((0, GFN_LIMIT)))
    assert lines(root)[1].startswith("[0x0, 0x10000000000000), 16 EiB at 0 KiB: ")
    assert rows(root) == 1


def test_what_a_guest_of_a_tebibyte_shares() -> None:
    root = drawn(boot())
    title, low, high = lines(root)[:3]
    assert title == "PageSet: 303,104 pages (1.156 GiB) in 4,162 ranges"
    assert low == "[0x40000, 0xfffb622), 1023 GiB at 1 GiB: 299,008 pages, 1.141 GiB"
    assert high == (
        "[0x460000000, 0x460001000), 16 MiB at 70 TiB, after a gap of 69 TiB: 4,096 pages, 16 MiB"
    )
    assert rows(root) == 2
    shades = {each.get("fill-opacity") for each in root.findall(f"{SVG}path")[:3]}
    assert len(shades) > 1, "one shade shows nothing"


def test_a_hostile_set_is_small_and_quick_to_show() -> None:
    """10^8 pages in as many ranges, of which a text reads a bounded number."""
    alternate = PageSet.from_bitmap(np.full(25_000_000, 0x55, np.uint8))
    assert len(alternate) == 100_000_000
    text = repr(alternate)
    assert text == (
        "<PageSet 100000000 pages in 4096 or more ranges:"
        " [0x0, 0x1) [0x2, 0x3) [0x4, 0x5) [0x6, 0x7) ...>"
    )
    assert lines(drawn(alternate))[0] == (
        "PageSet: 100,000,000 pages (381.5 GiB) in 100,000,000 ranges"
    )


def test_text_reads_one_batch_of_ranges() -> None:
    few = PageSet.from_pages(np.arange(0, 2 * 4095, 2, dtype=np.uint64))
    many = few | made((1 << 40, GFN_LIMIT))
    assert repr(few).startswith("<PageSet 4095 pages in 4095 ranges: [0x0, 0x1) ")
    assert " in 4096 or more ranges: " in repr(many)
    assert repr(made((1, 2))) == "<PageSet 1 pages in 1 ranges: [0x1, 0x2)>"
    assert repr(PageSet()) == "<PageSet 0 pages in 0 ranges>"


def test_any_set_stays_small(rng: np.random.Generator, scale: float) -> None:
    for _ in range(max(3, round(30 * scale))):
        starts = np.concatenate(
            [
                rng.integers(1 << rng.integers(0, 52), size=rng.integers(1, 400), dtype=np.uint64)
                for _ in range(rng.integers(1, 9))
            ]
        )
        lengths = rng.integers(1, 1 << rng.integers(1, 40), size=len(starts), dtype=np.uint64)
        stops = np.minimum(starts + lengths, np.uint64(GFN_LIMIT))
        pages = PageSet.from_ranges(np.stack([starts, stops], axis=1))
        assert 1 <= rows(drawn(pages)) <= 5


def test_snapshots_name_themselves(tracker: Make) -> None:
    pages = tracker(1000)
    pages.share(3, 4)
    snap = pages.snapshot()
    assert lines(drawn(snap))[0] == "Snapshot: 4 pages (16 KiB) in 1 ranges"
    snap.close()
    assert snap._repr_html_() == "<pre>&lt;Snapshot, closed&gt;</pre>"


def test_bins() -> None:
    pages = made((0, 10), (15, 20))
    borders = picture.edges(0, 20, 4)
    assert borders.tolist() == [0, 5, 10, 15, 20]
    assert picture.shares(pages, borders).tolist() == [1.0, 1.0, 0.0, 1.0]
    assert picture.edges(7, 10, 100).tolist() == [7, 8, 9, 10]
    assert picture.edges(0, GFN_LIMIT, 3).tolist() == [0, 2**52 // 3, 2**53 // 3, 2**52]
    parts = np.array([0, 1e-9, 1e-4, 2e-4, 1e-3, 0.01, 0.1, 0.11, 0.999, 1.0])
    assert picture.levels(parts).tolist() == [0, 1, 1, 2, 2, 3, 4, 5, 5, 6]


@pytest.mark.parametrize(
    ("npages", "text"),
    [(0, "0 KiB"), (1, "4 KiB"), (256, "1 MiB"), (300, "1.172 MiB"), (2**52, "16 EiB")],
)
def test_sizes(npages: int, text: str) -> None:
    assert picture.size_of(npages) == text


# Snapshots over time.


def test_a_plot_has_a_row_for_each_snapshot(tracker: Make) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    pages = tracker(None)
    snapshots = []
    for gfn in (0, 8, 70 * TIB):
        pages.share(gfn, 8)
        snapshots.append(pages.snapshot())
    axes = plot(snapshots)
    (image,) = axes.images
    colours = np.asarray(image.get_array())
    assert [text.get_text() for text in axes.get_yticklabels()] == ["1", "2", "3"]
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "0 KiB\n+ 64 KiB",
        "70 TiB\n+ 32 KiB",
    ]
    assert np.ma.filled(colours[:, 0], -1).tolist() == [6, 6, 6]
    assert np.ma.filled(colours[:, -1], -1).tolist() == [0, 0, 6]
    assert axes.get_ylabel() == "epoch"
    pyplot.close(axes.figure)


def test_a_plot_into_axes_that_are_there() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    figure, axes = pyplot.subplots()
    assert plot(made((3, 7)), ax=axes) is axes
    assert axes.get_ylabel() == "set"
    pyplot.close(figure)
    empty = plot([PageSet(), PageSet()])
    assert not np.asarray(empty.images[0].get_array()).any()
    pyplot.close(empty.figure)


def test_what_cannot_be_plotted(tracker: Make) -> None:
    with pytest.raises(ValueError, match="0 snapshots"):
        plot([])
    with pytest.raises(TypeError):
        plot([1])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        plot([made((1, 2)), gfns(1)])  # type: ignore[list-item]
    snap = tracker(10).snapshot()
    snap.close()
    with pytest.raises(ClosedError):
        plot([snap])


def test_without_matplotlib_the_command_to_install_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'pysharedpages\[plot\]'"):
        plot(made((1, 2)))


def test_the_pictures_of_the_docs_are_those_of_the_example(tmp_path: Path) -> None:
    command = [sys.executable, "-P", str(ROOT / "examples" / "picture.py"), str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, timeout=300)
    made_now, kept = tmp_path / "boot.svg", ROOT / "docs" / "boot.svg"
    assert made_now.read_bytes() == kept.read_bytes()
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    sizes = []
    for file in (tmp_path / "boot.png", ROOT / "docs" / "boot.png"):
        data = file.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) < 60_000
        sizes.append(data[16:24])
    assert sizes[0] == sizes[1]


def test_a_notebook_shows_the_picture() -> None:
    formatters = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    data, _ = formatters.DisplayFormatter().format(made((1, 2)))
    assert data["text/html"].startswith("<svg ")
    assert json.dumps(data)
