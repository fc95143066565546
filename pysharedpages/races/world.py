"""All of a scenario at one instant, and the moves that may come next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import cache
from typing import Final, NamedTuple

from pysharedpages.races.machine import DIRTIED, FAIL, GO, SHARED, UNSHARED, Event, Machine
from pysharedpages.races.page import Fault, Page, fault_of, first_page, moved, sent, stepped
from pysharedpages.races.scenario import (
    BEGINS,
    CONVERTS,
    FINISHES,
    PRESERVED,
    SHARES,
    Kind,
    Log,
    Scenario,
    Step,
)
from pysharedpages.races.vmm import MAY_FAIL, Action, Setup, Verb

__all__ = ["Move", "Phase", "Rules", "World"]

# A page has few states, and worlds that differ elsewhere ask the same of it again and again.
_fault_of: Final = cache(fault_of)
_moved: Final = cache(moved)
_sent: Final = cache(sent)
_stepped: Final = cache(stepped)


class Phase(IntEnum):
    """Where the guest is."""

    RUNNING = 0
    STOPPED = 1
    MOVED = 2


class World(NamedTuple):
    """Everything that the future depends on.

    vmm: the state of the policy's machine. steps: how many steps each vCPU has taken. waiting:
    (vCPU, page) of log entries that no exit has brought out of the vCPU yet. failures: how often
    the transport may still fail.
    """

    vmm: int
    steps: tuple[int, ...]
    pages: tuple[Page, ...]
    waiting: frozenset[tuple[int, int]]
    failures: int
    phase: Phase


class Move(NamedTuple):
    """One step of a vCPU, or one action of the VMM.

    `found` has the pages that a harvest found dirty, or a list shared. `failed`: the transport did.
    """

    vcpu: int = 0
    step: Step | None = None
    action: Action | None = None
    found: tuple[int, ...] = ()
    failed: bool = False


class Rules:
    """What may happen in a scenario, under one policy and one byte model."""

    def __init__(self, scenario: Scenario, bytes_model: str, machine: Machine) -> None:
        self._scenario = scenario
        self._bytes = bytes_model
        self._machine = machine
        self._trusting = scenario.at_fault == "R3"

    @staticmethod
    def setup(scenario: Scenario) -> Setup:
        """What the machine of a scenario is made for."""
        return Setup(scenario.npages, scenario.shared, scenario.mmio, scenario.rounds)

    def start(self) -> World:
        """Nothing has happened."""
        scenario = self._scenario
        return World(
            self._machine.start,
            (0,) * len(scenario.vcpus),
            tuple(
                first_page(page in scenario.shared, page not in scenario.mmio)
                for page in range(scenario.npages)
            ),
            frozenset(),
            scenario.failures,
            Phase.RUNNING,
        )

    def moves(self, world: World) -> Iterator[tuple[Move, World]]:
        """Every move that may come next, and what it leads to."""
        if world.phase != Phase.STOPPED:
            for vcpu, program in enumerate(self._scenario.vcpus):
                if world.steps[vcpu] < len(program):
                    step = program[world.steps[vcpu]]
                    yield Move(vcpu, step), self._stepped(world, vcpu, step)
        if world.phase != Phase.MOVED:
            action = self._machine.action(world.vmm)
            if action.verb is Verb.STOP and self._is_converting(world):
                return
            yield self._acted(world, action)
            if world.failures and action.verb in MAY_FAIL:
                vmm = self._machine.after(world.vmm, FAIL)
                failed = world._replace(vmm=vmm, failures=world.failures - 1)
                yield Move(action=action, failed=True), failed

    def faults(self, world: World) -> tuple[tuple[int, Fault], ...]:
        """The pages that are wrong for a guest that has moved, and what is wrong with each."""
        if world.phase != Phase.MOVED:
            return ()
        found = []
        for number, page in enumerate(world.pages):
            fault = _fault_of(page, self._trusting)
            if fault is not None:
                found.append((number, fault))
        return tuple(found)

    def _is_converting(self, world: World) -> bool:
        """Whether a vCPU is in the middle of a conversion, and cannot stop there."""
        return any(
            count and program[count - 1].kind in BEGINS
            for count, program in zip(world.steps, self._scenario.vcpus, strict=True)
        )

    def _stepped(self, world: World, vcpu: int, step: Step) -> World:
        vmm, steps, pages, waiting, failures, phase = world
        steps = (*steps[:vcpu], steps[vcpu] + 1, *steps[vcpu + 1 :])
        if phase == Phase.RUNNING:
            vmm, waiting = self._seen(vmm, waiting, vcpu, step)
        pages = _with(pages, step.page, self._page_after(pages[step.page], step))
        return World(vmm, steps, pages, waiting, failures, phase)

    def _page_after(self, page: Page, step: Step) -> Page:
        if step.page not in self._scenario.mmio:
            return _stepped(page, step.kind, self._bytes)
        if step.kind in (*CONVERTS, *FINISHES):
            return _stepped(page, step.kind, PRESERVED)
        return page

    def _seen(
        self, vmm: int, waiting: frozenset[tuple[int, int]], vcpu: int, step: Step
    ) -> tuple[int, frozenset[tuple[int, int]]]:
        """The VMM and the entries that wait, after a step on the source."""
        after = self._machine.after
        if step.kind in CONVERTS:
            mine = {entry for entry in waiting if entry[0] == vcpu}
            kind = SHARED if step.kind in SHARES else UNSHARED
            return after(self._logged(vmm, mine), Event(kind, step.page)), waiting - mine
        if step.page in self._scenario.mmio or step.kind is Kind.FINISH:
            return vmm, waiting
        if self._scenario.log is Log.BITMAP or step.kind is Kind.FINISH_LOGGED:
            return after(vmm, Event(DIRTIED, step.page)), waiting
        return vmm, waiting | {(vcpu, step.page)}

    def _logged(self, vmm: int, entries: Iterable[tuple[int, int]]) -> int:
        for page in sorted({page for _, page in entries}):
            vmm = self._machine.after(vmm, Event(DIRTIED, page))
        return vmm

    def _acted(self, world: World, action: Action) -> tuple[Move, World]:
        vmm, steps, pages, waiting, failures, phase = world
        verb = action.verb
        if verb == Verb.RESUME:
            listed = action.listed
            pages = tuple(_moved(page, number in listed) for number, page in enumerate(pages))
            return Move(action=action), World(-1, steps, pages, frozenset(), 0, Phase.MOVED)
        exits = verb == Verb.STOP or (verb == Verb.HARVEST and self._scenario.log is Log.RING)
        if exits:
            vmm, waiting = self._logged(vmm, waiting), frozenset()
        if verb == Verb.STOP:
            phase = Phase.STOPPED
        elif verb == Verb.SEND:
            pages = _with(pages, action.page, _sent(pages[action.page], action.shared))
        move = Move(action=action, found=self._machine.found(vmm))
        return move, World(self._machine.after(vmm, GO), steps, pages, waiting, failures, phase)


def _with(pages: tuple[Page, ...], number: int, page: Page) -> tuple[Page, ...]:
    return (*pages[:number], page, *pages[number + 1 :])
