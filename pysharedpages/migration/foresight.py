"""The part of a migration that looks ahead: samples, and forecasts from them and its rounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from pysharedpages.dirty import Harvest
from pysharedpages.migration.forecast import Forecast, forecast
from pysharedpages.migration.round import RoundRecord
from pysharedpages.migration.sample import Listed, Sample, Sampler

__all__ = ["Foresight"]


class Foresight(ABC):
    """What `Migration` has of its methods from here.

    `collect` takes a harvest as for a round, `pages` is the tracker, `clock` dates both.
    """

    def __init__(
        self, collect: Callable[[], Harvest], pages: Listed, clock: Callable[[], float]
    ) -> None:
        self._sampler = Sampler(collect, pages, clock)

    @property
    @abstractmethod
    def history(self) -> tuple[RoundRecord, ...]:
        """The rounds that arrived, oldest first."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What `sample` measured, oldest first. O(samples), from any thread."""
        return tuple(self._sampler.samples)

    def sample(self) -> AbstractContextManager[None]:
        """Measures what gets dirty while the body runs: `with m.sample(): send(some of a round)`.

        `forecast` needs it to know what rounds shorter than any so far will find. Best is to send
        rounds in parts, the first for about as long as the downtime hoped for, each other for
        twice as long as the one before. Nothing is taken from the next round, or lost; a body that
        fails, or in which a round or another sample begins, adds none. Each costs two collections
        from the sources and a merge, and raises what these raise; ClosedError after `close`. The
        migration's thread alone takes samples.
        """
        return self._sampler.sampling(len(self.history))

    def forecast(
        self, shared_bps: float, private_bps: float, downtime: float, *, parallel: bool = False
    ) -> Forecast:
        """Rounds, seconds and downtime ahead, a verdict and what to do: see `Forecast`.

        `shared_bps` and `private_bps` are in bits per second, `downtime`, the longest that the
        guest may be down, in seconds; `parallel` if both paths send at once, not one after the
        other. It knows of rounds that arrived alone: ask after `commit`, or in `rounds(until=...)`.
        RangeError for what is not finite and above 0. From any thread.
        """
        tracker: Any = self._sampler.pages  # which need not have a page size but for this
        return forecast(
            self.history,
            self.samples,
            now=self._sampler.clock(),
            page_size=tracker.page_size,
            shared_bps=shared_bps,
            private_bps=private_bps,
            downtime=downtime,
            parallel=parallel,
        )
