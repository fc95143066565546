"""Lets the benchmarks import the modules beside them, and says what was run on what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

# --import-mode=importlib leaves sys.path alone: the generator and the rivals are found from here.
sys.path.insert(0, str(Path(__file__).parent))

from measure import cpu_model
from workloads import FULL

from pysharedpages import kernels


def pytest_report_header() -> str:
    """State the profile, the kernels and the processor of this run."""
    profile = "full" if FULL else "quick (SCALE=full for everything)"
    return f"profile: {profile}; kernels: {kernels()['active']}; processor: {cpu_model()}"


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Leave the host's name out of the record."""
    machine_info.pop("node", None)
