"""Every interleaving of a scenario under a policy, and the shortest one that loses a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pysharedpages.errors import RangeError
from pysharedpages.races.machine import Machine
from pysharedpages.races.page import Fault
from pysharedpages.races.policies import Policy, policy_of
from pysharedpages.races.scenario import BYTES, Scenario
from pysharedpages.races.vmm import Setup
from pysharedpages.races.world import Move, Rules, World

__all__ = ["Explorer", "Verdict", "explore", "replay"]


@dataclass(frozen=True)
class Verdict:
    """What exploring a scenario under a policy and a byte model found.

    states: how many states there are; none is left out but what follows on one that is corrupt.
    trace: the moves of one of the shortest interleavings after which the guest reads a page wrong,
        or if there is none, after which the destination's list is wrong; else empty.
    faults: the pages that are wrong at its end, and what is wrong with each.
    """

    scenario: Scenario
    policy: Policy
    bytes: str
    states: int
    trace: tuple[Move, ...] = ()
    faults: tuple[tuple[int, Fault], ...] = ()

    @property
    def is_safe(self) -> bool:
        """Whether no interleaving corrupts a page."""
        return not self.trace

    @property
    def is_expected(self) -> bool:
        """Whether the scenario says so."""
        return self.is_safe == (self.scenario.hole(self.policy.name, self.bytes) is None)


class Explorer:
    """Explores scenarios, and keeps what it learned of each policy for the next.

    With `merge` false no two states of a VMM count as one: slow, to check the merging. One thread
    uses it.
    """

    def __init__(self, *, merge: bool = True) -> None:
        self._merge = merge
        self._machines: dict[tuple[Policy, Setup], Machine] = {}

    def explore(self, scenario: Scenario, policy: str | Policy, bytes_model: str) -> Verdict:
        """Explore all interleavings, breadth first.

        `policy` is one of `POLICIES` by name, or of your own; `bytes_model` one of `BYTES`. Raises
        RangeError for a name that is none. Time and memory grow with the number of states.
        """
        policy, rules = self.rules(scenario, policy, bytes_model)
        start = rules.start()
        came: dict[World, tuple[World, Move] | None] = {start: None}
        bad: dict[bool, World] = {}
        level = [start]
        while level:
            following = []
            for world in level:
                for move, reached in rules.moves(world):
                    if reached in came:
                        continue
                    came[reached] = world, move
                    faults = rules.faults(reached)
                    if faults:
                        bad.setdefault(any(fault.in_bytes for _, fault in faults), reached)
                    else:
                        following.append(reached)
            level = following
        if not bad:
            return Verdict(scenario, policy, bytes_model, len(came))
        worst = bad[max(bad)]
        return Verdict(
            scenario, policy, bytes_model, len(came), _way(came, worst), rules.faults(worst)
        )

    def rules(
        self, scenario: Scenario, policy: str | Policy, bytes_model: str
    ) -> tuple[Policy, Rules]:
        """The policy, and what may happen under it."""
        policy = policy_of(policy)
        if bytes_model not in BYTES:
            raise RangeError(f"no byte model {bytes_model!r}: there are {', '.join(BYTES)}")
        setup = Rules.setup(scenario)
        machine = self._machines.get((policy, setup))
        if machine is None:
            machine = self._machines[policy, setup] = Machine(policy, setup, merge=self._merge)
        return policy, Rules(scenario, bytes_model, machine)


def explore(scenario: Scenario, policy: str | Policy, bytes_model: str) -> Verdict:
    """As `Explorer.explore`, for one scenario."""
    return Explorer().explore(scenario, policy, bytes_model)


def replay(
    scenario: Scenario, policy: str | Policy, bytes_model: str, trace: Sequence[Move]
) -> tuple[tuple[int, Fault], ...]:
    """Make the moves of a trace, one after the other; the faults at its end.

    Raises ValueError for a move that cannot be made there. States of the VMM are not merged.
    """
    _, rules = Explorer(merge=False).rules(scenario, policy, bytes_model)
    world = rules.start()
    for number, move in enumerate(trace):
        possible = dict(rules.moves(world))
        if move not in possible:
            raise ValueError(f"move {number} of the trace, {move}, cannot be made there")
        world = possible[move]
    return rules.faults(world)


def _way(came: dict[World, tuple[World, Move] | None], last: World) -> tuple[Move, ...]:
    moves = []
    step = came[last]
    while step is not None:
        world, move = step
        moves.append(move)
        step = came[world]
    return tuple(reversed(moves))
