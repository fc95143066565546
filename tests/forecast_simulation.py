"""Simulated guests under a real Migration: writes and conversions go on while a round travels.

A `World` has a clock of its own, real SharedPages, DirtyLog and Migration, and a guest made of
behaviours. Sending a round moves the clock by what its pages take on the two paths, and the guest
runs for that long. Random writes are a Poisson process: as many draws as there are writes, or where
these are more than the pages, one draw a page, of whether it was written at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory, SharedPages
from pysharedpages.migration import Forecast, Migration, Round

Bools = NDArray[np.bool_]


class Behaviour(Protocol):
    """What one part of a guest does to its memory."""

    def run(self, guest: Guest, start: float, stop: float) -> None:
        """Does what is due from `start` to `stop`, in seconds since the guest's boot."""


class Guest:
    """Memory that is written and converted: the source of dirty pages of its migration."""

    complete = False

    def __init__(self, npages: int, behaviours: Iterable[Behaviour], seed: int) -> None:
        self.npages = npages
        self.pages = SharedPages(npages)
        self.dirty: Bools = np.zeros(npages, dtype=bool)
        self.rng = np.random.default_rng(seed)
        self.now = 0.0
        self._behaviours = tuple(behaviours)

    def run(self, seconds: float) -> None:
        """Lets the guest's vCPUs run."""
        for behaviour in self._behaviours:
            behaviour.run(self, self.now, self.now + seconds)
        self.now += seconds

    def collect(self, log: DirtyLog) -> None:
        """Reports what was written since the last call."""
        log.add_pages(np.flatnonzero(self.dirty).astype(np.uint64))
        self.dirty[:] = False


@dataclass
class Random:
    """Writes to random pages of an area; `skew` is Zipf's exponent, 0 for all alike."""

    first: int
    npages: int
    rate: float
    skew: float = 0.0
    _until: NDArray[np.float64] | None = field(default=None, repr=False)

    def run(self, guest: Guest, start: float, stop: float) -> None:
        if self._until is None:
            weights = np.arange(1, self.npages + 1, dtype=float) ** -self.skew
            self._until = np.cumsum(guest.rng.permutation(weights / weights.sum()))
        writes = self.rate * (stop - start)
        if writes < self.npages:
            drawn = np.searchsorted(self._until, guest.rng.random(guest.rng.poisson(writes)))
            guest.dirty[self.first + np.minimum(drawn, self.npages - 1)] = True
        else:
            never = np.exp(-writes * np.diff(self._until, prepend=0.0))
            hit = guest.rng.random(self.npages) >= never
            guest.dirty[self.first : self.first + self.npages] |= hit


@dataclass
class Stream:
    """Writes an area from end to end, over and over, `rate` pages a second."""

    first: int
    npages: int
    rate: float

    def run(self, guest: Guest, start: float, stop: float) -> None:
        begin, end = int(start * self.rate), int(stop * self.rate)
        if end - begin >= self.npages:
            guest.dirty[self.first : self.first + self.npages] = True
        else:
            guest.dirty[self.first + np.arange(begin, end) % self.npages] = True


@dataclass
class Conversions:
    """Bursts of `size` pages, `rate` a second at random: each flips, `written` are written too."""

    first: int
    npages: int
    size: int
    rate: float
    written: bool = True

    def run(self, guest: Guest, start: float, stop: float) -> None:
        for _ in range(guest.rng.poisson(self.rate * (stop - start))):
            begin = self.first + int(guest.rng.integers(0, self.npages // self.size)) * self.size
            shared = begin in guest.pages
            guest.pages.convert(begin, self.size, not shared)
            if self.written:
                guest.dirty[begin : begin + self.size] = True


@dataclass
class Phases:
    """A behaviour that runs for `busy` seconds of each `period`."""

    behaviour: Behaviour
    period: float
    busy: float

    def run(self, guest: Guest, start: float, stop: float) -> None:
        first, last = int(start / self.period), int(stop / self.period)
        for number in range(first, last + 1):
            begin = number * self.period
            lo, hi = max(start, begin), min(stop, begin + self.busy)
            if lo < hi:
                self.behaviour.run(guest, lo, hi)


@dataclass
class Between:
    """A behaviour that runs from `begin` to `end`, in seconds since the guest's boot."""

    behaviour: Behaviour
    begin: float
    end: float

    def run(self, guest: Guest, start: float, stop: float) -> None:
        lo, hi = max(start, self.begin), min(stop, self.end)
        if lo < hi:
            self.behaviour.run(guest, lo, hi)


@dataclass(frozen=True)
class Scenario:
    """A guest and its two paths; `jitter` is the spread of a round's bandwidth around the mean."""

    name: str
    npages: int
    shared: tuple[tuple[int, int], ...]
    behaviours: Callable[[], Iterable[Behaviour]]
    shared_bps: float
    private_bps: float
    downtime: float
    seed: int = 1
    parallel: bool = False
    jitter: float = 0.02
    gap: float = 0.002


class World:
    """One scenario under way: with samples or its rounds alone, the vCPUs at full speed or less."""

    def __init__(self, scenario: Scenario, *, sampled: bool = True, speed: float = 1.0) -> None:
        self.scenario = scenario
        self.sampled = sampled
        self.speed = speed
        self.now = 0.0
        self.guest = Guest(scenario.npages, scenario.behaviours(), scenario.seed)
        self.guest.pages.set_list(np.array(scenario.shared, dtype=np.uint64).reshape(-1, 2))
        self.link = np.random.default_rng(scenario.seed + 1)
        memory = GuestMemory([(0, 0, scenario.npages)])
        log = DirtyLog(memory)
        self.migration = Migration(self.guest.pages, log, [self.guest], clock=lambda: self.now)

    def _seconds(self, round_: Round) -> float:
        scenario = self.scenario
        bits = self.guest.pages.page_size * 8
        shared = round_.transfer.shared_pages * bits / scenario.shared_bps
        private = round_.transfer.private_pages * bits / scenario.private_bps
        both = max(shared, private) if scenario.parallel else shared + private
        return both * float(np.exp(self.link.normal(0.0, scenario.jitter)))

    def _pass(self, seconds: float) -> float:
        self.guest.run(seconds * self.speed)
        self.now += seconds
        return seconds

    def _parts(self, seconds: float) -> Iterator[float]:
        """A round that takes so long in parts: of the downtime hoped for, then twice as long."""
        part = self.scenario.downtime
        while self.sampled and part <= seconds:
            yield part
            seconds -= part
            part *= 2

    def go_on(self, rounds: int) -> None:
        """That many live rounds."""
        for round_ in self.migration.rounds(rounds):
            left = self._seconds(round_)
            for span in self._parts(left):
                with self.migration.sample():
                    left -= self._pass(span)
            self._pass(left)
            round_.commit()
            self._pass(self.scenario.gap)

    def forecast(self) -> Forecast:
        """What the migration says now; the scenario's bandwidths are all that it is told."""
        scenario = self.scenario
        return self.migration.forecast(
            scenario.shared_bps, scenario.private_bps, scenario.downtime, parallel=scenario.parallel
        )

    def stop(self) -> float:
        """Stops the guest and sends the rest: the downtime in seconds."""
        begin = self.now
        for round_ in self.migration.final():
            self.now += self._seconds(round_)
        return self.now - begin
