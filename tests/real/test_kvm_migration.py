# tier: real
"""Real guests migrated to a second VM while they convert and write, every page compared.

SP_TEST_SCALE is how many times three seconds each run takes, up to 60 s, and how many seeds, from
SP_TEST_SEED on, are run: SP_TEST_SCALE=20 is 20 seeds of a minute.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from pysharedpages import SharedPagesError
from pysharedpages.cli import main
from pysharedpages.kvmguest.cipher import WordCipher
from pysharedpages.kvmguest.migration import migrate
from pysharedpages.softguest.scenario import Scenario
from pysharedpages.testing import MicroVM

REASON = MicroVM.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
SECONDS = 3 * min(20.0, SCALE)
SEEDS = range(SEED, SEED + max(1, round(SCALE)))
SMALL = ["migrate", "--memory", "4GiB", "--resident", "4MiB", "--rounds", "3", "--seed", str(SEED)]


def run_json(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = main([*SMALL, "--json", *options])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("log", ["bitmap", "ring"])
@pytest.mark.parametrize("workload", ["boot", "churn", "hostile"])
def test_guest_arrives_intact_and_goes_on(
    capsys: pytest.CaptureFixture[str], workload: str, log: str
) -> None:
    code, report = run_json(capsys, "--log", log, "--workload", workload)
    assert (code, report["verdict"], report["differing_pages"]) == (0, "intact", 0)
    assert (report["source"], report["log"], report["list_equal"]) == ("kvm", log, True)
    assert report["pages_compared"] == 1024 + 2
    assert report["rounds"][0]["dirty"] == 1024 + 2
    assert all(row["dirty"] > 0 for row in report["rounds"])
    # A full ring may have been collected by its vCPU, with nothing left for the round.
    assert all(row["ioctl_us"] > 0 or log == "ring" for row in report["rounds"])
    assert report["resumed"]["steps"] >= 128
    assert report["resumed"]["differing_pages"] == 0
    assert report["resumed"]["list_equal"] is True


@pytest.mark.parametrize("log", ["bitmap", "ring"])
def test_wrong_order_corrupts(capsys: pytest.CaptureFixture[str], log: str) -> None:
    code, report = run_json(capsys, "--log", log, "--order", "list-then-dirty")
    assert (code, report["verdict"]) == (1, "corrupt")
    assert report["differing_pages"] >= 64
    assert report["resumed"] is None


def test_kvm_is_taken_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    _, report = run_json(capsys)
    assert (report["source"], report["source_reason"]) == (
        "kvm",
        "this host's /dev/kvm runs guests",
    )


def test_table_has_the_ioctl_s_own_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--source", "kvm"]) == 0
    shown = capsys.readouterr().out
    assert "source kvm, KVM_GET_DIRTY_LOG: asked for" in shown
    assert "ioctl" in shown.splitlines()[2]
    assert "it went on there for" in shown


def test_memory_without_room_for_the_ledger_exits_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = ["migrate", "--memory", "4MiB", "--resident", "4MiB", "--rounds", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*full, "--source", "kvm"])
    assert ended.value.code == 2
    reason = "1024 resident pages and 2 of the guest's ledger: the memory has 1024"
    assert f"--source kvm: {reason}" in capsys.readouterr().err
    assert main([*full, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source_reason"].endswith(reason)


@pytest.mark.parametrize("seed", SEEDS)
def test_rounds_while_two_vcpus_convert_and_write(seed: int) -> None:
    scenario = Scenario(
        memory_pages=1 << 20,
        resident_pages=4096,
        order="dirty-then-list",
        workload="churn",
        engine="auto",
        seed=seed,
        rounds=0,
        source="kvm",
        log=("bitmap", "ring")[seed % 2],
    )
    begun: list[float] = []

    def proceed(done: int) -> bool:
        begun.append(time.monotonic())
        return done < 2 or begun[-1] - begun[0] < SECONDS

    report = migrate(scenario, proceed=proceed)
    assert report.comparison.differing == []
    assert report.verdict == "intact"
    assert report.converted_meanwhile > 0
    assert len(report.rounds) > 2


def test_a_vcpu_s_failure_ends_the_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise SharedPagesError("a broken tracker")

    monkeypatch.setattr(MicroVM, "on_request", broken)
    assert main([*SMALL, "--source", "kvm"]) == 3


def test_no_word_has_one_image_under_two_keys() -> None:
    page = bytes(range(256)) * 16
    one, two = WordCipher(1 << 63), WordCipher(12345)
    assert one.decrypt(7, one.encrypt(7, page)) == page
    sent = one.encrypt(7, page)
    for image in (sent, two.decrypt(7, sent), one.decrypt(8, sent)):
        assert all(image[at : at + 8] != page[at : at + 8] for at in range(0, 4096, 8))
