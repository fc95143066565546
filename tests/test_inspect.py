# tier: unit, hostile
"""`pysharedpages inspect`: every kind of file, its numbers by hand, and files that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from abi_support import bit_flips, truncations
from model import ranges

from pysharedpages import PageSet
from pysharedpages import io as pageio
from pysharedpages.cli import main

TABLE = ranges((0, 16), (100, 101), (200, 201), (1 << 20, (1 << 20) + 512))
PAGES = PageSet.from_ranges(TABLE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pages"


def inspected(capsys: pytest.CaptureFixture[str], path: Path, *options: str) -> dict[str, Any]:
    assert main(["inspect", str(path), "--json", *options]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def write(path: Path, form: str) -> None:
    """The sample as a file of one kind."""
    if form == "deletion vector":
        pageio.save(path, PAGES)
    elif form == "ranges (.npy)":
        with path.open("wb") as file:
            np.save(file, TABLE)
    else:
        path.write_bytes(PAGES.to_roaring(64 if "64" in form else 32))


FORMS = [
    "deletion vector",
    "ranges (.npy)",
    "Roaring bitmap, 32 bits",
    "Roaring bitmap, 64 bits",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_file(path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, form)
    answer = inspected(capsys, path)
    assert answer["format"] == form
    assert answer["bytes"] == path.stat().st_size
    assert (answer["pages"], answer["ranges"]) == (530, 4)
    assert (answer["first"], answer["last"]) == (0, (1 << 20) + 511)
    assert answer["largest_ranges"] == TABLE.tolist()
    assert answer["histogram"] == [[1, 2, 2], [16, 1, 16], [512, 1, 512]]
    assert sum(members for row in answer["picture"] for _, _, members in row) == 530


def test_the_largest_ranges(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, FORMS[0])
    assert inspected(capsys, path, "--top", "2")["largest_ranges"] == [
        TABLE[0].tolist(),
        TABLE[3].tolist(),
    ]
    assert inspected(capsys, path, "--top", "0")["largest_ranges"] == []


def test_the_text(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pageio.save(path, PAGES)
    assert main(["inspect", str(path), "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: deletion vector, {path.stat().st_size} bytes\n")
    assert "530 pages (2120KiB) in 4 ranges" in out
    assert "and 3 smaller ones" in out
    assert "//" in out
    assert "512 to 1,023" in out


def test_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pageio.save(path, PageSet())
    answer = inspected(capsys, path)
    assert (answer["pages"], answer["first"], answer["picture"]) == (0, None, [])
    assert answer["histogram"] == []
    assert main(["inspect", str(path)]) == 0
    assert "0 pages" in capsys.readouterr().out


def test_a_terminal_without_unicode(path: Path) -> None:
    pageio.save(path, PAGES)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pysharedpages", "inspect", str(path)],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert b"|" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_exits_with_1(
    path: Path, form: str, capsys: pytest.CaptureFixture[str], scale: float
) -> None:
    write(path, form)
    good = path.read_bytes()
    step = max(1, round(10 / scale))
    for damaged in truncations(good):
        path.write_bytes(damaged)
        assert main(["inspect", str(path)]) == 1
        assert capsys.readouterr().err.startswith("pysharedpages: ")
    for damaged in list(bit_flips(good))[::step]:
        path.write_bytes(damaged)
        assert main(["inspect", str(path)]) in (0, 1)
        capsys.readouterr()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.uint64),
        np.zeros(4, np.uint64),
        np.zeros((2, 2), np.int64),
        np.zeros((2, 2), ">u8"),
        np.asfortranarray(np.zeros((2, 2), np.uint64)),
        np.array([[5, 3]], np.uint64),
        np.array([[0, 1 << 60]], np.uint64),
        np.array([[{}, None]], object),
    ],
)
def test_arrays_that_are_no_ranges(
    path: Path, array: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with path.open("wb") as file:
        np.save(file, array)
    assert main(["inspect", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_what_cannot_be_read_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", str(given)])
        assert caught.value.code == 2
        assert f"cannot read {given}" in capsys.readouterr().err
