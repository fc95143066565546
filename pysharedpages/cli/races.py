"""`pysharedpages races`: every interleaving of a guest and its migration, on a model; and some of
them on real guests.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pysharedpages.cli.exits import CannotRunError, Exit, UsageError
from pysharedpages.cli.races_text import (
    drawings_of,
    findings_of,
    findings_table_of,
    survey_of,
    table_of,
)
from pysharedpages.errors import SharedPagesError
from pysharedpages.races import (
    BYTES,
    POLICIES,
    SCENARIOS,
    Explorer,
    Move,
    Survey,
    Verb,
    Verdict,
    survey,
)
from pysharedpages.testing import MicroVM

if TYPE_CHECKING:
    from pysharedpages.kvmguest.races import Finding

__all__ = ["add_parser", "run"]

_MOST_STEPS: Final = 8
_RUNS: Final = 10

_DESCRIPTION: Final = """\
Explore every interleaving of a guest that converts and writes pages with a VMM that migrates it.

Each host has a key of its own, so a page sent on the wrong path arrives as garbage. The policies
are the orders in which a VMM can harvest dirty pages (D) and read the list (L); pysharedpages is
the Migration of this package, run as it is. A conversion (C) preserves the page's bytes, or
rewrites them: the platform clears the page, and logs nothing. With --scenario and --policy the
shortest interleaving that corrupts a page is drawn, the guest's steps on the left.

With --guest kvm that interleaving is what a guest of /dev/kvm and its migration to a second VM go
through; where the model knows none, as many guests as --runs says take their steps at random. What
is shown is what they and the VMM did, and what was read from the memory of the second VM."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-parser of this command."""
    parser = commands.add_parser(
        "races",
        help="show which orders of harvest and list lose pages, over all interleavings",
        description=_DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--scenario", choices=tuple(SCENARIOS), metavar="NAME", help="one scenario alone")
    option("--policy", choices=tuple(POLICIES), metavar="NAME", help="one policy alone")
    option("--bytes", choices=BYTES, help="one model of what a conversion does, alone")
    option(
        "--programs",
        type=_steps,
        metavar="N",
        help="explore every guest of up to N steps on one page instead of the scenarios "
        "(5 are 363 guests, some seconds)",
    )
    option(
        "--guest",
        choices=("model", "kvm"),
        default="model",
        help="who goes through the interleavings: the model, or real guests (default: %(default)s)",
    )
    option("--runs", type=_runs, metavar="N", help=f"guests of kvm (default: {_RUNS})")
    option("--log", choices=("bitmap", "ring"), help="KVM's dirty log (default: the scenario's)")
    option("--seed", type=int, metavar="N", help="picks keys and interleavings (default: 0)")
    option("--json", action="store_true", help="print one JSON array of rows instead of text")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> Exit:
    """Explore what the options name, and print the verdicts."""
    _check(options)
    if options.programs is not None:
        return _run_programs(options)
    if options.guest == "kvm":
        _require_kvm()
    explorer = Explorer()
    verdicts = [
        explorer.explore(SCENARIOS[scenario], policy, bytes_model)
        for scenario in _chosen(SCENARIOS, options.scenario)
        for bytes_model in _chosen(BYTES, options.bytes)
        for policy in _chosen(POLICIES, options.policy)
    ]
    drawn = options.scenario is not None and options.policy is not None
    if options.guest == "kvm":
        return _run_on_kvm(options, verdicts, drawn)
    _show(
        [_row(verdict) for verdict in verdicts] if options.json else None,
        drawings_of(verdicts) if drawn else table_of(verdicts),
    )
    return _exit(verdicts)


def _check(options: argparse.Namespace) -> None:
    if options.programs is not None and options.scenario is not None:
        raise UsageError("--programs explores no scenario: leave out --scenario")
    if options.guest == "kvm":
        if options.programs is not None:
            raise UsageError("--programs are explored on the model: leave out --guest kvm")
        return
    for name in ("runs", "log", "seed"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} is for --guest kvm")


def _require_kvm() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise CannotRunError("--guest kvm needs cryptography: pip install 'pysharedpages[cli]'")
    reason = MicroVM.available()
    if reason is not None:
        raise CannotRunError(f"--guest kvm: {reason}")


def _run_on_kvm(options: argparse.Namespace, verdicts: list[Verdict], drawn: bool) -> Exit:
    from pysharedpages.kvmguest.races import DivergedError, examine

    runs = _RUNS if options.runs is None else options.runs
    try:
        findings = [
            examine(each, runs=runs, log=options.log, seed=options.seed or 0) for each in verdicts
        ]
    except DivergedError as error:
        print(f"pysharedpages: --guest kvm: {error}", file=sys.stderr)
        return Exit.CHECK_FAILED
    except SharedPagesError as error:
        raise CannotRunError(f"--guest kvm: {error}") from error
    _show(
        [_finding_row(each) for each in findings] if options.json else None,
        findings_of(findings) if drawn else findings_table_of(findings),
    )
    return _exit(findings)


def _run_programs(options: argparse.Namespace) -> Exit:
    explorer = Explorer()
    surveys = [
        survey(policy, bytes_model, options.programs, explorer)
        for bytes_model in _chosen(BYTES, options.bytes)
        for policy in _chosen(POLICIES, options.policy)
    ]
    rows = [_survey_row(each) for each in surveys] if options.json else None
    _show(rows, survey_of(surveys))
    return _exit(surveys)


def _chosen(names: Iterable[str], name: str | None) -> tuple[str, ...]:
    return tuple(names) if name is None else (name,)


def _show(rows: list[dict[str, Any]] | None, lines: Iterable[str]) -> None:
    # Whoever stops reading still learns the verdict: from the exit code.
    with suppress(BrokenPipeError):
        if rows is not None:
            print(json.dumps(rows, indent=2))
            return
        for line in lines:
            print(line)


def _exit(verdicts: Sequence[Verdict] | Sequence[Survey] | Sequence[Finding]) -> Exit:
    return Exit.DONE if all(each.is_expected for each in verdicts) else Exit.CHECK_FAILED


def _row(verdict: Verdict) -> dict[str, Any]:
    hole = verdict.scenario.hole(verdict.policy.name, verdict.bytes)
    return {
        "scenario": verdict.scenario.name,
        "policy": verdict.policy.name,
        "bytes": verdict.bytes,
        "verdict": "safe" if verdict.is_safe else "corrupt",
        "expected": "safe" if hole is None else "corrupt",
        "why": None if hole is None else hole.why,
        "guest_at_fault": bool(verdict.scenario.at_fault),
        "rule_broken": verdict.scenario.at_fault or None,
        "states": verdict.states,
        "trace": [_move_row(move) for move in verdict.trace],
        "faults": [{"page": page, "what": fault.what} for page, fault in verdict.faults],
    }


def _finding_row(finding: Finding) -> dict[str, Any]:
    """As that of a verdict, but of what happened; there are no states."""
    row = _row(finding.verdict)
    del row["states"]
    outcome = finding.outcome
    return row | {
        "guest": "kvm",
        "verdict": "safe" if finding.is_safe else "corrupt",
        "runs": finding.runs,
        "trace": [_move_row(move) for move in outcome.moves],
        "faults": [{"page": page, "what": fault.what} for page, fault in outcome.faults],
    }


def _move_row(move: Move) -> dict[str, Any]:
    if move.step is not None:
        return {
            "by": "guest",
            "vcpu": move.vcpu,
            "step": str(move.step.kind),
            "page": move.step.page,
        }
    action = move.action
    assert action is not None
    row: dict[str, Any] = {"by": "vmm", "round": action.round, "step": str(action.verb)}
    if action.verb in (Verb.HARVEST, Verb.LIST):
        row["pages"] = list(move.found)
    elif action.verb is Verb.SEND:
        row |= {"page": action.page, "path": "shared" if action.shared else "private"}
    elif action.verb is Verb.RESUME:
        row["pages"] = list(action.listed)
    return row | ({"failed": True} if move.failed else {})


def _survey_row(survey: Survey) -> dict[str, Any]:
    return {
        "programs": survey.safe + survey.corrupt,
        "most_steps": survey.most,
        "policy": survey.policy.name,
        "bytes": survey.bytes,
        "verdict": "safe" if survey.is_safe else "corrupt",
        "expected": "safe" if survey.is_safe == survey.is_expected else "corrupt",
        "safe": survey.safe,
        "corrupt": survey.corrupt,
        "states": survey.states,
    }


def _runs(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no count from 1 to 999999")
    return int(text)


def _steps(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) or not 1 <= int(text) <= _MOST_STEPS:
        raise argparse.ArgumentTypeError(f"{text!r} is no count from 1 to {_MOST_STEPS}")
    return int(text)


def _epilog() -> str:
    scenarios = [f"  {each.name:<22}{each.summary}" for each in SCENARIOS.values()]
    policies = [f"  {each.name:<22}{each.summary}" for each in POLICIES.values()]
    return "\n".join(
        (
            "exit codes: 0 every verdict is the expected one; 1 one is not; 2 usage; "
            "3 this host has no KVM",
            "",
            "scenarios:",
            *scenarios,
            "",
            "policies:",
            *policies,
        )
    )
