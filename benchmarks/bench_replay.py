"""replay: a long mixed trace from its first line to the report."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from measure import Contender, compare
from pytest_benchmark.fixture import BenchmarkFixture

from pysharedpages.cli import main

LINES = 1_000_000
SECONDS = 10.0
GUEST_PAGES = 1 << 18


def lines_of(count: int, seed: int = 1) -> Iterator[str]:
    """A guest's conversions as QEMU and as the kernel log them, among lines of other kinds."""
    chance = random.Random(seed)
    second = 100.0
    for number in range(count):
        second += chance.random() * 1e-4
        start, npages = chance.randrange(GUEST_PAGES) << 12, chance.choice((1, 1, 1, 2, 8, 512))
        on = chance.random() < 0.5
        kernel = (
            f" CPU {number % 4}/KVM-{1234 + number % 4}    [{number % 16:03d}] d..1. {second:.6f}: "
        )
        qemu = f"{4000 + number % 4}@{1_700_000_000 + second:.6f}:"
        attributes = 0 if on else 16
        match chance.randrange(10):
            case 0 | 1:
                call = f"a0 {start:#x} a1 {npages:#x} a2 {attributes:#x} a3 0x0"
                yield f"{kernel}kvm_hypercall: nr 0xc {call}\n"
            case 2:
                request = 0x14 | start | (2 if on else 1) << 52
                yield f"{kernel}kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa {request:016x}\n"
            case 3:
                pushed = f"dirty {number & 0xFFFF:#x} reset 0x0 slot 0 offset {start >> 12:#x}"
                yield f"{kernel}kvm_dirty_ring_push: ring 0: {pushed} (used {number & 0xFFFF})\n"
            case 4:
                status = "private_to_shared" if on else "shared_to_private"
                size = npages << 12
                yield f"{qemu}kvm_convert_memory start {start:#x} size {size:#x} {status}\n"
            case 5:
                flags = 0 if on else 8
                yield f"{qemu}kvm_memory_fault start {start:#x} size 0x1000 flags {flags:#x}\n"
            case 6:
                size = npages << 12
                call = f"gpa {start:#x} size {size:#x} attributes {attributes:#x} flags 0x0"
                yield f"{qemu}kvm_hc_map_gpa_range {call}\n"
            case _:
                yield f"{kernel}kvm_exit: reason MSR_WRITE rip 0xffffffff81063b94 info 0 0\n"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace as a file."""
    path: Path = tmp_path_factory.mktemp("trace") / "mixed.log"
    with path.open("w") as file:
        file.writelines(lines_of(LINES))
    return path


def report_of(path: Path) -> Any:
    """What the command prints with --json."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["replay", str(path), "--json"]) == 0
    return json.loads(printed.getvalue())


def bare_lines(path: Path) -> int:
    """The lines of the file, each split into words and looked at no further."""
    with path.open() as file:
        return sum(1 for line in file if line.split())


def test_replay(benchmark: BenchmarkFixture, trace: Path) -> None:
    compare(
        benchmark,
        f"replay of a trace of {LINES:,} mixed lines",
        Contender("pysharedpages", lambda: report_of(trace), answer=lambda report: report["lines"]),
        [
            Contender(
                "its lines, split by str.split",
                lambda: bare_lines(trace),
                answer=lambda lines: lines,
                limit=True,
            )
        ],
        most=SECONDS,
    )
