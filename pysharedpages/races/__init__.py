"""The races between a guest that converts pages and a VMM that migrates it, on a model.

A guest and a VMM are lists of steps; every interleaving of the two is explored, on pages whose
private bytes are under a key of the host they lie on. The tracker, the page sets, the dirty log and
`Migration` are the real ones.

    verdict = explore(SCENARIOS["2"], "list-then-dirty", "preserved")
    print(*drawing_of(verdict), sep="\\n")
"""

from __future__ import annotations

from pysharedpages.races.drawing import columns_of, drawing_of, heading_of
from pysharedpages.races.explorer import Explorer, Verdict, explore, replay
from pysharedpages.races.policies import POLICIES, Policy, migrating
from pysharedpages.races.programs import every_program, random_programs
from pysharedpages.races.scenario import (
    BYTES,
    PRESERVED,
    REWRITTEN,
    Hole,
    Kind,
    Log,
    Program,
    Scenario,
    Step,
)
from pysharedpages.races.scenarios import SCENARIOS
from pysharedpages.races.survey import Survey, survey
from pysharedpages.races.vmm import Action, TransportError, Verb, Vmm
from pysharedpages.races.world import Move

__all__ = [
    "BYTES",
    "POLICIES",
    "PRESERVED",
    "REWRITTEN",
    "SCENARIOS",
    "Action",
    "Explorer",
    "Hole",
    "Kind",
    "Log",
    "Move",
    "Policy",
    "Program",
    "Scenario",
    "Step",
    "Survey",
    "TransportError",
    "Verb",
    "Verdict",
    "Vmm",
    "columns_of",
    "drawing_of",
    "every_program",
    "explore",
    "heading_of",
    "migrating",
    "random_programs",
    "replay",
    "survey",
]
