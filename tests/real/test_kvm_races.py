# tier: real
"""The races on real guests: what the explorer says of a scenario happens to real memory.

SP_TEST_SCALE=50 is a thousand migrations of scenario 2 in the right order.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Final

import pytest

from pysharedpages import PageSet
from pysharedpages._core import Snapshot, Transfer
from pysharedpages.dirty import Harvest
from pysharedpages.kvmguest.races import DivergedError, Outcome, RandomSchedule, Replay, run
from pysharedpages.migration import Migration, Round
from pysharedpages.races.explorer import Explorer, replay
from pysharedpages.races.page import Fault
from pysharedpages.races.policies import POLICIES, Policy, migrating
from pysharedpages.races.scenario import BYTES, PRESERVED, REWRITTEN, Kind, Scenario, Step
from pysharedpages.races.scenarios import SCENARIOS
from pysharedpages.testing import MicroVM

REASON = MicroVM.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
LOGS = ["bitmap", "ring"]
RIGHT: Final = POLICIES["pysharedpages"]
WRONG: Final = POLICIES["list-then-dirty"]
SOUND: Final = [scenario for scenario in SCENARIOS.values() if not scenario.at_fault]


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    """One for all tests: it keeps what it learned of each policy."""
    return Explorer()


def seeds(count: int) -> range:
    """One for each of `count` runs at scale 1."""
    return range(SEED, SEED + max(1, round(count * SCALE)))


def random_run(
    scenario: Scenario, policy: Policy, seed: int, bytes_model: str, log: str | None = None
) -> Outcome:
    schedule = RandomSchedule(scenario, Random(f"{seed}/{scenario.name}"))
    return run(scenario, policy, schedule, bytes_model=bytes_model, log=log, seed=seed)


def told(outcome: Outcome) -> list[str]:
    """Who did what, in order."""
    return [str(move.step or (move.action and move.action.verb)) for move in outcome.moves]


@pytest.mark.parametrize("log", LOGS)
def test_scenario_2_in_the_wrong_order_corrupts_a_page_of_a_real_guest(
    explorer: Explorer, log: str
) -> None:
    trace = explorer.explore(SCENARIOS["2"], WRONG, PRESERVED).trace
    outcome = run(SCENARIOS["2"], WRONG, Replay(trace), bytes_model=PRESERVED, log=log)
    assert told(outcome) == [
        *("list", "list", "set_shared 0", "write 0", "harvest", "send", "commit"),
        *("list", "harvest", "commit", "list", "stop", "harvest", "commit", "resume"),
    ]
    assert outcome.faults == ((0, Fault("garbage instead of what the guest wrote last", True)),)


def test_scenario_2_in_the_right_order_is_safe_wherever_the_guest_takes_its_steps() -> None:
    raced = 0
    for seed in seeds(20):
        outcome = random_run(SCENARIOS["2"], RIGHT, seed, BYTES[seed // 2 % 2], LOGS[seed % 2])
        assert outcome.is_safe, (seed, outcome)
        happened = told(outcome)
        assert happened.count("set_shared 0") == happened.count("write 0") == 1
        raced += happened.index("harvest") < happened.index("set_shared 0")
    assert raced > 0


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: str(scenario.name))
def test_a_hole_of_the_table_is_one_on_a_real_guest(explorer: Explorer, scenario: Scenario) -> None:
    """The model's shortest bad interleaving: the same actions, the same pages, the same faults."""
    for policy in POLICIES.values():
        for bytes_model in BYTES:
            if scenario.hole(policy.name, bytes_model) is None:
                continue
            verdict = explorer.explore(scenario, policy, bytes_model)
            outcome = run(scenario, policy, Replay(verdict.trace), bytes_model=bytes_model)
            assert outcome == Outcome(verdict.trace, verdict.faults)
            assert not outcome.is_safe


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: str(scenario.name))
def test_what_happens_at_random_is_what_the_model_says(scenario: Scenario) -> None:
    for seed in seeds(1):
        for number, policy in enumerate(POLICIES.values()):
            bytes_model = BYTES[(seed + number) % 2]
            outcome = random_run(scenario, policy, seed, bytes_model)
            assert replay(scenario, policy, bytes_model, outcome.moves) == outcome.faults, seed


@pytest.mark.parametrize("bytes_model", BYTES)
@pytest.mark.parametrize("scenario", SOUND, ids=lambda scenario: str(scenario.name))
def test_a_guest_that_keeps_the_rules_arrives(scenario: Scenario, bytes_model: str) -> None:
    for seed in seeds(2):
        outcome = random_run(scenario, RIGHT, seed, bytes_model)
        assert outcome.is_safe, (seed, outcome)


def random_guest(seed: int) -> Scenario:
    """Two vCPUs on eight pages, and a transport that fails in two rounds of seven."""
    rng = Random(f"{seed}/guest")
    kinds = (Kind.WRITE, Kind.WRITE, Kind.SET_SHARED, Kind.SET_PRIVATE)
    return Scenario(
        f"random {seed}",
        "two vCPUs, eight pages",
        tuple(
            tuple(Step(rng.choice(kinds), rng.randrange(8)) for _ in range(20)) for _ in range(2)
        ),
        npages=8,
        shared=frozenset(rng.sample(range(8), 4)),
        mmio=frozenset({rng.randrange(8)} if rng.random() < 0.3 else ()),
        rounds=6,
        failures=2,
    )


@pytest.mark.parametrize("log", LOGS)
def test_long_guests_arrive_over_a_transport_that_fails(log: str) -> None:
    failed = Counter[str]()
    for seed in seeds(8):
        outcome = random_run(random_guest(seed), RIGHT, seed, BYTES[seed % 2], log)
        assert outcome.is_safe, (seed, outcome)
        failed.update(
            str(move.action and move.action.verb) for move in outcome.moves if move.failed
        )
    assert failed.keys() <= {"send", "commit"}
    assert failed["send"] > 0


class _Forgetful(Migration):
    """Takes every round for arrived."""

    def _settle(self, round_: Round, arrived: bool) -> None:
        super()._settle(round_, True)


class _WithoutR4(Migration):
    """Forgets what was converted."""

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        return snapshot.merge(harvest)


@pytest.mark.parametrize(
    ("name", "kind"), [("aborted round", _Forgetful), ("conversion in flight", _WithoutR4)]
)
def test_a_broken_migration_loses_a_page(
    explorer: Explorer, name: str, kind: type[Migration]
) -> None:
    policy = Policy(kind.__name__, "a mutant", lambda vmm: migrating(vmm, kind))
    trace = explorer.explore(SCENARIOS[name], policy, REWRITTEN).trace
    outcome = run(SCENARIOS[name], policy, Replay(trace), bytes_model=REWRITTEN)
    assert any(fault.in_bytes for _, fault in outcome.faults)


def test_a_page_and_its_ledger_entry_that_are_lost_together_are_missed() -> None:
    class Deaf(Migration):
        def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
            return snapshot.merge(PageSet() if self.history else harvest)

    policy = Policy("deaf", "a mutant", lambda vmm: migrating(vmm, Deaf))
    steps = (Step(Kind.WRITE, 0),)
    outcomes = [
        random_run(Scenario("one write", "", (steps,)), policy, seed, PRESERVED)
        for seed in range(12)
    ]
    faults = {fault.what for each in outcomes for _, fault in each.faults}
    assert faults == {
        "old content instead of what the guest wrote last",
        "the guest's ledger is an old one",
    }


def test_a_trace_of_another_policy_is_refused(explorer: Explorer) -> None:
    trace = explorer.explore(SCENARIOS["2"], WRONG, PRESERVED).trace
    with pytest.raises(DivergedError, match="the trace at"):
        run(SCENARIOS["2"], RIGHT, Replay(trace), bytes_model=PRESERVED)
