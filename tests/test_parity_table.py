# tier: promise
"""docs/pyroaring.md names every public method of pyroaring, and only counterparts that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pyroaring
import pytest

import pysharedpages

PAGE = Path(__file__).resolve().parent.parent / "docs" / "pyroaring.md"
CLASSES = (
    pyroaring.BitMap,
    pyroaring.BitMap64,
    pyroaring.FrozenBitMap,
    pyroaring.FrozenBitMap64,
)
OF_CYTHON = {"__pyx_vtable__", "__reduce_cython__", "__setstate_cython__"}
Row = tuple[str, str, str]


def table() -> list[Row]:
    """(name there, counterpart here, note) of each row of three cells that begins with a name."""
    rows = re.findall(
        r"^\| `(\w+)` \| (.+?) \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert rows, "docs/pyroaring.md has no rows"
    return [(name, here.strip(), note.strip()) for name, here, note in rows]


ROWS = table()


def test_every_name_is_in_the_table_once() -> None:
    listed = [name for name, _, _ in ROWS]
    there = {name for each in CLASSES for name in dir(each)} - set(dir(object)) - OF_CYTHON
    public = {name for name in there if not name.startswith("_") or name.startswith("__")}
    assert sorted(listed) == sorted(public)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_counterparts_are_there(row: Row) -> None:
    _, here, note = row
    if here == "-":
        assert len(note) > 20, "no counterpart, and no reason"
        return
    assert re.fullmatch(r"`(PageSet|SharedPages)\.\w+`", here)
    for owner, name in re.findall(r"`(PageSet|SharedPages|Snapshot)\.(\w+)`", here + note):
        assert hasattr(getattr(pysharedpages, owner), name), f"{owner}.{name}"


def test_names_that_are_the_same_are_said_to_be() -> None:
    """A name of pyroaring's that a PageSet has is its counterpart: no second meaning hides."""
    for name, here, _ in ROWS:
        if hasattr(pysharedpages.PageSet, name) and name != "__setstate__":
            assert here == f"`PageSet.{name}`"


def test_files_that_the_page_names_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"\]\((\w+\.\w+)\)", text) + [
        f"../{path}" for path in re.findall(r"`(tests/\w+\.py)`", text)
    ]
    assert len(named) >= 4
    for path in named:
        assert (PAGE.parent / path).is_file(), path
