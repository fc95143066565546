"""One round: what it must send, and whether that arrived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet, Snapshot, Transfer
from pysharedpages.errors import ClosedError

__all__ = ["Round", "RoundRecord"]


@dataclass(frozen=True)
class RoundRecord:
    """A committed round, in pages and in seconds of the migration's clock.

    `harvested` is when all sources had been collected from, `committed` when the pages had been
    sent. What the next round sends was dirtied between this `harvested` and the next one's.
    """

    number: int
    is_final: bool
    harvested: float
    committed: float
    shared_pages: int
    private_pages: int
    converted_pages: int
    rerouted_pages: int


class Round:
    """What one pass must send: `shared` as plain bytes, `private` through the platform.

    `commit` says that all of it has arrived, `abort` that some of it may not have: its pages come
    again, with everything converted meanwhile. As a context manager it commits, or aborts on an
    exception. The migration's thread alone uses it.
    """

    def __init__(
        self,
        number: int,
        is_final: bool,
        snapshot: Snapshot,
        transfer: Transfer,
        rerouted: PageSet,
        settle: Callable[[Round, bool], None],
    ) -> None:
        self.number = number
        self.is_final = is_final
        self.snapshot = snapshot
        self.transfer = transfer
        self.rerouted = rerouted
        self._settle: Callable[[Round, bool], None] | None = settle

    @property
    def shared(self) -> NDArray[np.uint64]:
        """Ranges to send as plain bytes, (n, 2) uint64."""
        return self.transfer.shared

    @property
    def private(self) -> NDArray[np.uint64]:
        """Ranges to send through the platform's path, (n, 2) uint64."""
        return self.transfer.private

    @property
    def pages(self) -> int:
        """How many pages are to be sent."""
        return self.transfer.shared_pages + self.transfer.private_pages

    @property
    def is_open(self) -> bool:
        """Whether it was neither committed nor aborted."""
        return self._settle is not None

    def commit(self) -> None:
        """Everything has arrived. ClosedError if the round has ended."""
        self._end(True)

    def abort(self) -> None:
        """Something may not have arrived: all of it comes again. ClosedError if it has ended."""
        self._end(False)

    def _end(self, arrived: bool) -> None:
        settle = self._settle
        if settle is None:
            raise ClosedError(f"round {self.number} was already committed or aborted")
        settle(self, arrived)
        self._settle = None

    def __enter__(self) -> Round:
        if self._settle is None:
            raise ClosedError(f"round {self.number} was already committed or aborted")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._settle is not None:
            self._end(kind is None)

    def __repr__(self) -> str:
        kind = "final round" if self.is_final else "round"
        return (
            f"<{kind} {self.number}: {self.transfer.shared_pages} shared and"
            f" {self.transfer.private_pages} private pages>"
        )
