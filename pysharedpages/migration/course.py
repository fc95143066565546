"""The course of live rounds: what gets dirty in one is what the next must send.

A round that harvests an interval x after the one before sends D(x), which takes T(x), and the next
has the interval T(x) and the gap that rounds leave between them. D is concave (`curve`), so the
intervals run to one fixed point, from either side. A limit below the present downtime is therefore
reached if and only if what gets dirty in the limit and a gap can be sent within the limit. That
tells converging from stalled; solved for the guest's speed or a bandwidth it is the advice.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from pysharedpages.migration.curve import DirtyCurve, Observation
from pysharedpages.migration.round import RoundRecord
from pysharedpages.migration.sample import Sample

__all__ = ["Course", "Paths", "course_of"]

_MOST_ROUNDS: Final = 1000
_HALVINGS: Final = 50
_PROGRESS: Final = 0.95
"""A round that is not even this much shorter than the one before has got nowhere."""
_SEEN: Final = 0.7
"""Intervals that differ by this factor at most are about the same."""
_SLOWEST: Final = 0.01
"""The share of their time that the most throttled vCPUs still have."""
_TICK: Final = 1e-9
"""Seconds: what took less did not move the clock."""
_ROUNDS: Final = 16
_SAMPLES: Final = 48
"""The newest of each are fitted to; their weight halves with each round anyway."""


@dataclass(frozen=True)
class Paths:
    """What carries the pages: bits per second of each path, at once or one after the other."""

    shared_bps: float
    private_bps: float
    page_bits: int
    parallel: bool

    def seconds(self, shared_pages: float, private_pages: float) -> float:
        """How long that many pages take."""
        shared = shared_pages * self.page_bits / self.shared_bps
        private = private_pages * self.page_bits / self.private_bps
        return max(shared, private) if self.parallel else shared + private


@dataclass(frozen=True)
class Course:
    """Live rounds to come: curves, paths, the gap between rounds, which intervals were observed."""

    shared: DirtyCurve
    private: DirtyCurve
    paths: Paths
    gap: float
    shortest: float
    longest: float

    def downtime(self, interval: float) -> float:
        """Seconds to send what gets dirty in an interval."""
        return self.paths.seconds(self.shared(interval), self.private(interval))

    def until(self, limit: float, interval: float) -> tuple[int, float, float] | None:
        """(live rounds until the downtime is within the limit, their seconds, the last interval).

        None if that is never, or not within 1,000 rounds.
        """
        spent = 0.0
        for rounds in range(_MOST_ROUNDS):
            downtime = self.downtime(interval)
            if downtime <= limit:
                return rounds, spent, interval
            if not self._reaches(limit):
                break
            interval = downtime + self.gap
            spent += interval
        return None

    def fixed(self) -> float:
        """The interval that the course runs to, from wherever it is."""
        low, high = 0.0, self.paths.seconds(self.shared.most, self.private.most) + self.gap
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            grows = self.downtime(middle) + self.gap > middle
            low, high = (middle, high) if grows else (low, middle)
        return high

    def covers(self, interval: float) -> bool:
        """Whether intervals about as short, and as long, were observed."""
        return self.shortest * _SEEN <= interval <= self.longest / _SEEN

    def stalls(self, limit: float) -> bool:
        """Whether it is known, not guessed, that the limit is not reached from above.

        Where the shortest interval observed leads to one as long, so do shorter ones.
        """
        if self.shortest * _SEEN <= limit + self.gap:
            return self.covers(limit + self.gap)
        return self.downtime(self.shortest) + self.gap >= self.shortest * _PROGRESS

    def throttle(self, limit: float) -> float | None:
        """The least share of time to take from the vCPUs for the limit to be reached, or None.

        A guest that runs for a part of an interval dirties what it would in a shorter one.
        """
        if self._reaches(limit):
            return 0.0
        low, high = _SLOWEST, 1.0
        if not self._reaches(limit, low):
            return None
        while high - low > 1e-3:
            middle = (low + high) / 2
            low, high = (middle, high) if self._reaches(limit, middle) else (low, middle)
        return 1.0 - low

    def shared_bps_needed(self, limit: float) -> float | None:
        """The least bandwidth of the shared path for the limit, or None."""
        return self._needed(limit, self.shared, self.private, self.paths.private_bps)

    def private_bps_needed(self, limit: float) -> float | None:
        """The least bandwidth of the private path for the limit, or None."""
        return self._needed(limit, self.private, self.shared, self.paths.shared_bps)

    def _needed(
        self, limit: float, curve: DirtyCurve, other: DirtyCurve, other_bps: float
    ) -> float | None:
        interval, bits = limit + self.gap, self.paths.page_bits
        taken = other(interval) * bits / other_bps
        if taken >= limit:
            return None
        return curve(interval) * bits / (limit if self.paths.parallel else limit - taken)

    def _reaches(self, limit: float, run: float = 1.0) -> bool:
        return self.downtime((limit + self.gap) * run) < limit


class _Seen(NamedTuple):
    """What one round or sample found, `order` rounds after the first."""

    order: int
    seconds: float
    shared: int
    private: int


def course_of(
    history: Sequence[RoundRecord], samples: Sequence[Sample], paths: Paths
) -> Course | None:
    """The course that rounds and samples let expect, or None if they tell of no interval."""
    pairs = list(pairwise(history))
    seen = [
        _Seen(order, each.harvested - before.harvested, each.shared_pages, each.private_pages)
        for order, (before, each) in list(enumerate(pairs, 1))[-_ROUNDS:]
        if not each.is_final
    ]
    seen += [
        _Seen(each.after, each.seconds, each.shared_pages, each.private_pages)
        for each in samples[-_SAMPLES:]
    ]
    seen = [each for each in seen if each.seconds >= _TICK]
    if not history or not seen:
        return None
    gaps = [
        max(each.harvested - before.committed, 0.0)
        for before, each in pairs
        if each.number == before.number + 1
    ]
    newest = len(history) - 1
    ages = [max(newest - each.order, 0) for each in seen]
    seconds = [each.seconds for each in seen]
    shared, private = [each.shared for each in seen], [each.private for each in seen]
    # A path never had more pages than in the first round, which sends all of them.
    most_shared = max(shared + [each.shared_pages for each in history])
    most_private = max(private + [each.private_pages for each in history])
    return Course(
        DirtyCurve(list(map(Observation, seconds, shared, ages)), most_shared),
        DirtyCurve(list(map(Observation, seconds, private, ages)), most_private),
        paths,
        statistics.median(gaps[-5:]) if gaps else 0.0,
        min(seconds),
        max(seconds),
    )
