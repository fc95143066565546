"""Roaring files against pyroaring: every workload written and read, in each width it fits.

Two rows for each direction: the workload where ours does worst, and the one where it does as the
median. Both write the same bytes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pyroaring
import pytest
from measure import Contender, agree, in_rounds, record, repeated
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import FULL, GIB, SHARED, alternate, shared

from pysharedpages import PageSet

HOSTILE: Final = "hostile" if FULL else "hostile (4 GiB)"
NAMES: Final = [HOSTILE if name == "hostile" else name for name in SHARED]
TURNS: Final = 15
TURN_SECONDS: Final = 1e-3
MOST_CALLS: Final = 1000
CLASSES: Final[dict[int, Any]] = {32: pyroaring.BitMap, 64: pyroaring.BitMap64}


@dataclass(frozen=True)
class Case:
    """A workload in one width, and both contenders after their turns."""

    name: str
    ours: Contender
    rival: Contender

    @property
    def ratio(self) -> float:
        """How often ours is faster."""
        return self.rival.median / self.ours.median


@pytest.mark.parametrize("direction", ["write", "read"])
def test_worst(benchmark: BenchmarkFixture, direction: str) -> None:
    cases = measured(direction)
    report(benchmark, f"Roaring files, {direction}, worst of {len(cases)}", cases[0], least=1)


@pytest.mark.parametrize("direction", ["write", "read"])
def test_median(benchmark: BenchmarkFixture, direction: str) -> None:
    cases = measured(direction)
    middle = cases[(len(cases) - 1) // 2]
    report(benchmark, f"Roaring files, {direction}, median of {len(cases)}", middle, least=2)


def report(benchmark: BenchmarkFixture, what: str, case: Case, least: float) -> None:
    """Records one workload of a direction."""
    case.rival.least = least
    in_rounds(benchmark, case.ours.run, TURNS)
    record(benchmark, f"{what}: {case.name}", "s", case.ours.median, [case.rival.figure()])


@functools.cache
def measured(direction: str) -> tuple[Case, ...]:
    """Every workload in every width by its ratio, the worst first."""
    cases = [
        duel(direction, name, bits)
        for name in NAMES
        for bits in CLASSES
        if bits == 64 or fits(page_set(name))
    ]
    return tuple(sorted(cases, key=lambda case: case.ratio))


def duel(direction: str, name: str, bits: int) -> Case:
    """Lets ours and pyroaring take turns at one workload."""
    pages, cls = page_set(name), CLASSES[bits]
    data = pages.to_roaring(bits)
    theirs = cls.deserialize(data)
    if direction == "write":
        ours = contender("pysharedpages", functools.partial(pages.to_roaring, bits))
        rival = contender(f"pyroaring {cls.__name__}", functools.partial(theirs.serialize))
        ours.answer = rival.answer = lambda data: data
    else:
        ours = contender("pysharedpages", functools.partial(PageSet.from_roaring, data))
        rival = contender(f"pyroaring {cls.__name__}", functools.partial(cls.deserialize, data))
        ours.answer = lambda pages: pages.to_roaring(bits)
        rival.answer = lambda bitmap: bitmap.serialize()
    agree([ours, rival])
    for _ in range(TURNS):
        for each in (rival, ours):
            each.take_turn()
    return Case(f"{name}, {bits} bits", ours, rival)


def contender(name: str, call: Callable[[], Any]) -> Contender:
    """A call, repeated until it takes long enough to be timed."""
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    calls = max(1, min(MOST_CALLS, int(TURN_SECONDS / once)))
    return Contender(name, repeated(call, calls), calls=calls)


def fits(pages: PageSet) -> bool:
    """Whether 32 bits are enough."""
    return not pages or pages.max() < 1 << 32


@functools.cache
def page_set(name: str) -> PageSet:
    """A workload; of `hostile` a slice, in the quick profile."""
    return PageSet.from_ranges(shared(name) if name in SHARED else alternate(4 * GIB))
