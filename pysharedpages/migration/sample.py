"""What a guest dirties in a short interval, measured while a round travels, and nothing lost.

Rounds tell how many pages get dirty in intervals as long as rounds are. How far these will shrink
depends on shorter ones, which nobody has seen yet: a sample is the harvest of one, counted and
given back to the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from pysharedpages._core import Snapshot
from pysharedpages.dirty import Harvest
from pysharedpages.errors import ClosedError

__all__ = ["Sample", "Sampler"]


class Listed(Protocol):
    """What is asked of the tracker."""

    def snapshot(self) -> Snapshot:
        """See `SharedPages.snapshot`."""


@dataclass(frozen=True)
class Sample:
    """Distinct pages that were written or converted within `seconds`.

    `after` is how many rounds had been committed by then.
    """

    after: int
    seconds: float
    shared_pages: int
    private_pages: int


class Sampler:
    """The samples of one migration, taken by its thread.

    While one is taken, the pages that were dirty before are held here and missing from the log:
    who harvests for a round has them given back first. Whatever interrupts a step, what was taken
    is either noted here by then, or forgotten, which gives it back.
    """

    def __init__(
        self, collect: Callable[[], Harvest], pages: Listed, clock: Callable[[], float]
    ) -> None:
        self.pages = pages
        self.clock = clock
        self.samples: list[Sample] = []
        self._collect = collect
        self._held: list[Harvest] = []
        self._taken = 0

    @contextmanager
    def sampling(self, after: int) -> Iterator[None]:
        """Adds a sample of the time that the body takes, unless it fails or `give_back` is called.

        `after` is how many rounds have been committed.
        """
        self.give_back()
        taken = self._taken
        try:
            self._held.append(self._collect())
            begun = self.clock()
            with self.pages.snapshot() as older:
                yield
                if self._taken == taken:
                    self._count(after, begun, older)
        finally:
            if self._taken == taken:
                self.give_back()

    def give_back(self) -> None:
        """Ends the sample that is being taken, if one is: all its pages are in the log again."""
        self._taken += 1
        while self._held:
            # Noted until it has ended: an interrupt's traceback would keep it from its log.
            with suppress(ClosedError):
                self._held[-1].abort()
            self._held.pop()

    def _count(self, after: int, begun: float, older: Snapshot) -> None:
        self._held.append(self._collect())
        seconds = self.clock() - begun
        with self.pages.snapshot() as snapshot:
            dirtied = snapshot.merge(self._held[-1], since=older)
        self.samples.append(Sample(after, seconds, dirtied.shared_pages, dirtied.private_pages))
