# tier: unit
"""The table of a benchmark run: what it says of targets, and how it makes one of three runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

# --import-mode=importlib leaves sys.path alone: the benchmarks' modules are found from here.
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import table


def rival(name: str, figure: float, ratio: float | None, **target: Any) -> dict[str, Any]:
    bounds = {"most": None, "least": None, "met": None, "multiple": False} | target
    return {"name": name, "figure": figure, "ratio": ratio, **bounds}


def run(*jobs: tuple[float, list[dict[str, Any]]], most: float | None = None) -> dict[str, Any]:
    """A record, as far as it is read: jobs of ours, each with the figure and the rivals."""
    entries = []
    for at, (ours, rivals) in enumerate(jobs):
        met = None if most is None else ours <= most
        info = {"what": f"job {at} | x", "unit": "s", "ours": ours, "most": most, "met": met}
        where = {"cpu": "some CPU", "kernels": "scalar", "profile": "quick"}
        entries.append({"fullname": f"job {at}", "extra_info": info | where | {"rivals": rivals}})
    return {"datetime": "2026-01-02T03:04:05", "benchmarks": entries}


def printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str | dict[str, Any]
) -> list[str]:
    """The lines that the script prints; records are handed over as files."""
    given = []
    for at, argument in enumerate(arguments):
        if isinstance(argument, dict):
            path = tmp_path / f"{at}.json"
            path.write_text(json.dumps(argument))
            argument = str(path)
        given.append(argument)
    assert table.main(given) == 0
    return capsys.readouterr().out.splitlines()


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rivals = [
        rival("a pass", 2e-3, 1.5, most=1.4, met=False, multiple=True),
        rival("a walk", 6.0, 2000.0, least=1000, met=True),
    ]
    head, *lines = printed(tmp_path, capsys, run((3e-3, rivals)))
    assert head == "2026-01-02; some CPU, scalar kernels, quick; one run"
    assert lines == [
        "",
        "what       ours  rival   rival's      ratio  target        met",
        "job 0 | x  3 ms  a pass     2 ms  1.5 of it  <= 1.4 of it  NO",
        "                 a walk      6 s    2,000 x  >= 1000 x     yes",
        "",
        "2 targets: 1 met, 1 missed",
    ]


def test_median_of_three_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        run((ours, [rival("a walk", 1.0, ratio, least=100, met=ratio >= 100)]))
        for ours, ratio in ((0.02, 50.0), (0.004, 250.0), (0.005, 200.0))
    ]
    lines = printed(tmp_path, capsys, "--markdown", *runs)
    assert lines[0].endswith("quick; medians of 3 runs (least to greatest)")
    assert lines[2:] == [
        "| what | ours | rival | rival's | ratio | target | met |",
        "| --- | --: | --- | --: | --: | --- | --- |",
        r"| job 0 \| x | 5 ms | a walk | 1 s | 200 x (50 to 250) | >= 100 x | yes |",
        "",
        "1 targets: 1 met, 0 missed",
    ]


def test_targets_of_ours_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run((ours, [rival("nothing", 0.0, None)]), most=2e-6) for ours in (1e-6, 4e-6, 3e-6)]
    lines = printed(tmp_path, capsys, "--markdown", "--targets", *runs)
    assert lines[4:] == [
        r"| job 0 \| x | 3 us (1 us to 4 us) |  |  |  | <= 2 us | NO |",
        "",
        "1 targets: 0 met, 1 missed",
    ]
