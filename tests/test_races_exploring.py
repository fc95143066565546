# tier: differential
"""The explorer against one that merges no states, and traces against a run of the real code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from random import Random

import pytest

from pysharedpages import Snapshot
from pysharedpages.races import (
    BYTES,
    POLICIES,
    SCENARIOS,
    Explorer,
    Kind,
    Log,
    Move,
    Policy,
    Scenario,
    Step,
    Verb,
    Vmm,
    every_program,
    random_programs,
    replay,
)
from pysharedpages.races.world import Phase, Rules


@pytest.fixture(scope="module")
def merging() -> Explorer:
    """The explorer as it is used."""
    return Explorer()


@pytest.mark.parametrize("policy", POLICIES)
def test_merging_states_changes_no_verdict_and_no_length(merging: Explorer, policy: str) -> None:
    plain = Explorer(merge=False)
    guests = [
        *every_program(2),
        *(replace(each, rounds=1, failures=1) for each in every_program(1)),
    ]
    for guest in guests:
        for bytes_model in BYTES:
            merged = merging.explore(guest, policy, bytes_model)
            unmerged = plain.explore(guest, policy, bytes_model)
            assert merged.is_safe == unmerged.is_safe
            assert len(merged.trace) == len(unmerged.trace)
            assert unmerged.states >= merged.states


class _List:
    """The list of a VMM that reaches it by a call alone."""

    def __init__(self, vmm: Vmm) -> None:
        self.read = vmm.tracker.snapshot
        self.now = self.read()

    def __call__(self, *, again: bool) -> Snapshot:
        if again:
            self.now = self.read()
        return self.now


def _closure(vmm: Vmm) -> Callable[..., Snapshot]:
    listed = _List(vmm)
    return lambda *, again: listed(again=again)


@pytest.mark.parametrize(
    "make",
    [
        _List,
        lambda vmm: _List(vmm).__call__,
        _closure,
        lambda vmm: partial(_List(vmm)),
    ],
    ids=["object", "method", "closure", "partial"],
)
def test_what_a_policy_holds_behind_a_callable_is_part_of_its_state(
    make: Callable[[Vmm], Callable[..., Snapshot]],
) -> None:
    def harvest(vmm: Vmm, listed: Callable[..., Snapshot]) -> None:
        vmm.source.collect(vmm.log)
        with vmm.log.take() as harvest:
            transfer = listed(again=False).merge(harvest)
            vmm.send(transfer.shared, transfer.private)

    def drive(vmm: Vmm) -> None:
        listed = make(vmm)
        vmm.log.add_ranges(vmm.log.memory.pages().ranges())
        while vmm.next_round():
            listed(again=True)
            harvest(vmm, listed)
        vmm.stop()
        listed(again=True)
        harvest(vmm, listed)
        vmm.resume(listed(again=False))

    policy = Policy("list behind a callable", "", drive)
    merging, plain = Explorer(), Explorer(merge=False)
    for guest in (replace(each, rounds=1) for each in every_program(2)):
        merged = merging.explore(guest, policy, "preserved")
        unmerged = plain.explore(guest, policy, "preserved")
        assert (merged.is_safe, len(merged.trace)) == (unmerged.is_safe, len(unmerged.trace))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_trace_leads_to_its_faults_and_not_sooner(merging: Explorer, name: str) -> None:
    for policy in POLICIES:
        for bytes_model in BYTES:
            verdict = merging.explore(SCENARIOS[name], policy, bytes_model)
            if verdict.is_safe:
                continue
            faults = replay(SCENARIOS[name], policy, bytes_model, verdict.trace)
            assert faults == verdict.faults != ()
            assert replay(SCENARIOS[name], policy, bytes_model, verdict.trace[:-1]) == ()


def test_random_walks_over_merged_states_can_be_run_for_real(
    merging: Explorer, seed: int, scale: float
) -> None:
    rng = Random(seed)
    for guest in islice(random_programs(seed), round(40 * scale)):
        policy, bytes_model = rng.choice(list(POLICIES)), rng.choice(BYTES)
        _, rules = merging.rules(guest, policy, bytes_model)
        trace, faults = _walk(rules, rng)
        assert replay(guest, policy, bytes_model, trace) == faults


def _walk(rules: Rules, rng: Random) -> tuple[list[Move], object]:
    world, trace = rules.start(), []
    while possible := list(rules.moves(world)):
        move, world = rng.choice(possible)
        trace.append(move)
    return trace, rules.faults(world)


def test_a_move_that_cannot_be_made_is_refused(merging: Explorer) -> None:
    verdict = merging.explore(SCENARIOS["2"], "list-then-dirty", "preserved")
    with pytest.raises(ValueError, match="move 1 of the trace"):
        replay(
            SCENARIOS["2"], "list-then-dirty", "preserved", (verdict.trace[0], verdict.trace[-1])
        )


@pytest.mark.parametrize(("log", "found"), [(Log.BITMAP, 1), (Log.RING, 1), (Log.UNKICKED_RING, 0)])
def test_a_harvest_finds_what_has_left_the_cpu(merging: Explorer, log: Log, found: int) -> None:
    write = Step(Kind.WRITE, 0)
    guest = Scenario("", "", ((write, Step(Kind.SET_SHARED, 0)),), log=log, rounds=1)
    _, rules = merging.rules(guest, "pysharedpages", "preserved")
    world, harvests = rules.start(), []
    world = next(world for move, world in rules.moves(world) if move.step == write)
    while world.phase != Phase.MOVED:
        move, world = next((m, w) for m, w in rules.moves(world) if m.action is not None)
        if move.action is not None and move.action.verb is Verb.HARVEST:
            harvests.append(len(move.found))
    # What a harvest without kick misses comes after the stop, which is an exit.
    assert harvests[:2] == [found, 1 - found]
    assert sum(harvests) == 1


@pytest.mark.parametrize(("who", "found"), [(0, 1), (1, 0)])
def test_a_conversion_is_an_exit_of_its_own_vcpu(merging: Explorer, who: int, found: int) -> None:
    write, convert = Step(Kind.WRITE, 0), Step(Kind.SET_SHARED, 0)
    programs = ((write, convert),) if who == 0 else ((write,), (convert,))
    guest = Scenario("", "", programs, log=Log.UNKICKED_RING, rounds=1)
    _, rules = merging.rules(guest, "pysharedpages", "preserved")
    world = rules.start()
    for step in (write, convert):
        world = next(world for move, world in rules.moves(world) if move.step == step)
    while True:
        move, world = next((m, w) for m, w in rules.moves(world) if m.action is not None)
        if move.action is not None and move.action.verb is Verb.HARVEST:
            break
    assert len(move.found) == found


def test_a_vcpu_does_not_stop_within_a_conversion(merging: Explorer) -> None:
    begin, finish = Step(Kind.BEGIN_SHARED, 0), Step(Kind.FINISH, 0)
    guest = Scenario("", "", ((begin, finish),), rounds=0)
    _, rules = merging.rules(guest, "pysharedpages", "preserved")
    world = next(world for move, world in rules.moves(rules.start()) if move.step == begin)
    while len(possible := list(rules.moves(world))) > 1:
        world = next(world for move, world in possible if move.action is not None)
    ((move, world),) = possible
    assert move.step == finish
    assert any(move.action and move.action.verb is Verb.STOP for move, _ in rules.moves(world))
