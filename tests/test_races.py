# tier: unit
"""The races on a model: verdicts written by hand, the drawing, and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pysharedpages.cli import main, races
from pysharedpages.errors import RangeError
from pysharedpages.races import (
    BYTES,
    POLICIES,
    SCENARIOS,
    Hole,
    Kind,
    Scenario,
    Step,
    drawing_of,
    explore,
)

POLICY_NAMES = (
    "list-then-dirty", "list-then-dirty-since", "without-r4", "dirty-then-diff", "pysharedpages",
)  # fmt: skip

# C corrupt, s safe; by the order of POLICY_NAMES, bytes preserved and rewritten.
TABLE = {
    "1": ("CCCCC", "CCCCC"),
    "2": ("Cssss", "CsCss"),
    "3": ("CCCCC", "CsCCs"),
    "conversion in flight": ("Cssss", "CsCss"),
    "flips twice": ("Cssss", "CsCCs"),
    "ring without kick": ("Cssss", "CsCss"),
    "aborted round": ("Cssss", "CsCss"),
    "two vCPUs": ("Cssss", "CsCCs"),
    "final round": ("Cssss", "CsCss"),
    "repeated status": ("sssss", "sssss"),
    "slow conversion": ("Cssss", "Cssss"),
    "MMIO": ("Cssss", "Cssss"),
}

SCENARIO_2 = """\
scenario 2: a page is shared, and written, between the list and the harvest
policy list-then-dirty: L, D, nothing since; the last L before the stop
bytes preserved by a conversion: corrupt, 138 states

  guest           | VMM
  ----------------+--------------------------------------------------------
                  | begin    L: no page is shared; all of RAM is to be sent
                  | round 1  L: no page is shared
  C: set_shared 0 |
  W: write 0      |
                  |          D: page 0 is dirty
                  |          X: page 0 as private, which it is not
                  |          commit
                  | round 2  L: page 0 is shared
                  |          D: no page is dirty
                  |          commit
                  | final    L: page 0 is shared
                  |          stop the guest
                  |          D: no page is dirty
                  |          commit
                  |          the guest goes on there: page 0 is shared

  page 0: garbage instead of what the guest wrote last
"""


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Every row of the command's table, explored once."""
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", printed.append)
        assert main(["races", "--json"]) == 0
    found = json.loads("".join(printed))
    assert isinstance(found, list)
    return found


def test_the_table(rows: list[dict[str, Any]]) -> None:
    verdicts = {(row["scenario"], row["bytes"], row["policy"]): row["verdict"] for row in rows}
    expected = {
        (scenario, bytes_model, policy): {"C": "corrupt", "s": "safe"}[letter]
        for scenario, both in TABLE.items()
        for bytes_model, letters in zip(("preserved", "rewritten"), both, strict=True)
        for policy, letter in zip(POLICY_NAMES, letters, strict=True)
    }
    assert len(rows) == len(expected) == 120
    assert verdicts == expected


def test_only_a_guest_that_breaks_a_rule_gets_the_better_of_pysharedpages(
    rows: list[dict[str, Any]],
) -> None:
    lost = {
        (row["scenario"], row["rule_broken"])
        for row in rows
        if row["policy"] == "pysharedpages" and row["verdict"] == "corrupt"
    }
    assert lost == {("1", "R1"), ("3", "R3")}
    assert {row["scenario"] for row in rows if row["guest_at_fault"]} == {"1", "3"}


def test_a_corrupt_row_has_a_trace_and_a_safe_one_has_none(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        corrupt = row["verdict"] == "corrupt"
        assert bool(row["trace"]) == bool(row["faults"]) == (row["why"] is not None) == corrupt
        assert row["states"] > 50


def test_the_trace_of_scenario_2_is_that_of_the_discussion(rows: list[dict[str, Any]]) -> None:
    trace = next(
        row["trace"]
        for row in rows
        if (row["scenario"], row["policy"], row["bytes"]) == ("2", "list-then-dirty", "preserved")
    )
    round_1 = [(move["by"], move["step"]) for move in trace[1:6]]
    assert round_1 == [
        ("vmm", "list"),
        ("guest", "set_shared"),
        ("guest", "write"),
        ("vmm", "harvest"),
        ("vmm", "send"),
    ]
    assert trace[4] == {"by": "vmm", "round": 1, "step": "harvest", "pages": [0]}
    assert trace[5] == {"by": "vmm", "round": 1, "step": "send", "page": 0, "path": "private"}


def test_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--scenario", "2", "--policy", "list-then-dirty", "--bytes", "preserved")
    assert main(["races", *options]) == 0
    assert capsys.readouterr().out == SCENARIO_2
    readme = Path(__file__).resolve().parents[1] / "README.md"
    assert SCENARIO_2 in readme.read_text(encoding="utf-8")


def test_a_drawing_names_vcpus_failures_and_what_happens_there() -> None:
    scenario = Scenario(
        "drawn",
        "",
        ((Step(Kind.EARLY_WRITE, 0), Step(Kind.SET_SHARED, 0)), (Step(Kind.WRITE, 1),)),
        npages=2,
        rounds=1,
        failures=1,
        at_fault="R1",
    )
    lines = list(drawing_of(explore(scenario, "pysharedpages", "preserved")))
    assert lines[2] == "the guest breaks R1"
    assert "  vCPU 0: W: early_write 0, not yet told |" in lines
    assert lines[-1] == "  page 0: garbage instead of what the guest wrote last"
    safe = list(drawing_of(explore(SCENARIOS["repeated status"], "pysharedpages", "preserved")))
    assert len(safe) == 3
    assert re.fullmatch(r"bytes preserved by a conversion: safe, \d+ states", safe[-1])


def test_a_conversion_that_the_platform_does_later_must_be_logged_then() -> None:
    begin, write = Step(Kind.BEGIN_SHARED, 0), Step(Kind.WRITE, 0)
    logged = Scenario("", "", ((begin, Step(Kind.FINISH_LOGGED, 0)),))
    unlogged = Scenario("", "", ((begin, Step(Kind.FINISH, 0)),))
    written = Scenario("", "", ((begin, Step(Kind.FINISH, 0), write),))
    assert explore(logged, "pysharedpages", "rewritten").is_safe
    assert explore(unlogged, "pysharedpages", "preserved").is_safe
    assert explore(written, "pysharedpages", "preserved").is_safe
    lost = explore(unlogged, "pysharedpages", "rewritten")
    assert [str(move.step) for move in lost.trace if move.step] == ["begin_shared 0", "finish 0"]
    assert lost.faults[0][1].what == "garbage instead of zeros"


def test_the_table_is_printed_with_state_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["races", "--scenario", "flips twice"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = r"corrupt \d+ +safe \d+ +safe \d+ +safe \d+ +safe \d+"
    assert re.fullmatch(rf"flips twice +preserved +{cells}", lines[2])
    assert lines[-1] == "10 verdicts, every one the expected one"


def test_guests_at_fault_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["races", "--policy", "pysharedpages", "--bytes", "preserved"]) == 0
    assert "guests at fault: 1 breaks R1, 3 breaks R3" in capsys.readouterr().out


def test_a_verdict_that_is_not_expected_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Scenario("2", "", ((Step(Kind.WRITE, 0),),), holes=(Hole("without-r4", "no reason"),))
    monkeypatch.setattr(races, "SCENARIOS", {"2": wrong})
    assert main(["races", "--bytes", "preserved"]) == 1
    shown = capsys.readouterr().out
    assert "safe! " in shown
    assert "1 of 5 verdicts are not the expected ones" in shown
    assert main(["races", "--scenario", "2", "--policy", "without-r4"]) == 1
    assert capsys.readouterr().out.count("this is not the expected verdict") == 2


def test_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["races", "--programs", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    corrupt = {(row["policy"], row["bytes"]): row["corrupt"] for row in found if row["corrupt"]}
    assert corrupt == {
        ("list-then-dirty", "preserved"): 6,
        ("list-then-dirty", "rewritten"): 6,
        ("without-r4", "rewritten"): 6,
        ("dirty-then-diff", "rewritten"): 1,
    }
    assert {row["programs"] for row in found} == {12}
    assert main(["races", "--programs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "every guest of up to 1 steps on one page: 3 guests" in shown
    assert "10 verdicts, every one the expected one" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scenario", "4"], "invalid choice"),
        (["--policy", "hope"], "invalid choice"),
        (["--bytes", "lost"], "invalid choice"),
        (["--programs", "0"], "'0' is no count from 1 to 8"),
        (["--programs", "five"], "'five' is no count from 1 to 8"),
        (["--programs", "2", "--scenario", "2"], "--programs explores no scenario"),
    ],
)
def test_bad_usage_exits_with_2(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["races", *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_names_are_fixed() -> None:
    assert tuple(POLICIES) == POLICY_NAMES
    assert BYTES == ("preserved", "rewritten")
    assert tuple(SCENARIOS)[:3] == ("1", "2", "3")


def test_a_policy_or_a_byte_model_that_is_none_is_refused() -> None:
    with pytest.raises(RangeError, match="no policy 'hope': there are list-then-dirty, "):
        explore(SCENARIOS["2"], "hope", "preserved")
    with pytest.raises(RangeError, match="no byte model 'lost': there are preserved, rewritten"):
        explore(SCENARIOS["2"], "pysharedpages", "lost")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"npages": 0}, "0 pages: from 1 to 8"),
        ({"npages": 9}, "9 pages: from 1 to 8"),
        ({"vcpus": ((Step(Kind.WRITE, 2),),)}, "page 2 is none of the 2 pages"),
        ({"shared": frozenset({-1})}, "page -1 is none of the 2 pages"),
        ({"mmio": frozenset({0, 1})}, "all 2 pages are MMIO"),
        ({"rounds": -1}, "-1 rounds: the least is 0"),
        ({"failures": -1}, "-1 failures: the least is 0"),
        ({"vcpus": ((Step(Kind.BEGIN_SHARED, 1),),)}, "vCPU 0 has half a conversion of page 1"),
        ({"vcpus": ((), (Step(Kind.FINISH, 0),))}, "vCPU 1 has half a conversion of page 0"),
        ({"at_fault": "R2"}, "at_fault is 'R2'"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"name": "", "summary": "", "vcpus": (), "npages": 2} | changes
    with pytest.raises(RangeError, match=message):
        Scenario(**options)
