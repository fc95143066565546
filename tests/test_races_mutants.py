# tier: unit
"""`Migration` with one thing taken out: the explorer finds the hole, where theory has one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest

from pysharedpages import Snapshot, Transfer
from pysharedpages.dirty import Harvest
from pysharedpages.migration import Migration, Round
from pysharedpages.races import (
    BYTES,
    SCENARIOS,
    Explorer,
    Policy,
    TransportError,
    Vmm,
    every_program,
    migrating,
    replay,
)


class WithoutR4(Migration):
    """Sends what is dirty, and not what was converted."""

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        return snapshot.merge(harvest)


class WithoutR0(Migration):
    """Does not send all of RAM first."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.log.take().commit()


class Since(Migration):
    """Reckons what was converted from a list that a subclass puts into `since`, if it does."""

    since: Snapshot | None = None

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        return snapshot.merge(harvest, since=self._previous if self.since is None else self.since)


class WithoutResend(Since):
    """Goes on from a list made after the transfer: what was converted in flight is in it."""

    def _settle(self, round_: Round, arrived: bool) -> None:
        late = self._pages.snapshot()
        super()._settle(round_, arrived)
        if arrived:
            self.since = late


class ListThenDirty(Migration):
    """Lists before it harvests, and sends nothing but what is dirty."""

    def _collect(self) -> Harvest:
        self._early = self._pages.snapshot()
        return super()._collect()

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        return self._early.merge(harvest)


class ListThenDirtySince(ListThenDirty):
    """Lists before it harvests, and sends what was converted from one such list to the next."""

    since: Snapshot | None = None

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        since = self._previous if self.since is None else self.since
        return self._early.merge(harvest, since=since)

    def _settle(self, round_: Round, arrived: bool) -> None:
        super()._settle(round_, arrived)
        if arrived:
            self.since = self._early


class AbortAdvances(Since):
    """Takes the list of a round that failed for one that arrived."""

    def _settle(self, round_: Round, arrived: bool) -> None:
        late = self._pages.snapshot()
        super()._settle(round_, arrived)
        self.since = None if arrived else late


class AbortDrops(Migration):
    """Drops the harvest of a round that failed."""

    def _settle(self, round_: Round, arrived: bool) -> None:
        super()._settle(round_, arrived)
        if not arrived:
            self._log.take().commit()


class SecondAbortDrops(Migration):
    """Drops the harvest of a round that failed after another had."""

    failed = 0

    def _settle(self, round_: Round, arrived: bool) -> None:
        super()._settle(round_, arrived)
        self.failed = 0 if arrived else self.failed + 1
        if self.failed > 1:
            self._log.take().commit()


class SampleDrops(Migration):
    """Drops what was dirty before a sample."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        collect = self._sampler._collect
        self._sampler._collect = lambda: self._dropping(collect)

    def _dropping(self, collect: Callable[[], Harvest]) -> Harvest:
        collect().commit()
        return self._log.take()


def sampling(vmm: Vmm, make: Callable[..., Migration] = Migration) -> None:
    """The rounds of `Migration`, each sent within a sample."""
    migration = make(vmm.tracker, vmm.log, [vmm.source], clock=float)
    while vmm.next_round():
        with suppress(TransportError):
            for each in migration.rounds(most=1):
                with each, migration.sample():
                    vmm.send(each.shared, each.private)
    vmm.stop()
    for each in migration.final():
        vmm.send(each.shared, each.private)
    vmm.resume(migration.snapshot)


def ending_before_the_stop(vmm: Vmm) -> None:
    """The rounds of `Migration`, with the final ones made too early."""
    migration = Migration(vmm.tracker, vmm.log, [vmm.source], clock=float)
    while True:
        try:
            for each in migration.final():
                vmm.send(each.shared, each.private)
            break
        except TransportError:
            continue
    vmm.stop()
    vmm.resume(migration.snapshot)


def mutant(name: str, drive: Callable[[Vmm], None] | type[Migration]) -> Policy:
    """A policy made of a broken Migration, or of a broken use of the sound one."""
    return Policy(name, "", partial(migrating, make=drive) if isinstance(drive, type) else drive)


SAFE = {"preserved": False, "rewritten": False}
CORRUPT = {"preserved": True, "rewritten": True}
CORRUPT_IF_REWRITTEN = {"preserved": False, "rewritten": True}

MUTANTS = [
    (mutant("none", Migration), SAFE),
    (mutant("without R4", WithoutR4), CORRUPT_IF_REWRITTEN),
    (mutant("without R0", WithoutR0), CORRUPT),
    (mutant("without the re-send", WithoutResend), CORRUPT_IF_REWRITTEN),
    (mutant("list then dirty", ListThenDirty), CORRUPT),
    (mutant("list then dirty, since", ListThenDirtySince), SAFE),
    (mutant("abort advances", AbortAdvances), CORRUPT_IF_REWRITTEN),
    (mutant("abort drops", AbortDrops), CORRUPT),
    (mutant("final before the stop", ending_before_the_stop), CORRUPT),
]


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    """Keeps what it learned of each mutant."""
    return Explorer()


@pytest.mark.parametrize(
    ("policy", "corrupts"), MUTANTS, ids=[policy.name for policy, _ in MUTANTS]
)
def test_the_hole_is_found_where_there_is_one(
    explorer: Explorer, policy: Policy, corrupts: dict[str, bool]
) -> None:
    guests = [replace(guest, failures=1) for guest in every_program(3)]
    for bytes_model in BYTES:
        verdicts = (explorer.explore(guest, policy, bytes_model) for guest in guests)
        corrupt = next((verdict for verdict in verdicts if not verdict.is_safe), None)
        assert (corrupt is not None) == corrupts[bytes_model]
        if corrupt is not None:
            faults = replay(corrupt.scenario, policy, bytes_model, corrupt.trace)
            assert faults == corrupt.faults


def test_a_page_that_is_converted_in_flight_is_what_the_re_send_is_for(
    explorer: Explorer,
) -> None:
    policy = mutant("without the re-send", WithoutResend)
    verdict = explorer.explore(SCENARIOS["conversion in flight"], policy, "rewritten")
    moves = [
        move.step.kind.value if move.step else move.action.verb.value if move.action else ""
        for move in verdict.trace
    ]
    converted = moves.index("set_shared")
    assert moves[converted - 1] in ("list", "send") and moves[converted + 1] in ("send", "commit")


def test_mutants_are_told_apart_by_the_scenario_that_is_theirs(explorer: Explorer) -> None:
    aborted, final = SCENARIOS["aborted round"], SCENARIOS["final round"]
    drops = mutant("abort drops", AbortDrops)
    early = mutant("final before the stop", ending_before_the_stop)
    assert not explorer.explore(aborted, drops, "preserved").is_safe
    assert explorer.explore(replace(aborted, failures=0), drops, "preserved").is_safe
    assert not explorer.explore(final, early, "preserved").is_safe


def test_two_rounds_that_fail_in_a_row_lose_nothing(explorer: Explorer) -> None:
    drops = mutant("second abort drops", SecondAbortDrops)
    guests = [replace(guest, failures=2) for guest in every_program(2)]
    for guest in guests:
        for bytes_model in BYTES:
            assert explorer.explore(guest, "pysharedpages", bytes_model).is_safe
    assert not explorer.explore(guests[0], drops, "preserved").is_safe
    assert explorer.explore(replace(guests[0], failures=1), drops, "preserved").is_safe


def test_samples_lose_nothing(explorer: Explorer) -> None:
    sampled = mutant("sampling", sampling)
    drops = mutant("sample drops", partial(sampling, make=SampleDrops))
    guests = [replace(guest, rounds=1) for guest in every_program(2)]
    for guest in guests:
        for bytes_model in BYTES:
            assert explorer.explore(guest, sampled, bytes_model).is_safe
    assert not explorer.explore(guests[0], drops, "preserved").is_safe
