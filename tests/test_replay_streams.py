# tier: unit, hostile
"""`pysharedpages replay` where its streams and files are not what they mostly are."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import zstandard

from pysharedpages import PageSet
from pysharedpages import io as pageio
from pysharedpages.cli import main
from pysharedpages.replay.opening import Trace

LINE = b"kvm_convert_memory start 0x1000 size 0x2000 private_to_shared\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace"
    path.write_bytes(LINE)
    return path


PROGRAM = "import sys; from pysharedpages.cli import main; sys.exit(main())"


def run(
    *arguments: str | bytes, redirect: str = "", encoding: str = "utf-8:strict"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", sys.executable, "-c", PROGRAM, "replay", *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        check=False,
        timeout=60,
    )


def test_a_closed_standard_input_is_bad_usage() -> None:
    done = run("-", redirect="<&-")
    assert done.returncode == 2
    assert b"cannot read -" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_closed_standard_output_shows_nothing(trace: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.npy"
    done = run(str(trace), "--save", str(state), redirect=">&-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert np.load(state).tolist() == [[1, 3]]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_output_that_is_full_exits_with_3(trace: Path, options: tuple[str, ...]) -> None:
    done = run(str(trace), *options, redirect=">/dev/full")
    assert done.returncode == 3
    assert done.stderr.startswith(b"pysharedpages: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [
        (b"\xff.log", "utf-8:strict", b"\\udcff.log: 1 lines"),
        (b"\xc3\xa9.log", "ascii:strict", b"\\xe9.log: 1 lines"),
    ],
)
def test_a_name_that_the_output_cannot_hold(
    tmp_path: Path, name: bytes, encoding: str, shown: bytes
) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(LINE)
    done = run(path, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout


@pytest.mark.parametrize(
    "packed", [gzip.compress(LINE), zstandard.ZstdCompressor().compress(LINE), LINE[:3]]
)
def test_a_format_is_told_from_a_pipe_that_gives_single_bytes(packed: bytes) -> None:
    class Drops(io.RawIOBase):
        left = packed

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            drop, self.left = self.left[:1], self.left[1:]
            buffer[: len(drop)] = drop
            return len(drop)

    trace = Trace(cast("BinaryIO", Drops()))
    assert trace.read() == (LINE if len(packed) > 3 else packed)
    assert trace.read() == b""
    assert trace.position == len(packed)


@pytest.mark.parametrize("low", [0x50, 0x5F])
def test_zstandard_may_begin_with_a_frame_to_skip(low: int) -> None:
    skipped = bytes((low, 0x2A, 0x4D, 0x18, 4, 0, 0, 0)) + b"skip"
    data = skipped + zstandard.ZstdCompressor().compress(LINE)
    assert Trace(io.BytesIO(data)).read() == LINE


def test_a_pipe_that_does_not_wait_has_not_ended() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with (
        open(reader, "rb", buffering=0) as raw,
        open(writer, "wb"),
        pytest.raises(BlockingIOError),
    ):
        Trace(raw)


def test_a_pipe_is_no_place_to_save(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["replay", str(trace), "--save", str(pipe)]) == 3
    assert f"cannot save {pipe}: it is no regular file" in capsys.readouterr().err
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [pipe, trace]


def test_a_state_is_saved_as_its_name_says(trace: Path, tmp_path: Path) -> None:
    puffin, array = tmp_path / "state.puffin", tmp_path / "state.npy"
    for path in (puffin, array):
        assert main(["replay", str(trace), "--save", str(path)]) == 0
    assert pageio.load(puffin) == PageSet.from_ranges(np.load(array))
    assert len(pageio.load(puffin)) == 2


def test_a_link_stays_where_a_state_is_saved(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link, target = tmp_path / "link", tmp_path / "state.npy"
    link.symlink_to(target.name)
    for _ in range(2):
        assert main(["replay", str(trace), "--save", str(link)]) == 0
        assert link.is_symlink()
        assert np.load(target).tolist() == [[1, 3]]
    assert "2 pages" in capsys.readouterr().out
