# tier: real
"""`pysharedpages races --guest kvm`, and what it says where it cannot."""

from __future__ import annotations

import json

import pytest

from pysharedpages.cli import main
from pysharedpages.sources import KvmDirtyLog
from pysharedpages.testing import MicroVM

REASON = MicroVM.available()
needs_kvm = pytest.mark.skipif(REASON is not None, reason=str(REASON))

WRONG = ["races", "--guest", "kvm", "--scenario", "2", "--policy", "list-then-dirty"]
RIGHT = ["races", "--guest", "kvm", "--scenario", "2", "--policy", "pysharedpages"]


@needs_kvm
@pytest.mark.parametrize("log", ["bitmap", "ring"])
def test_wrong_order_is_drawn_as_it_happened(capsys: pytest.CaptureFixture[str], log: str) -> None:
    assert main([*WRONG, "--bytes", "preserved", "--log", log]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "bytes preserved by a conversion: corrupt, a real guest on /dev/kvm",
        "",
        "  guest           | VMM",
        "  ----------------+--------------------------------------------------------",
        "                  | begin    L: no page is shared; all of RAM is to be sent",
        "                  | round 1  L: no page is shared",
        "  C: set_shared 0 |",
        "  W: write 0      |",
        "                  |          D: page 0 is dirty",
        "                  |          X: page 0 as private, which it is not",
        "                  |          commit",
        "                  | round 2  L: page 0 is shared",
        "                  |          D: no page is dirty",
        "                  |          commit",
        "                  | final    L: page 0 is shared",
        "                  |          stop the guest",
        "                  |          D: no page is dirty",
        "                  |          commit",
        "                  |          the guest goes on there: page 0 is shared",
        "",
        "  page 0, as the guest reads it there: garbage instead of what the guest wrote last",
    ]


@needs_kvm
def test_right_order_is_safe_in_as_many_runs_as_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*RIGHT, "--runs", "4", "--seed", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["bytes"], row["verdict"], row["runs"]) for row in rows] == [
        ("preserved", "safe", 4),
        ("rewritten", "safe", 4),
    ]
    assert all(row["guest"] == "kvm" and row["faults"] == [] for row in rows)
    steps = [(move["by"], move["step"]) for move in rows[0]["trace"]]
    assert steps.count(("guest", "write")) == steps.count(("guest", "set_shared")) == 1
    assert ("vmm", "resume") in steps


@needs_kvm
def test_table_has_a_guest_for_each_corrupt_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["races", "--guest", "kvm", "--scenario", "flips twice", "--runs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    preserved, rewritten = lines[2].split("preserved"), lines[3].split("rewritten")
    assert preserved[1].split() == ["corrupt", "1", *("safe", "2") * 4]
    assert rewritten[1].split() == [
        *("corrupt", "1", "safe", "2", "corrupt", "1", "corrupt", "1", "safe", "2")
    ]
    assert lines[-2:] == [
        "16 guests migrated on /dev/kvm",
        "10 verdicts, every one the expected one",
    ]


@needs_kvm
def test_guest_that_does_not_follow_the_model_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(KvmDirtyLog, "collect", lambda self, log: log.add_pages([14]))
    assert main(WRONG) == 1
    assert "the trace at" in capsys.readouterr().err


def test_host_without_kvm_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MicroVM, "available", lambda: "no KVM here")
    assert main(WRONG) == 3
    assert capsys.readouterr().err == "pysharedpages: --guest kvm: no KVM here\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runs", "3"], "--runs is for --guest kvm"),
        (["--seed", "0"], "--seed is for --guest kvm"),
        (["--log", "ring"], "--log is for --guest kvm"),
        (["--guest", "kvm", "--programs", "2"], "--programs are explored on the model"),
        (["--guest", "kvm", "--runs", "0"], "'0' is no count from 1 to 999999"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["races", *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
