"""What to migrate, and how: the options of one run, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pysharedpages.errors import RangeError

__all__ = [
    "DIRTY_THEN_LIST",
    "ENGINES",
    "LEAST_RESIDENT_PAGES",
    "LIST_THEN_DIRTY",
    "LOGS",
    "ORDERS",
    "SOURCES",
    "Scenario",
]

DIRTY_THEN_LIST: Final = "dirty-then-list"
LIST_THEN_DIRTY: Final = "list-then-dirty"
ORDERS: Final = (DIRTY_THEN_LIST, LIST_THEN_DIRTY)
SOURCES: Final = ("kvm", "process", "model")
LOGS: Final = ("bitmap", "ring")
ENGINES: Final = ("auto", "interval", "roaring")
# Room for the pages that are kept back for the worst instant, and for patterns worth the name.
LEAST_RESIDENT_PAGES: Final = 256


@dataclass(frozen=True)
class Scenario:
    """What to migrate, and how.

    `source` is "kvm", "process", "model", or None for the first that the host can; `log` is the
    dirty log of a KVM guest, one of `LOGS`, or None for the first.

    Raises `RangeError` for a number out of bounds, with the bound.
    """

    memory_pages: int
    resident_pages: int
    order: str
    workload: str
    engine: str
    seed: int
    rounds: int
    source: str | None = None
    log: str | None = None

    def __post_init__(self) -> None:
        if not LEAST_RESIDENT_PAGES <= self.resident_pages <= self.memory_pages:
            raise RangeError(
                f"{self.resident_pages} resident pages: the least is {LEAST_RESIDENT_PAGES}, "
                f"the most all {self.memory_pages} pages of the memory"
            )
        if self.rounds < 0:
            raise RangeError(f"{self.rounds} rounds: the least is 0")
        if self.log is not None and self.source not in ("kvm", None):
            raise RangeError(f"log {self.log}: the {self.source} source has none, only kvm has")
