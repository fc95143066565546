"""Counts that do not depend on the time; `make bench-counts` runs this.

Prints one JSON object for a dashboard, or a gate: heap bytes, nodes and pickled size of every
workload, sizes of the extension module and the wheel, and for jobs of the core in C what they
allocate and how many instructions they take. The same sources and the same compiler give the same
numbers; another compiler, or valgrind of another processor family, may give others.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import pickle
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from workloads import SHARED, shared, tracker_of

from pysharedpages import PageSet, _core

JOBS: Final = ("share", "apply", "snapshot", "write_and_snapshot", "merge")
KERNELS: Final = ("scalar", "avx2")
"""Those of which valgrind knows the instructions."""
NOT_HERE: Final = 2
"""The program's exit status for kernels that this processor, or valgrind's, does not have."""


def main(arguments: list[str]) -> int:
    """Prints the counts."""
    parser = argparse.ArgumentParser(description="Counts that may gate, as JSON.")
    parser.add_argument("--program", type=Path, required=True, help="benchmarks/c/counts.c, built")
    parser.add_argument("wheel", type=Path)
    options = parser.parse_args(arguments)
    report = {
        "version": importlib.metadata.version("pysharedpages"),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "bytes": {
            "extension": Path(_core.__file__).stat().st_size,
            "wheel": options.wheel.stat().st_size,
        },
        "workloads": {name: heap_of(name) for name in SHARED},
        "jobs": {job: counts_of(options.program, job) for job in JOBS},
    }
    json.dump(report, sys.stdout, indent=2)
    print()
    return 0


def heap_of(name: str) -> dict[str, int]:
    """What a tracker of a workload holds, and how long the set of it is as a pickle."""
    tracker = tracker_of(shared(name))
    stats = tracker.stats()
    return {
        "ranges": stats["ranges"],
        "nodes": stats["live_nodes"],
        "bytes": tracker.nbytes,
        "pickled": len(pickle.dumps(PageSet.from_ranges(shared(name)), 5)),
    }


def counts_of(program: Path, job: str) -> dict[str, Any]:
    """Calls, allocations, frees and bytes of a job, and its instructions by kernels."""
    printed = subprocess.run([program, job, "scalar"], capture_output=True, text=True, check=True)
    counts: dict[str, Any] = {
        name: int(count) for name, count in re.findall(r"(\w+) (\d+)", printed.stdout)
    }
    counts["instructions"] = {
        kernels: n for kernels in KERNELS if (n := instructions_of(program, job, kernels))
    }
    return counts


def instructions_of(program: Path, job: str, kernels: str) -> int | None:
    """The instructions of a job alone; None without valgrind, or without such kernels."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    with tempfile.NamedTemporaryFile("r") as out:
        tool = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out.name}"]
        command = [*tool, "--toggle-collect=counted*", str(program), job, kernels]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode == NOT_HERE:
            return None
        total = re.search(r"^totals: (\d+)$", out.read(), re.M)
    if run.returncode or total is None:
        raise RuntimeError(f"{job}, {kernels}: status {run.returncode}: {run.stderr}")
    return int(total[1])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
