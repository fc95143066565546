"""A scenario's guest on a real KVM: it takes one step at a time, and its VMM decides when.

Every vCPU stays at a breakpoint before each of its steps. `step` lets one pass and returns when the
step is done and the vCPU is out of the guest. After `move` steps are taken on the other host, where
the guest goes on with the registers it had. What a page should hold is known from the steps alone:
nothing here asks the tracker.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from pysharedpages._core import Snapshot
from pysharedpages.dirty import GuestMemory
from pysharedpages.errors import SharedPagesError
from pysharedpages.kvmguest.hosts import Host, Hosts
from pysharedpages.kvmguest.ledger import Ledger, LedgerView
from pysharedpages.races.page import Bytes, Content, Fault, Layer, Page, fault_of
from pysharedpages.races.scenario import REWRITTEN, Kind, Program, Scenario
from pysharedpages.races.scenario import Step as Act
from pysharedpages.softguest.comparison import View
from pysharedpages.testing.space import PAGE_SIZE
from pysharedpages.testing.steps import Breakpoint, Step
from pysharedpages.testing.vcpu import State, Vcpu

__all__ = ["RaceGuest"]

# Sparse, and small enough for all of it to be sent in every first round.
_MEMORY_PAGES: Final = 16
_PATIENCE_SECONDS: Final = 60.0


class RaceGuest:
    """The guest of `scenario`, before its first step; a context manager.

    `bytes_model` is what a conversion does to a page, one of `races.scenario.BYTES`: this KVM
    preserves it, so it is cleared by hand, behind the dirty log's back, if that is asked for. `log`
    is "bitmap" or "ring". One thread drives it. Raises as `MicroVM` does.
    """

    def __init__(self, scenario: Scenario, bytes_model: str, log: str, *, seed: int = 0) -> None:
        self.scenario = scenario
        self.ledger = Ledger(_MEMORY_PAGES, scenario.npages)
        self._clears = bytes_model == REWRITTEN
        self._moved = self._went_on = False
        self._done = [0] * len(scenario.vcpus)
        self._pages = {self.ledger.layout.gfn(page): page for page in range(scenario.npages)}
        # By page: the type that the hosts were told, that of the last write, and what is expected,
        # or garbage where nothing is.
        self._told = [False] * scenario.npages
        self._wrote_shared = [page in scenario.shared for page in range(scenario.npages)]
        self._content = [
            Content.GARBAGE if page in scenario.mmio else Content.NEW
            for page in range(scenario.npages)
        ]
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

    def step(self, vcpu: int) -> Act:
        """Let a vCPU take its next step, and return it. IndexError if it has none."""
        act = self.scenario.vcpus[vcpu][self._done[vcpu]]
        told = self._told[act.page]
        running = self._host.machine.vcpus[vcpu]
        if running.state is State.NEW:
            running.load(self.hosts.here.machine.vcpus[vcpu].registers())
            running.start()
        else:
            running.pass_breakpoint()
        self._wait(running)
        self._done[vcpu] += 1
        self._went_on = self._moved
        self._expect(act, told)
        return act

    def move(self) -> None:
        """Have the guest go on on the destination."""
        self._moved = True

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

    # ---- what it should read ----

    def _expect(self, act: Act, told: bool) -> None:
        """Note what the page holds after a step; `told` is its type as the host knew it before."""
        page = act.page
        now = act.kind is Kind.SET_SHARED
        if page in self.scenario.mmio:
            return
        if act.kind is Kind.WRITE or act.kind is Kind.EARLY_WRITE:
            self._content[page] = Content.NEW
            self._wrote_shared[page] = told is (act.kind is Kind.WRITE)
        elif now is not told and self._clears:
            self._content[page] = Content.ZERO
        elif now is not told:
            kept = self.scenario.at_fault == "R3" and self._wrote_shared[page] is now
            self._content[page] = Content.NEW if kept else Content.GARBAGE

    def _fault(self, page: int, table: LedgerView, listed: Snapshot) -> Fault | None:
        """What the model says of a page that is, on both hosts, as this one really is."""
        own = table.is_shared(page)
        wanted = self._content[page]
        here, there = (Layer.PLAIN, Layer.PLAIN) if own else (Layer.HERE, Layer.THERE)
        real = Page(
            here=Bytes(here, wanted),
            there=Bytes(there, self._read(page, table)),
            own=own,
            told=self._told[page],
            lost=wanted is Content.GARBAGE,
            listed=table.gfn(page) in listed,
        )
        return fault_of(real, False)

    def _read(self, page: int, table: LedgerView) -> Content:
        seen = table.seen(page, self.hosts.there.view)
        if seen == bytes(PAGE_SIZE):
            return Content.ZERO
        if self._content[page] is Content.NEW and table.wrote(page, seen):
            return Content.NEW
        return Content.OLD if table.wrote_ever(page, seen) else Content.GARBAGE

    # ---- its machine ----

    def _memory(self) -> GuestMemory:
        """All but the MMIO pages, in a slot from one of them to the next."""
        holes = [self.ledger.layout.gfn(page) for page in sorted(self.scenario.mmio)]
        starts = [0, *(gfn + 1 for gfn in holes)]
        slots = zip(starts, [*holes, _MEMORY_PAGES], strict=True)
        return GuestMemory(
            [
                (slot, start, stop - start)
                for slot, (start, stop) in enumerate(slots)
                if stop > start
            ]
        )

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
            yield Breakpoint(number)
            page = range(act.page, act.page + 1)
            if act.page in self.scenario.mmio and act.kind in (Kind.WRITE, Kind.EARLY_WRITE):
                continue  # this VM has no device that would take it
            if act.kind is Kind.EARLY_WRITE:
                yield self.ledger.assume(act.page, act.page not in shared)
            if act.kind is Kind.WRITE or act.kind is Kind.EARLY_WRITE:
                yield from self.ledger.stamp(page)
                continue
            yield from self.ledger.retype(page, act.kind is Kind.SET_SHARED)
            (shared.add if act.kind is Kind.SET_SHARED else shared.discard)(act.page)
        yield Breakpoint(len(program))

    def _wait(self, vcpu: Vcpu) -> None:
        still = vcpu.wait_until_still(_PATIENCE_SECONDS)
        self._host.machine.raise_failure()
        if not still or vcpu.state is not State.AT_BREAKPOINT:
            raise SharedPagesError(f"vCPU {vcpu.number} is {vcpu.state.value}, at no breakpoint")

    def _on_conversion(self, view: View, gfn: int, shared: bool) -> None:
        """A status that is told again is no conversion, and the platform does not hear of it."""
        page = self._pages.get(gfn)
        if page is None or self._told[page] is shared:
            return
        self._told[page] = shared
        if self._clears and page not in self.scenario.mmio:
            zeros = bytes(PAGE_SIZE)
            view.space.write(gfn, zeros if shared else view.cipher.encrypt(gfn, zeros))
