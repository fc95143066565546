"""Races on a real KVM: a scenario's guest migrated by a policy, and what really happened.

Floor: kvmguest, above races, whose scenarios and policies these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from pysharedpages.errors import SharedPagesError
from pysharedpages.kvmguest.race_guest import RaceGuest
from pysharedpages.kvmguest.race_vmm import RealVmm
from pysharedpages.races.explorer import Verdict
from pysharedpages.races.page import Fault
from pysharedpages.races.policies import Policy
from pysharedpages.races.scenario import CONVERTS, Kind, Log, Scenario
from pysharedpages.races.vmm import MAY_FAIL, Action, TransportError, Verb
from pysharedpages.races.world import Move

__all__ = [
    "DivergedError",
    "Finding",
    "Outcome",
    "RandomSchedule",
    "Replay",
    "Schedule",
    "examine",
    "run",
]


class DivergedError(SharedPagesError):
    """A real guest or its VMM did not follow the trace."""


@dataclass(frozen=True)
class Outcome:
    """What happened, in order, up to the first instant at which the guest had pages on the
    destination that were wrong there; and what was wrong with each.
    """

    moves: tuple[Move, ...]
    faults: tuple[tuple[int, Fault], ...]

    @property
    def is_safe(self) -> bool:
        """Whether the guest came to its end with nothing wrong."""
        return not self.faults


class Schedule(Protocol):
    """When the guest takes its steps, and what the transport loses."""

    def next_vcpu(self, ready: list[int], /) -> int | None:
        """Which of the vCPUs that have steps left takes one now; None if the VMM acts next.

        On the destination the VMM does not act, and None is the first of them.
        """

    def fails(self, action: Action, /) -> bool:
        """Whether what the VMM does next does not arrive, if it is a page or a commit."""


class RandomSchedule:
    """Spreads a scenario's steps, and as many failures as it has, at random over the VMM's."""

    def __init__(self, scenario: Scenario, rng: Random) -> None:
        self._rng = rng
        self._failures = scenario.failures
        steps = sum(map(len, scenario.vcpus))
        actions = (scenario.rounds + 1) * (scenario.npages + 3)
        self._step_odds = steps / (steps + actions)
        self._failure_odds = scenario.failures / actions

    def next_vcpu(self, ready: list[int]) -> int | None:
        """See `Schedule`."""
        return self._rng.choice(ready) if self._rng.random() < self._step_odds else None

    def fails(self, action: Action) -> bool:
        """See `Schedule`."""
        may_fail = self._failures and action.verb in MAY_FAIL
        if not may_fail or self._rng.random() >= self._failure_odds:
            return False
        self._failures -= 1
        return True


class Replay:
    """The moves of a trace, in their order; after its end the VMM alone. DivergedError where that
    cannot be.
    """

    def __init__(self, trace: Sequence[Move]) -> None:
        self._left = list(reversed(trace))

    def next_vcpu(self, ready: list[int]) -> int | None:
        """See `Schedule`."""
        if not self._left or self._left[-1].step is None:
            return None
        move = self._left.pop()
        if move.vcpu not in ready:
            raise DivergedError(f"the guest has no step left for {move}")
        return move.vcpu

    def fails(self, action: Action) -> bool:
        """See `Schedule`."""
        if not self._left:
            return False
        move = self._left.pop()
        if move.action != action:
            raise DivergedError(f"the VMM is at {action}, the trace at {move}")
        return move.failed


def run(
    scenario: Scenario,
    policy: Policy,
    schedule: Schedule,
    *,
    bytes_model: str,
    log: str | None = None,
    seed: int = 0,
) -> Outcome:
    """Migrate the scenario's guest from one VM to another, and judge what it reads there.

    `log` is "bitmap" or "ring", in place of a scenario's bitmap; `seed` makes the keys. Raises
    UnsupportedHostError where the host has no KVM that can, DivergedError from a `Replay`.
    """
    own = (log or "bitmap") if scenario.log is Log.BITMAP else "ring"
    with RaceGuest(scenario, bytes_model, own, seed=seed) as guest:
        return _Race(guest, policy, schedule).run()


@dataclass(frozen=True)
class Finding:
    """What real guests did, beside what the model says of them.

    outcome: of the run that corrupted a page, the last, or else of the last. runs: how many there
        were.
    """

    verdict: Verdict
    outcome: Outcome
    runs: int

    @property
    def is_safe(self) -> bool:
        """Whether no run corrupted a page."""
        return self.outcome.is_safe

    @property
    def is_expected(self) -> bool:
        """Whether that is what the scenario says."""
        verdict = self.verdict
        return self.is_safe == (verdict.scenario.hole(verdict.policy.name, verdict.bytes) is None)


def examine(verdict: Verdict, *, runs: int, log: str | None = None, seed: int = 0) -> Finding:
    """Have a real guest lose the pages that the model's loses, in the same interleaving; where the
    model finds no such, migrate `runs` guests, one or more, with their steps anywhere.

    Raises as `run` does.
    """
    scenario, policy = verdict.scenario, verdict.policy

    def once(schedule: Schedule, number: int) -> Outcome:
        return run(
            scenario, policy, schedule, bytes_model=verdict.bytes, log=log, seed=seed + number
        )

    if not verdict.is_safe:
        return Finding(verdict, once(Replay(verdict.trace), 0), 1)
    for number in range(runs):
        outcome = once(RandomSchedule(scenario, Random(f"{seed}/{number}/{scenario.name}")), number)
        if not outcome.is_safe:
            break
    return Finding(verdict, outcome, number + 1)


class _Race:
    """One run: who acts next, and what was seen."""

    def __init__(self, guest: RaceGuest, policy: Policy, schedule: Schedule) -> None:
        self._guest = guest
        self._policy = policy
        self._schedule = schedule
        self._moves: list[Move] = []
        self._stopped = False
        self._vmm = RealVmm(guest, self._at, self._found)

    def run(self) -> Outcome:
        guest = self._guest
        self._policy.drive(self._vmm)
        faults = guest.faults()
        while not faults and (ready := guest.ready()):
            vcpu = self._schedule.next_vcpu(ready)
            self._step(ready[0] if vcpu is None else vcpu)
            faults = guest.faults()
        return Outcome(tuple(self._moves), faults)

    def _at(self, action: Action) -> None:
        while not self._stopped and (ready := self._guest.ready()):
            vcpu = self._schedule.next_vcpu(ready)
            if vcpu is None:
                break
            self._step(vcpu)
        if action.verb is Verb.STOP:
            for vcpu in self._guest.converting():
                self._step(vcpu)
        failed = self._schedule.fails(action) and action.verb in MAY_FAIL
        self._moves.append(Move(action=action, failed=failed))
        if failed:
            raise TransportError(f"{action.verb} of round {action.round}")
        if action.verb is Verb.STOP:
            self._stopped = True
            self._vmm.on_exit()

    def _found(self, pages: tuple[int, ...]) -> None:
        self._moves[-1] = self._moves[-1]._replace(found=pages)

    def _step(self, vcpu: int) -> None:
        step = self._guest.step(vcpu)
        self._moves.append(Move(vcpu, step))
        if step.kind in CONVERTS:
            self._vmm.on_exit()
        if step.kind is Kind.FINISH_LOGGED and step.page not in self._guest.scenario.mmio:
            self._vmm.add(step.page)
