# tier: unit, model, hostile
"""`pysharedpages replay`: against a Python set on traces made up here, what it prints, how it ends.

The model reads no trace: the generator hands it what it meant by each line that it wrote.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pty
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from pysharedpages import PageSet
from pysharedpages.cli import main

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
DATA = Path(__file__).parent / "data"


@dataclass
class Trace:
    """A trace, and what its conversions mean: (time in ns, first page, pages, shared)."""

    lines: list[str] = field(default_factory=list)
    conversions: list[tuple[int, int, int, bool]] = field(default_factory=list)
    dirty: int = 0

    def text(self) -> bytes:
        return "".join(line + "\n" for line in self.lines).encode()

    def state(self, upto: int | None = None) -> tuple[set[int], Counter[int]]:
        """The shared pages after conversions until a time, and the flips of each page."""
        shared: set[int] = set()
        flips: Counter[int] = Counter()
        for time, start, npages, to_shared in self.conversions:
            if upto is not None and time > upto:
                break
            for page in range(start, start + npages):
                if (page in shared) != to_shared:
                    flips[page] += 1
                    shared ^= {page}
        return shared, flips


def line_of(pick: random.Random, start: int, npages: int, shared: bool) -> tuple[str, int]:
    """One of the lines that mean a conversion, and how many pages it is of."""
    gpa, size = start << 12, npages << 12
    attributes = (0 if shared else 0x10) | pick.choice((0, 0, 1, 2))
    message = "private_to_shared" if shared else "shared_to_private"
    value = 0x14 | gpa | (2 if shared else 1) << 52
    return pick.choice((
        (f"kvm_convert_memory start {gpa:#x} size {size:#x} {message}", npages),
        (f"kvm_hc_map_gpa_range gpa {gpa:#x} size {size:#x} attributes {attributes:#x} flags 0x1",
         npages),
        (f"kvm_memory_fault start {gpa:#x} size {size:#x} flags {0 if shared else 8:#x}", npages),
        (f"kvm_hypercall: nr 0xc a0 {gpa:#x} a1 {npages:#x} a2 {attributes:#x} a3 0x0", npages),
        (f"kvm_msr: msr_write c0010130 = {value:#x}", 1),
        (f"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa {value:016x}", 1),
    ))  # fmt: skip


OTHER = [
    "kvm_exit: reason VMMCALL rip 0xffffffff81063b94 info 0 0",
    "kvm_hypercall: nr 0x5 a0 0x1000 a1 0x1 a2 0x0 a3 0x0",
    "kvm_msr: msr_write 6e0 = 0x20000000007014",
    "kvm_memory_fault start 0x1001 size 0x1000 flags 0x8",
    "ram_block_attributes_state_change offset 0x0 size 0x1000 from 'discarded' to 'populated'",
    "",
]


def made_up(lines: int, seed: int) -> Trace:
    """A random trace with one clock, on few pages so that they flip often."""
    pick = random.Random(seed)
    trace, time = Trace(), 100_000_000_000
    for _ in range(lines):
        time += pick.randrange(1_000) * 1_000
        clock = f"{time // 10**9}.{time % 10**9 // 1000:06d}"
        if pick.random() < 0.1:
            text = pick.choice(OTHER)
        elif pick.random() < 0.1:
            text = "kvm_dirty_ring_push: ring 0: dirty 0x1 reset 0x0 slot 3 offset 0x9 (used 1)"
            trace.dirty += 1
        else:
            start, shared = pick.randrange(2_000), pick.random() < 0.5
            text, npages = line_of(pick, start, pick.choice((1, 1, 1, 2, 7, 64)), shared)
            trace.conversions.append((time, start, npages, shared))
        prefix = pick.choice((
            f"77@{clock}:",
            f"   CPU 0/KVM-77  [003] d..1. {clock}: ",
            f"   CPU 0/KVM 77 [003] {clock}:      kvm:",
        ))  # fmt: skip
        trace.lines.append(prefix + text)
    return trace


def replayed(
    capsys: pytest.CaptureFixture[str], path: Path | str, *options: str
) -> tuple[int, dict[str, Any]]:
    code = main(["replay", str(path), "--json", *options])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


def saved(path: Path) -> set[int]:
    ranges = np.load(path)
    assert (ranges.dtype, ranges.ndim) == (np.uint64, 2)
    return set(PageSet.from_ranges(ranges))


@pytest.mark.parametrize("seed", range(SEED, SEED + max(1, round(4 * SCALE))))
def test_replay_against_a_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    trace = made_up(3_000, seed)
    path, state = tmp_path / "trace", tmp_path / "state.npy"
    path.write_bytes(trace.text())
    code, report = replayed(capsys, path, "--save", str(state), "--top", "5000")
    shared, flips = trace.state()
    assert code == 0
    assert saved(state) == shared
    assert report["shared_pages"] == len(shared) > 0
    assert {p for a, b in report["largest_ranges"] for p in range(a, b)} == shared
    assert {
        page: row["flips"]
        for row in report["most_flipped"]
        for page in range(row["start"], row["stop"])
    } == dict(flips)
    ranked = [row["flips"] for row in report["most_flipped"]]
    assert ranked == sorted(ranked, reverse=True)
    assert sum(row["changed"] for row in report["conversions"]) == flips.total()
    assert sum(row["lines"] for row in report["conversions"]) == len(trace.conversions)
    assert report["dirty_reports"] == {"3": trace.dirty}
    assert report["lines"] == len(trace.lines)
    timeline = report["timeline"]
    assert (timeline["axis"], timeline["shared"][-1]) == ("time", len(shared))
    assert (timeline["first"], timeline["last"]) == (
        trace.conversions[0][0],
        trace.conversions[-1][0],
    )


def test_state_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = made_up(2_000, SEED)
    path, state = tmp_path / "trace", tmp_path / "state.npy"
    path.write_bytes(trace.text())
    first, last = trace.conversions[0][0], trace.conversions[-1][0]
    pick = random.Random(SEED)
    times = [0, first - 1, first, last, last + 1, pick.choice(trace.conversions)[0]]
    times += [pick.randrange(first, last) for _ in range(round(8 * SCALE))]
    for time in times:
        shared, flips = trace.state(time)
        spelled = [f"{time // 10**9}.{time % 10**9:09d}"]
        if time >= first:
            spelled.append(f"+{(time - first) // 10**9}.{(time - first) % 10**9:09d}")
        for text in spelled:
            code, report = replayed(capsys, path, "--at", text, "--save", str(state))
            assert code == 0
            assert saved(state) == shared
            assert sum(row["changed"] for row in report["conversions"]) == flips.total()
            assert report["reached"] == (time < last)


def test_pages_that_start_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace"
    path.write_text("kvm_hypercall: nr 0xc a0 0x1000 a1 0x2 a2 0x10 a3 0x0\n")
    code, report = replayed(capsys, path, "--initial", "shared")
    assert (code, report["shared_pages"]) == (0, 2**52 - 2)
    assert report["largest_ranges"] == [[0, 1], [3, 2**52]]


def test_counts_beyond_64_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = 10_000
    path = tmp_path / "trace"
    path.write_text(
        "kvm_hypercall: nr 0xc a0 0x0 a1 0x10000000000000 a2 0x0 a3 0x0\n"
        "kvm_hypercall: nr 0xc a0 0x0 a1 0x10000000000000 a2 0x10 a3 0x0\n" * lines
    )
    code, report = replayed(capsys, path)
    row = report["conversions"][0]
    assert (code, row["pages"], row["changed"]) == (0, lines << 52, lines << 52)
    assert report["most_flipped"] == [{"start": 0, "stop": 2**52, "flips": 2 * lines}]


SAMPLES = {
    "qemu.log": (16_384, [[0x7F000, 0x7F010], [0x7F011, 0x83000], [0xFFC84, 0xFFC85]]),
    "ftrace.txt": (1_023, [[0x1000, 0x1002], [0x1003, 0x1400]]),
    "perf.txt": (0, []),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("form", ["plain", "gz", "two gz members", "zst", "two zst frames"])
def test_samples_plain_and_compressed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, form: str
) -> None:
    data = (DATA / name).read_bytes()
    half = len(data) // 2
    zstd = zstandard.ZstdCompressor().compress
    path = tmp_path / "trace"
    path.write_bytes({
        "plain": lambda: data,
        "gz": lambda: gzip.compress(data),
        "two gz members": lambda: gzip.compress(data[:half]) + gzip.compress(data[half:]),
        "zst": lambda: zstd(data),
        "two zst frames": lambda: zstd(data[:half]) + zstd(data[half:]),
    }[form]())  # fmt: skip
    code, report = replayed(capsys, path)
    assert code == 0
    assert (report["shared_pages"], report["largest_ranges"]) == SAMPLES[name]
    assert report["lines"] == data.count(b"\n")


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(packed: bool) -> None:
    data = (DATA / "ftrace.txt").read_bytes()
    command = [sys.executable, "-P", "-m", "pysharedpages", "replay", "-", "--json"]
    run = subprocess.run(
        command, input=gzip.compress(data) if packed else data, capture_output=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, b"")
    report = json.loads(run.stdout)
    assert (report["file"], report["shared_pages"]) == ("-", 1_023)


def test_output_that_nobody_reads_to_its_end() -> None:
    command = [sys.executable, "-P", "-m", "pysharedpages", "replay", str(DATA / "qemu.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0


@pytest.mark.parametrize("lines", [10, 200_000])
def test_progress_on_a_terminal_for_a_long_file(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"a line of some other kind, which nobody reads\n" * lines)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "pysharedpages", "replay", str(path), "--json"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=120)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 4096):
            seen += piece
    os.close(ours)
    assert (run.returncode, json.loads(run.stdout)["lines"]) == (0, lines)
    assert (b"replay" in seen) == (lines > 10)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(DATA / "ftrace.txt"), "--top", "1"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    for expected in (
        "1 x a page of slot 0 reported dirty",
        "the guest allows migration",
        "kvm_hypercall shared 2 1,025 1,025",
        "kvm_vmgexit_msr_protocol_enter private 1 1 1",
        "after the last conversion at 13.000002000 s: 1,023 pages (4092KiB) shared, in 2 ranges",
        "0x1003 - 0x1400 1,021 4084KiB",
        "and 1 smaller ones",
        "timeline, 12.000002000 s to 13.000002000 s",
        "pages that flip most",
        "0x1001 3 x 1 page",
    ):
        assert expected in lines
    assert "refused" in run_text(capsys, DATA / "qemu.log")
    assert "\u2588" in run_text(capsys, DATA / "qemu.log")


def run_text(capsys: pytest.CaptureFixture[str], path: Path) -> str:
    assert main(["replay", str(path)]) == 0
    return capsys.readouterr().out


def test_text_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["replay", str(DATA / "qemu.log")]) == 0
    out.seek(0)
    assert "shared      |" in out.read()


def test_a_trace_without_conversions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace"
    for content in (b"", b"nothing\nof note\n", b"\x00\xff\n" * 100):
        path.write_bytes(content)
        code, report = replayed(capsys, path)
        assert (code, report["conversions"], report["timeline"]) == (0, [], None)
        assert report["most_flipped"] == report["largest_ranges"] == []
        assert run_text(capsys, path).startswith(f"{path}: {report['lines']:,} lines, 0 conv")


BAD = "kvm_memory_fault start 0x1000 size 0x\nkvm_memory_fault start 0x2000 size 0x1000 flags 0x0\n"


def test_malformed_line_exits_with_1_or_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace"
    path.write_text("x\n" + BAD)
    assert main(["replay", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{path}: line 2, byte 39: kvm_memory_fault: expected a hexadecimal" in shown.err
    assert main(["replay", str(path), "--skip-malformed"]) == 0
    shown = capsys.readouterr()
    assert "1 malformed lines skipped" in shown.out
    assert "skipped: line 2, byte 39" in shown.err


def flipped_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def test_damaged_archives_exit_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made_up(200, SEED).text()
    packed = {
        "gzip": gzip.compress(data),
        "Zstandard": zstandard.ZstdCompressor(write_checksum=True).compress(data),
    }
    path = tmp_path / "trace"
    for name, whole in packed.items():
        for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:9], flipped_bit(whole)):
            path.write_bytes(damaged)
            assert main(["replay", str(path), "--skip-malformed"]) == 1
            shown = capsys.readouterr()
            assert name in shown.err and shown.out == ""


def test_missing_zstandard_exits_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(b"x\n"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    assert main(["replay", str(path)]) == 3
    error = capsys.readouterr().err
    assert "a .zst trace needs zstandard: pip install 'pysharedpages[cli]'" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "FILE"),
        (["{missing}"], "cannot read {missing}: No such file"),
        (["{folder}"], "Is a directory"),
        (["{trace}", "--at", "noon"], "'noon' is no time"),
        (["{trace}", "--at", "-5"], "'-5' is no time"),
        (["{trace}", "--at", "9999999999"], "not between 0 and 2^62 nanoseconds"),
        (["{trace}", "--at", "1969-12-31T23:59:59Z"], "not between 0 and 2^62"),
        (["{trace}", "--at", "9999-12-31"], "not between 0 and 2^62"),
        (["{trace}", "--at", "5"], "no conversion in {trace} carries a time"),
        (["{trace}", "--top", "-1"], "'-1' is no count"),
        (["{trace}", "--top", "1000000"], "no count from 0 to 999,999"),
        (["{trace}", "--initial", "mixed"], "invalid choice"),
    ],
)
def test_bad_usage_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    names = {"trace": tmp_path / "trace", "missing": tmp_path / "missing", "folder": tmp_path}
    names["trace"].write_text("kvm_memory_fault start 0x2000 size 0x1000 flags 0x0\n")
    with pytest.raises(SystemExit) as ended:
        main(["replay", *(option.format(**names) for option in options)])
    assert ended.value.code == 2
    assert message.format(**names) in capsys.readouterr().err


def test_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace"
    path.write_text(
        "2026-11-22T18:18:01Z kvm_memory_fault start 0x1000 size 0x1000 flags 0x0\n"
        "2026-11-22T18:18:01.000002Z kvm_memory_fault start 0x2000 size 0x1000 flags 0x0\n"
    )
    for date, pages in (
        ("2026-11-22T18:18:00Z", 0),
        ("2026-11-22T18:18:01Z", 1),
        ("2026-11-22T20:18:01.000001+02:00", 1),
        ("2026-11-22T18:18:01.000002", 2),
        ("2026-11-23", 2),
    ):
        assert replayed(capsys, path, "--at", date)[1]["shared_pages"] == pages


def test_a_state_that_cannot_be_saved_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in (tmp_path / "no" / "state.npy", tmp_path):
        assert main(["replay", str(DATA / "perf.txt"), "--save", str(target)]) == 3
        assert f"cannot save {target}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_long_line_takes_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"kvm_msr: x" * 100_000)
        file.write(b"\nkvm_memory_fault start 0x2000 size 0x1000 flags 0x0")
    tracemalloc.start()
    try:
        code, report = replayed(capsys, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (code, report["lines"], report["shared_pages"]) == (0, 2, 1)
    assert peak < path.stat().st_size // 2


def test_a_dense_archive_takes_no_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = b"\n" * (64 << 20)
    path = tmp_path / "trace"
    for packed in (gzip.compress(data, 1), zstandard.ZstdCompressor().compress(data)):
        path.write_bytes(packed)
        tracemalloc.start()
        try:
            code, report = replayed(capsys, path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (code, report["lines"]) == (0, len(data))
        assert peak < len(data) * 2
