# tier: unit
"""`pysharedpages migrate`: its verdicts, what it prints, and how it ends.

The guests are small and keep their own dirty log, so these run on any host.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from typing import Any

import pytest

from pysharedpages.cli import main
from pysharedpages.softguest.host import Link
from pysharedpages.softguest.layout import Layout
from pysharedpages.sources import ProcessMemory
from pysharedpages.testing import MicroVM

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SMALL = ["migrate", "--memory", "1GiB", "--resident", "4MiB", "--seed", str(SEED)]


def run_json(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = main([*SMALL, "--source", "model", "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def living_vcpus() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "vcpu"]


@pytest.mark.parametrize("engine", ["roaring", "interval", "auto"])
@pytest.mark.parametrize("workload", ["boot", "churn", "hostile"])
def test_guest_arrives_intact(
    capsys: pytest.CaptureFixture[str], workload: str, engine: str
) -> None:
    code, report = run_json(capsys, "--workload", workload, "--engine", engine, "--rounds", "3")
    assert (code, report["verdict"], report["differing_pages"]) == (0, "intact", 0)
    assert report["list_equal"] is True
    assert report["pages_compared"] == report["resident_pages"] == 1024
    assert [row["final"] for row in report["rounds"]] == [False, False, False, True]
    assert report["rounds"][0]["dirty"] == 1024


def test_report_has_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    _, report = run_json(capsys, "--rounds", "1")
    assert set(report) == {
        "schema", "source", "source_reason", "log", "order", "workload", "engine", "seed",
        "memory_pages", "resident_pages", "rounds", "pages_compared", "differing_pages",
        "first_differing_gfns", "list_equal", "resumed", "verdict",
    }  # fmt: skip
    assert set(report["rounds"][0]) == {
        "final", "dirty", "converted", "sent_shared", "sent_private",
        "harvest_us", "snapshot_us", "merge_us", "ioctl_us",
    }  # fmt: skip
    assert (report["source"], report["source_reason"]) == ("model", "asked for")
    assert (report["memory_pages"], report["seed"]) == (262_144, SEED)


@pytest.mark.parametrize("rounds", ["0", "3"])
@pytest.mark.parametrize("workload", ["boot", "churn", "hostile"])
def test_wrong_order_corrupts(
    capsys: pytest.CaptureFixture[str], workload: str, rounds: str
) -> None:
    options = ("--order", "list-then-dirty", "--workload", workload, "--rounds", rounds)
    code, report = run_json(capsys, *options)
    assert (code, report["verdict"]) == (1, "corrupt")
    assert report["differing_pages"] >= 64
    assert report["pages_compared"] == 1024


def test_table_shows_rounds_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--source", "model", "--rounds", "2"]) == 0
    shown = capsys.readouterr()
    assert "boot: 4MiB in use of 1GiB, dirty-then-list" in shown.out
    assert "source model: asked for" in shown.out
    firsts = [line.split()[0] for line in shown.out.splitlines() if line.split()]
    assert [word for word in firsts if word in {"1", "2", "3", "final", "intact:"}] == [
        "1", "2", "final", "intact:",
    ]  # fmt: skip
    assert shown.err == ""


def test_table_shows_corruption(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--source", "model", "--order", "list-then-dirty"]) == 1
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict.startswith("corrupt: 1,024 pages compared")
    assert f"{Layout(262_144, 1024).gfn(960):#x}" in verdict


def test_no_rounds_prove_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run_json(capsys, "--rounds", "0")
    assert (code, report["verdict"], report["differing_pages"]) == (1, "unproven", 0)
    assert main([*SMALL, "--source", "model", "--rounds", "0"]) == 1
    assert "nothing was converted while rounds ran" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice"),
        (["migrate", "--memory", "12 parsecs"], "'12 parsecs' is no size"),
        (["migrate", "--memory", "5000B"], "not a multiple of the page size, 4096 bytes"),
        (["migrate", "--memory", "2MiB", "--resident", "4MiB"], "1024 resident pages"),
        (["migrate", "--resident", "4KiB"], "the least is 256"),
        (["migrate", "--rounds", "-1"], "-1 rounds"),
        (["migrate", "--workload", "nap"], "invalid choice"),
        (["migrate", "--order", "none"], "invalid choice"),
        (["migrate", "--log", "ring", "--source", "model"], "log ring: the model source has none"),
        (["migrate", "--seed", "x"], "invalid int"),
    ],
)
def test_bad_usage_exits_with_2(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_options_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["migrate", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("--order", "--resident", "exit codes:", "hostile"))


@pytest.mark.parametrize("name", ["rich", "cryptography"])
def test_missing_extra_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main(SMALL) == 3
    error = capsys.readouterr().err
    assert f"migrate needs {name}: pip install 'pysharedpages[cli]'" in error


def test_host_without_the_source_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ProcessMemory, "available", lambda: "no tracking here")
    assert main([*SMALL, "--source", "process"]) == 3
    assert "--source process: no tracking here" in capsys.readouterr().err


def test_host_without_tracking_uses_the_model_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MicroVM, "available", lambda: "no KVM here")
    monkeypatch.setattr(ProcessMemory, "available", lambda: "no tracking here")
    assert main([*SMALL, "--rounds", "1"]) == 0
    assert "source model: no tracking here; no KVM guest: no KVM here" in capsys.readouterr().out


@pytest.mark.parametrize("options", [("--source", "kvm"), ("--log", "ring")])
def test_host_without_kvm_that_is_asked_for_it_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    monkeypatch.setattr(MicroVM, "available", lambda: "no KVM here")
    assert main([*SMALL, *options]) == 3
    assert "--source kvm: no KVM here" in capsys.readouterr().err


def test_memory_that_cannot_be_mapped_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--memory", "8EiB", "--source", "model"]) == 3
    assert "cannot map 8EiB" in capsys.readouterr().err


def test_interrupt_stops_the_guest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Link, "send", interrupted)
    assert main([*SMALL, "--source", "model"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert living_vcpus() == []


class _ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        if text:
            raise BrokenPipeError
        return 0


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize(("order", "code"), [("dirty-then-list", 0), ("list-then-dirty", 1)])
def test_a_reader_that_leaves_does_not_change_the_verdict(
    monkeypatch: pytest.MonkeyPatch, order: str, code: int, form: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", _ClosedPipe())
    assert main([*SMALL, "--source", "model", "--order", order, *form]) == code
