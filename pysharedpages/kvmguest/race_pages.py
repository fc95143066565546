"""What the pages of a scenario's guest should hold, by the steps that it took.

Nothing here asks a host, or the guest's ledger: it is what both are judged by.
"""

from __future__ import annotations

from pysharedpages.races.page import Bytes, Content, Fault, Layer, Page, fault_of
from pysharedpages.races.scenario import (
    BEGINS,
    FINISHES,
    REWRITTEN,
    SHARES,
    WRITES,
    Kind,
    Scenario,
    Step,
)

__all__ = ["RacePages"]


class RacePages:
    """All pages, after boot: those of RAM were written once.

    `tell` is called by a vCPU's thread while the caller of the rest waits for it.
    """

    def __init__(self, scenario: Scenario, bytes_model: str) -> None:
        self._scenario = scenario
        self.clears = bytes_model == REWRITTEN
        # By page: the type that the hosts were told, and that of the last write; what is in it,
        # garbage where nobody relies on that; and those that the platform has yet to convert.
        self._told = [False] * scenario.npages
        self._wrote_shared = [page in scenario.shared for page in range(scenario.npages)]
        self._content = [
            Content.GARBAGE if page in scenario.mmio else Content.NEW
            for page in range(scenario.npages)
        ]
        self._begun: set[int] = set()

    def is_shared(self, page: int) -> bool:
        """The type of a page, as it was told last."""
        return self._told[page]

    def tell(self, page: int, shared: bool) -> bool:
        """The guest tells a type; whether that is a conversion of RAM, for the platform to do."""
        changes = self._told[page] is not shared
        self._told[page] = shared
        return changes and page not in self._scenario.mmio

    def take(self, step: Step, told: bool) -> None:
        """A step was taken, before which the host had the page as `told`."""
        page = step.page
        if page in self._scenario.mmio:
            return
        if step.kind in WRITES:
            self._content[page] = Content.NEW
            self._wrote_shared[page] = told is (step.kind is Kind.WRITE)
        elif step.kind in FINISHES:
            if page in self._begun and self.clears:
                self._content[page] = Content.ZERO
            self._begun.discard(page)
        elif told is not (step.kind in SHARES):
            self._content[page] = self._converted(step)

    def expects(self, page: int) -> Content:
        """What a page should hold; garbage is anything."""
        return self._content[page]

    def fault(self, page: int, own: bool, found: Content, listed: bool) -> Fault | None:
        """What is wrong with a page that has `found` on the destination, `own` being the type that
        the guest's ledger has, and `listed` that of the host's list: what the model says of it.
        """
        wanted = self._content[page]
        here, there = (Layer.PLAIN, Layer.PLAIN) if own else (Layer.HERE, Layer.THERE)
        real = Page(
            here=Bytes(here, wanted),
            there=Bytes(there, found),
            own=own,
            told=self._told[page],
            lost=wanted is Content.GARBAGE,
            begun=page in self._begun,
            listed=listed,
        )
        return fault_of(real, False)

    def _converted(self, step: Step) -> Content:
        """A guest that breaks R3 relies on what it wrote, as soon as the type is that again."""
        if step.kind in BEGINS:
            self._begun.add(step.page)
            return Content.GARBAGE
        if self.clears:
            return Content.ZERO
        is_back = self._wrote_shared[step.page] is (step.kind in SHARES)
        return Content.NEW if is_back and self._scenario.at_fault == "R3" else Content.GARBAGE
