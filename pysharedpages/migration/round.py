"""One round: what it must send, and whether that arrived."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet, Snapshot, Transfer
from pysharedpages.dirty import Harvest
from pysharedpages.errors import ClosedError

__all__ = ["Instants", "Outcome", "Round", "RoundRecord"]


@dataclass(frozen=True)
class RoundRecord:
    """A committed round, in pages and in seconds of the migration's clock.

    `began` is when its first source was asked, `harvested` when all sources had been collected
    from, `listed` and `merged` when its snapshot and its transfer were there, `committed` when the
    pages had been sent. What the next round sends was dirtied between this `harvested` and the next
    one's. `rerouted_pages` are those of `Round.rerouted`.
    """

    number: int
    is_final: bool
    began: float
    harvested: float
    listed: float
    merged: float
    committed: float
    shared_pages: int
    private_pages: int
    converted_pages: int
    rerouted_pages: int


@dataclass(frozen=True)
class Instants:
    """When a round's steps were done, as in `RoundRecord`."""

    began: float
    harvested: float
    listed: float
    merged: float


class Outcome(Enum):
    """What became of a round."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Round:
    """What one pass must send: `shared` as plain bytes, `private` through the platform.

    `number` counts a migration's rounds from 1; `is_final` says that the guest is stopped.
    `transfer` is what merged, its arrays read-only. `snapshot` is the list that it went by: the
    caller's own, to keep or to close, but that an abort closes it. `rerouted` has the pages of
    memory among those to send that may lie on the destination as they came on the *other* path, by
    a round that arrived or by one that was aborted half-way: the destination converts them, or has
    TDX cancel them, first.

    `commit` says that all of it has arrived, `abort` that some of it may not have: its pages come
    again, with everything converted meanwhile. As a context manager it commits, or aborts on an
    exception; ended by hand before, it does neither. Once either was begun no exception takes it
    back: whatever interrupts it, no page is lost. The migration's thread alone uses it.
    """

    def __init__(
        self,
        number: int,
        is_final: bool,
        snapshot: Snapshot,
        transfer: Transfer,
        rerouted: PageSet,
        *,
        harvest: Harvest,
        instants: Instants,
        settle: Callable[[Round, bool], None],
    ) -> None:
        self.number = number
        self.is_final = is_final
        self.snapshot = snapshot
        self.transfer = transfer
        self.rerouted = rerouted
        self._harvest = harvest
        self._memory = harvest.memory
        # The list is needed for longer than the caller may hold its snapshot open.
        self._list = copy(snapshot)
        self._instants = instants
        self._settle: Callable[[Round, bool], None] | None = settle
        self._outcome = Outcome.OPEN
        self._is_out = False
        for ranges in (transfer.shared, transfer.private):
            ranges.flags.writeable = False

    @property
    def shared(self) -> NDArray[np.uint64]:
        """Ranges to send as plain bytes, (n, 2) uint64, read-only."""
        return self.transfer.shared

    @property
    def private(self) -> NDArray[np.uint64]:
        """Ranges to send through the platform's path, (n, 2) uint64, read-only."""
        return self.transfer.private

    @property
    def pages(self) -> int:
        """How many pages are to be sent."""
        return self.transfer.shared_pages + self.transfer.private_pages

    @property
    def dirty_pages(self) -> int:
        """How many of them were reported as dirty. A pass over these; ClosedError once it ended."""
        return len(self._harvest)

    @property
    def is_open(self) -> bool:
        """Whether it was neither committed nor aborted."""
        return self._outcome is Outcome.OPEN

    @property
    def is_committed(self) -> bool:
        """Whether it has arrived."""
        return self._outcome is Outcome.COMMITTED

    def commit(self) -> None:
        """Everything has arrived. ClosedError if the round has ended.

        O(1); with provenance as long as it takes to count what each source alone reported.
        """
        self._end(True)

    def abort(self) -> None:
        """Something may not have arrived: all of it comes again. ClosedError if it has ended.

        O(1), and what the log needs to unite the pages with those that it has by now.
        """
        self._end(False)

    def _end(self, arrived: bool) -> None:
        if self._settle is None or not self.is_open:
            raise ClosedError(f"round {self.number} was already {self._outcome.value}")
        self._settle(self, arrived)
        self._settle = None

    def _record(self, committed: float) -> RoundRecord:
        instants, transfer = self._instants, self.transfer
        return RoundRecord(
            number=self.number,
            is_final=self.is_final,
            began=instants.began,
            harvested=instants.harvested,
            listed=instants.listed,
            merged=instants.merged,
            committed=committed,
            shared_pages=transfer.shared_pages,
            private_pages=transfer.private_pages,
            converted_pages=len(transfer.converted),
            rerouted_pages=len(self.rerouted),
        )

    def __enter__(self) -> Round:
        if not self.is_open:
            raise ClosedError(f"round {self.number} was already {self._outcome.value}")
        self._is_out = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.is_open and kind is None:
                self.commit()
        finally:
            if self.is_open:
                self.abort()

    def __repr__(self) -> str:
        kind = "final round" if self.is_final else "round"
        return (
            f"<{kind} {self.number}, {self._outcome.value}: {self.transfer.shared_pages} shared and"
            f" {self.transfer.private_pages} private pages>"
        )
