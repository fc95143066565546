"""The races between a guest that converts pages and a VMM that migrates it."""

from __future__ import annotations

from pysharedpages.races.scenario import BYTES, Hole, Kind, Log, Program, Scenario, Step
from pysharedpages.races.scenarios import SCENARIOS

__all__ = ["BYTES", "SCENARIOS", "Hole", "Kind", "Log", "Program", "Scenario", "Step"]
