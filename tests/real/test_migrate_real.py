# tier: real
"""`pysharedpages migrate` where the kernel itself finds the guest's writes."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from pysharedpages.cli import main
from pysharedpages.sources import ProcessMemory
from pysharedpages.testing import MicroVM

SEED = os.environ.get("SP_TEST_SEED", "1")
MISSING = ProcessMemory.available()

pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"{MISSING}")


def run_json(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    small = ["migrate", "--memory", "1TiB", "--resident", "8MiB", "--seed", SEED, "--json"]
    code = main([*small, *options])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("workload", ["boot", "churn", "hostile"])
def test_guest_arrives_intact(capsys: pytest.CaptureFixture[str], workload: str) -> None:
    code, report = run_json(capsys, "--source", "process", "--workload", workload)
    assert (code, report["verdict"], report["differing_pages"]) == (0, "intact", 0)
    assert report["source"] == "process"
    assert report["pages_compared"] == 2048
    assert report["rounds"][0]["dirty"] == 2048
    assert all(row["dirty"] > 0 for row in report["rounds"][1:])


def test_kernel_is_asked_where_kvm_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MicroVM, "available", lambda: "no KVM here")
    _, report = run_json(capsys, "--rounds", "1")
    assert report["source"] == "process"
    assert report["source_reason"].endswith("no KVM guest: no KVM here")


def test_wrong_order_corrupts(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run_json(capsys, "--source", "process", "--order", "list-then-dirty")
    assert (code, report["verdict"]) == (1, "corrupt")
    assert report["differing_pages"] >= 64
