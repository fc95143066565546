"""A scenario's guest on a real KVM: it takes one step at a time, and its VMM decides when.

Every vCPU stays at a breakpoint before each of its steps. `step` lets one pass and returns when the
step is done and the vCPU is out of the guest, be it in the exit of a conversion that the platform
has yet to do. After `move` steps are taken on the other host, where the guest goes on with the
registers it had.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from pysharedpages._core import Snapshot
from pysharedpages.dirty import GuestMemory
from pysharedpages.errors import SharedPagesError
from pysharedpages.kvmguest.hosts import Host, Hosts
from pysharedpages.kvmguest.ledger import Ledger, LedgerView
from pysharedpages.kvmguest.race_pages import RacePages
from pysharedpages.races.page import Content, Fault
from pysharedpages.races.scenario import (
    BEGINS,
    FINISHES,
    SHARES,
    WRITES,
    Kind,
    Program,
    Scenario,
)
from pysharedpages.races.scenario import Step as Act
from pysharedpages.softguest.comparison import View
from pysharedpages.testing.space import PAGE_SIZE
from pysharedpages.testing.steps import Breakpoint, Step
from pysharedpages.testing.vcpu import State, Vcpu

__all__ = ["RaceGuest"]

# Sparse, and small enough for all of it to be sent in every first round.
_MEMORY_PAGES: Final = 16
_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1


class _Half:
    """A conversion whose exit is held up: begun by the vCPU's thread, finished by the other."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.finished = threading.Event()


class RaceGuest:
    """The guest of `scenario`, before its first step; a context manager.

    `bytes_model` is what a conversion does to a page, one of `races.scenario.BYTES`: this KVM
    preserves it, so it is cleared by hand, behind the dirty log's back, if that is asked for. `log`
    is "bitmap" or "ring". One thread drives it. Raises as `MicroVM` does.
    """

    def __init__(self, scenario: Scenario, bytes_model: str, log: str, *, seed: int = 0) -> None:
        self.scenario = scenario
        self.ledger = Ledger(_MEMORY_PAGES, scenario.npages)
        self._moved = self._went_on = False
        self._done = [0] * len(scenario.vcpus)
        self._pages = {self.ledger.layout.gfn(page): page for page in range(scenario.npages)}
        self._expected = RacePages(scenario, bytes_model)
        # By vCPU: conversions that the tracker has, and the platform has not done.
        self._halves: dict[int, _Half] = {}
        programs = [
            (*(self._boot() if number == 0 else ()), *self._steps(program))
            for number, program in enumerate(scenario.vcpus)
        ]
        self.hosts = Hosts(
            self._memory(), programs, log=log, seed=seed, converted=self._on_conversion
        )

    def boot(self) -> None:
        """Return when every vCPU stands before its first step."""
        for vcpu in self.hosts.here.machine.vcpus:
            vcpu.start()
            self._wait(vcpu)

    def ready(self) -> list[int]:
        """The vCPUs that have steps left."""
        return [
            vcpu
            for vcpu, program in enumerate(self.scenario.vcpus)
            if self._done[vcpu] < len(program)
        ]

    def converting(self) -> list[int]:
        """The vCPUs in the middle of a conversion: they cannot stop there."""
        return list(self._halves)

    def step(self, vcpu: int) -> Act:
        """Let a vCPU take its next step, and return it. IndexError if it has none."""
        act = self.scenario.vcpus[vcpu][self._done[vcpu]]
        told = self._expected.is_shared(act.page)
        running = self._host.machine.vcpus[vcpu]
        if act.kind in BEGINS:
            half = self._halves[vcpu] = _Half()
            self._go(running)
            self._wait_for_exit(half)
        else:
            if act.kind in FINISHES:
                self._halves.pop(vcpu).finished.set()
            else:
                self._go(running)
            self._wait(running)
        self._done[vcpu] += 1
        self._went_on = self._moved
        self._expected.take(act, told)
        return act

    def move(self) -> None:
        """Have the guest go on on the destination."""
        self._moved = True

    def gfn_of(self, page: int) -> int:
        """Where a page of the scenario lies."""
        return self.ledger.layout.gfn(page)

    def page_at(self, gfn: int) -> int | None:
        """The scenario's page at a gfn; None for the ledger, and where nothing is."""
        return self._pages.get(gfn)

    def faults(self) -> tuple[tuple[int, Fault], ...]:
        """The pages that are wrong where the guest has moved to, and what is wrong with each.

        Pages are read by the guest's ledger: on arrival by that which it left behind, or a page and
        its entry could be lost together. A ledger that did not arrive is page `npages`.
        """
        left, there = self.hosts.here.view, self.hosts.there
        table = LedgerView(self.ledger, there.view.space if self._went_on else left.space)
        listed = there.pages.snapshot()
        found = [(page, self._fault(page, table, listed)) for page in range(self.scenario.npages)]
        if not self._went_on and self.ledger.read(left.space) != self.ledger.read(there.view.space):
            found.append((self.scenario.npages, Fault("the guest's ledger is an old one", True)))
        return tuple((page, fault) for page, fault in found if fault is not None)

    def close(self) -> None:
        """End the guest on both hosts."""
        for half in self._halves.values():
            half.finished.set()
        self.hosts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _host(self) -> Host:
        """Where the guest is."""
        return self.hosts.there if self._moved else self.hosts.here

    def _fault(self, page: int, table: LedgerView, listed: Snapshot) -> Fault | None:
        found = self._read(page, table)
        is_listed = table.gfn(page) in listed
        return self._expected.fault(page, table.is_shared(page), found, is_listed)

    def _read(self, page: int, table: LedgerView) -> Content:
        seen = table.seen(page, self.hosts.there.view)
        if seen == bytes(PAGE_SIZE):
            return Content.ZERO
        if self._expected.expects(page) is Content.NEW and table.wrote(page, seen):
            return Content.NEW
        return Content.OLD if table.wrote_ever(page, seen) else Content.GARBAGE

    # ---- its machine ----

    def _memory(self) -> GuestMemory:
        """All but the MMIO pages, in a slot from one of them to the next."""
        holes = [self.ledger.layout.gfn(page) for page in sorted(self.scenario.mmio)]
        starts = [0, *(gfn + 1 for gfn in holes)]
        slots = zip(starts, [*holes, _MEMORY_PAGES], strict=True)
        sizes = [(start, stop - start) for start, stop in slots if stop > start]
        return GuestMemory([(slot, *size) for slot, size in enumerate(sizes)])

    def _boot(self) -> Iterator[Step]:
        yield self.ledger.convert_itself()
        for page in range(self.scenario.npages):
            if page in self.scenario.shared:
                yield from self.ledger.retype(range(page, page + 1), True)
            if page not in self.scenario.mmio:
                yield from self.ledger.stamp(range(page, page + 1))

    def _steps(self, program: Program) -> Iterator[Step]:
        # What this vCPU told last: an early write is under the other type.
        shared = set(self.scenario.shared)
        for number, act in enumerate(program):
            page = range(act.page, act.page + 1)
            if act.kind in FINISHES:
                continue
            yield Breakpoint(number)
            if act.kind not in WRITES:
                yield from self.ledger.retype(page, act.kind in SHARES)
                (shared.add if act.kind in SHARES else shared.discard)(act.page)
            elif act.page not in self.scenario.mmio:  # this VM has no device that would take it
                if act.kind is Kind.EARLY_WRITE:
                    yield self.ledger.assume(act.page, act.page not in shared)
                yield from self.ledger.stamp(page)
        yield Breakpoint(len(program))

    def _go(self, vcpu: Vcpu) -> None:
        if vcpu.state is State.NEW:
            vcpu.load(self.hosts.here.machine.vcpus[vcpu.number].registers())
            vcpu.start()
        else:
            vcpu.pass_breakpoint()

    def _wait_for_exit(self, half: _Half) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not half.begun.wait(_POLL_SECONDS):
            self._host.machine.raise_failure()
            if time.monotonic() > deadline:
                raise SharedPagesError("a vCPU that was to convert a page did not leave the guest")

    def _wait(self, vcpu: Vcpu) -> None:
        still = vcpu.wait_until_still(_PATIENCE_SECONDS)
        self._host.machine.raise_failure()
        if not still or vcpu.state is not State.AT_BREAKPOINT:
            raise SharedPagesError(f"vCPU {vcpu.number} is {vcpu.state.value}, at no breakpoint")

    def _on_conversion(self, view: View, vcpu: int, gfn: int, shared: bool) -> None:
        """The tracker has heard; now the platform does it, unless that status was told before."""
        page = self._pages.get(gfn)
        if page is None:
            return
        is_conversion = self._expected.tell(page, shared)
        half = self._halves.get(vcpu)
        if half is not None:
            half.begun.set()
            half.finished.wait()
        if is_conversion and self._expected.clears:
            zeros = bytes(PAGE_SIZE)
            view.space.write(gfn, zeros if shared else view.cipher.encrypt(gfn, zeros))
