"""Set algebra against pyroaring: every pair of workloads, in both directions.

Two rows an operation: the pair where ours does worst, and the one where it does as the median.
"""

from __future__ import annotations

import functools
import itertools
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import libraries as lib
import pytest
from measure import Contender, agree, in_rounds, record, repeated
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import FULL, GIB, SHARED, Ranges, alternate, shared

from pysharedpages import PageSet

HOSTILE: Final = "hostile" if FULL else "hostile (4 GiB)"
NAMES: Final = [HOSTILE if name == "hostile" else name for name in SHARED]
TURNS: Final = 7
TURN_SECONDS: Final = 1e-3
MOST_CALLS: Final = 1000
OPERATIONS: Final[dict[str, tuple[Callable[..., Any], Callable[..., Any]]]] = {
    "&": (operator.and_, operator.and_),
    "|": (operator.or_, operator.or_),
    "-": (operator.sub, operator.sub),
    "^": (operator.xor, operator.xor),
    "intersection_count": (
        PageSet.intersection_count,
        lambda one, two: one.intersection_cardinality(two),
    ),
}


@dataclass(frozen=True)
class Pair:
    """Two workloads, and both contenders after their turns."""

    names: str
    ours: Contender
    rival: Contender

    @property
    def ratio(self) -> float:
        """How often ours is faster."""
        return self.rival.median / self.ours.median


@pytest.mark.parametrize("symbol", OPERATIONS)
def test_worst(benchmark: BenchmarkFixture, symbol: str) -> None:
    pairs = measured(symbol)
    report(benchmark, f"{symbol}, worst of {len(pairs)} pairs", pairs[0], least=1)


@pytest.mark.parametrize("symbol", OPERATIONS)
def test_median(benchmark: BenchmarkFixture, symbol: str) -> None:
    pairs = measured(symbol)
    middle = pairs[(len(pairs) - 1) // 2]
    report(benchmark, f"{symbol}, median of {len(pairs)} pairs", middle, least=2)


def report(benchmark: BenchmarkFixture, what: str, pair: Pair, least: float) -> None:
    """Records one pair of an operation."""
    pair.rival.least = least
    in_rounds(benchmark, pair.ours.run, TURNS)
    name = f"{what}: {pair.names}"
    record(benchmark, name, "s", pair.ours.median, [pair.rival.figure()])


@functools.cache
def measured(symbol: str) -> tuple[Pair, ...]:
    """Every pair by its ratio, the worst first."""
    pairs = [duel(symbol, one, two) for one, two in itertools.permutations(NAMES, 2)]
    return tuple(sorted(pairs, key=lambda pair: pair.ratio))


def duel(symbol: str, one: str, two: str) -> Pair:
    """Lets ours and pyroaring take turns at one pair."""
    mine, theirs = OPERATIONS[symbol]
    largest = max(int(workload(name).max(initial=0)) for name in (one, two))
    cls: Any = lib.roaring_class(largest)
    ours = contender("pysharedpages", mine, page_set(one), page_set(two))
    rival = contender(f"pyroaring {cls.__name__}", theirs, roaring(one, cls), roaring(two, cls))
    ours.answer = lambda of: lib.roaring_of(of.ranges(), cls) if isinstance(of, PageSet) else of
    rival.answer = lambda of: of
    agree([ours, rival])
    for _ in range(TURNS):
        for each in (rival, ours):
            each.take_turn()
    return Pair(f"{one} {symbol} {two}" if len(symbol) == 1 else f"{one}, {two}", ours, rival)


def contender(name: str, operation: Callable[..., Any], one: Any, two: Any) -> Contender:
    """An operation, repeated until it takes long enough to be timed."""
    start = time.perf_counter()
    operation(one, two)
    once = time.perf_counter() - start
    calls = max(1, min(MOST_CALLS, int(TURN_SECONDS / once)))
    run = repeated(functools.partial(operation, one, two), calls)
    return Contender(name, run, calls=calls)


def workload(name: str) -> Ranges:
    """The ranges of a workload; of `hostile` a slice, in the quick profile."""
    return shared(name) if name in SHARED else alternate(4 * GIB)


@functools.cache
def page_set(name: str) -> PageSet:
    """A workload as a set of ours."""
    return PageSet.from_ranges(workload(name))


@functools.cache
def roaring(name: str, cls: Any) -> lib.Roaring:
    """A workload as a pyroaring bitmap."""
    return lib.roaring_of(workload(name), cls)
