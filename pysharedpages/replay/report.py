"""What a replay found, as one value: for the JSON output as it is, for the table in `cli`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi.traces import NO_TIME, TraceReader
from pysharedpages.replay.flips import Flipped
from pysharedpages.replay.replay import Replay
from pysharedpages.replay.timeline import Strip

__all__ = ["COLUMNS", "Conversions", "Refused", "Report", "report_of"]

COLUMNS: Final = 60


@dataclass(frozen=True)
class Conversions:
    """Lines of one origin in one direction; `changed` is how many pages they converted."""

    origin: str
    to: str
    lines: int
    pages: int
    changed: int


@dataclass(frozen=True)
class Refused:
    """Lines of one origin whose request the platform refuses."""

    origin: str
    reason: str
    lines: int


@dataclass(frozen=True)
class Report:
    """All that `replay` shows. Pages are of 4 KiB, times in nanoseconds, ranges half-open."""

    lines: int
    malformed: int
    conversions: list[Conversions]
    refused: list[Refused]
    dirty_reports: dict[int, int]
    block_changes: dict[str, int]
    migration_allowed: bool | None
    last_time: int | None
    reached: bool
    shared_pages: int
    range_count: int
    largest_ranges: list[tuple[int, int]]
    timeline: Strip | None
    most_flipped: list[Flipped]
    ranges: NDArray[np.uint64] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold; `ranges` is left out for its size."""
        shown = asdict(self)
        del shown["ranges"]
        shown["timeline"] = self.timeline._asdict() if self.timeline else None
        shown["most_flipped"] = [flipped._asdict() for flipped in self.most_flipped]
        return {"schema": 1} | shown


def report_of(replay: Replay, reader: TraceReader, most: int) -> Report:
    """The report of a replay that is over; lists of ranges hold at most `most`."""
    final = replay.final()
    ranges = final.ranges()
    sizes = (ranges[:, 1] - ranges[:, 0]).astype(np.int64)
    largest = np.sort(np.argsort(-sizes, kind="stable")[:most])
    return Report(
        lines=reader.lines,
        malformed=reader.malformed,
        conversions=[
            Conversions(
                origin.event,
                "shared" if shared else "private",
                tally.lines,
                tally.pages,
                tally.changed,
            )
            for (origin, shared), tally in sorted(replay.tallies.items())
        ],
        refused=[
            Refused(origin.event, reason.name.lower(), lines)
            for (origin, reason), lines in sorted(replay.refused.items())
        ],
        dirty_reports=dict(sorted(replay.dirty.items())),
        block_changes={
            f"{before.name.lower()} to {after.name.lower()}": count
            for (before, after), count in sorted(replay.blocks.items())
        },
        migration_allowed=replay.allowed,
        last_time=None if replay.newest_time == NO_TIME else replay.newest_time,
        reached=replay.reached,
        shared_pages=len(final),
        range_count=len(ranges),
        largest_ranges=[(start, stop) for start, stop in ranges[largest].tolist()],
        timeline=replay.timeline.strip(COLUMNS),
        most_flipped=replay.flips.top(most),
        ranges=ranges,
    )
