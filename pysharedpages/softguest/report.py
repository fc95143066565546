"""What a migration did, and whether the guest arrived."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from pysharedpages.softguest.comparison import Comparison
from pysharedpages.softguest.rounds import Row
from pysharedpages.softguest.scenario import Scenario

__all__ = ["RESERVED_PAGES", "Report", "Resumption", "SilentObserver"]

RESERVED_PAGES: Final = 64
"""Written before the migration, shared and written once in its first round, left alone after."""


@dataclass(frozen=True)
class Resumption:
    """What the guest did on the destination, and its memory there after that."""

    steps: int
    comparison: Comparison


@dataclass(frozen=True)
class Report:
    """What a migration did, and whether the guest arrived.

    `verdict` is "intact", "corrupt" (a page or the list of shared pages differs) or "unproven"
    (nothing was compared, or nothing was converted while rounds ran: no evidence either way).
    """

    scenario: Scenario
    source: str
    source_reason: str
    rounds: list[Row]
    comparison: Comparison
    log: str | None = None
    resumption: Resumption | None = None

    @property
    def verdict(self) -> str:
        resumed = self.resumption is None or self.resumption.comparison.is_equal
        if not self.comparison.is_equal or not resumed:
            return "corrupt"
        if not self.comparison.pages_compared or not self.converted_meanwhile:
            return "unproven"
        return "intact"

    @property
    def converted_meanwhile(self) -> int:
        """How many pages the vCPUs converted while rounds ran, the final one not counted.

        The reserved pages prove no vCPU alive: they are converted because the round is under way.
        """
        converted = sum(row.converted for row in self.rounds if not row.final)
        return max(0, converted - RESERVED_PAGES)

    def as_dict(self) -> dict[str, object]:
        """The report in plain types, for JSON."""
        scenario = self.scenario
        return {
            "schema": "pysharedpages.migrate/1",
            "source": self.source,
            "source_reason": self.source_reason,
            "log": self.log,
            "order": scenario.order,
            "workload": scenario.workload,
            "engine": scenario.engine,
            "seed": scenario.seed,
            "memory_pages": scenario.memory_pages,
            "resident_pages": scenario.resident_pages,
            "rounds": [asdict(row) for row in self.rounds],
            "pages_compared": self.comparison.pages_compared,
            "differing_pages": len(self.comparison.differing),
            "first_differing_gfns": self.comparison.differing[:8],
            "list_equal": self.comparison.list_equal,
            "resumed": _resumed(self.resumption),
            "verdict": self.verdict,
        }


def _resumed(resumption: Resumption | None) -> dict[str, object] | None:
    if resumption is None:
        return None
    comparison = resumption.comparison
    return {
        "steps": resumption.steps,
        "differing_pages": len(comparison.differing),
        "list_equal": comparison.list_equal,
    }


class SilentObserver:
    """Is told how far a migration has come, and keeps it."""

    def phase(self, name: str, npages: int) -> None:
        """See `rounds.Observer`."""

    def advance(self, npages: int) -> None:
        """See `rounds.Observer`."""
