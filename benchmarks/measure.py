"""Rivals beside ours: what all return is compared first, then they take turns in one run.

The figure of each is the median of its turns; what counts is a ratio of two figures. Ours is timed
as a round of pytest-benchmark whose set-up gives every rival its turn, so that all see the same
machine. Who is out of budget takes no further turns; who is out of it at the first counts that one.
A target that is missed is recorded as missed: nothing here fails for being slow.
"""

from __future__ import annotations

import functools
import mmap
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import FULL

from pysharedpages import kernels

BUDGET: Final = 15.0 if FULL else 1.0
"""Seconds that one contender may take for all its turns, preparations included."""
MOST_TURNS: Final = 31
FEWEST_TURNS: Final = 5
RANGE_BYTES: Final = 16
PAGE_BYTES: Final = 4096
LARGE: Final = 4 << 20
"""Bytes from which NumPy asks for huge pages, and so does a fresh copy."""


@dataclass(frozen=True)
class Rival:
    """A rival's figure, and what is asked of ours: `most` times it, or `least` times better.

    A `limit` is no rival but the same machine's bare cost: ours is a multiple of it.
    """

    name: str
    figure: float
    most: float | None = None
    least: float | None = None
    limit: bool = False
    turns: int = 1

    def beside(self, ours: float) -> dict[str, Any]:
        """The entry in the record; the ratio is ours / it under `most` or a limit, else inverse."""
        multiple = self.limit or self.most is not None
        above, below = (ours, self.figure) if multiple else (self.figure, ours)
        met = None
        if self.most is not None:
            met = above <= self.most * below
        elif self.least is not None:
            met = above >= self.least * below
        return {
            "name": self.name,
            "figure": self.figure,
            "turns": self.turns,
            "ratio": above / below if below else None,
            "multiple": multiple,
            "most": self.most,
            "least": self.least,
            "met": met,
        }


@dataclass(eq=False)
class Contender:
    """One way to do the job.

    A turn is `run(*prepare())`, of which `run` is timed, and does the job `calls` times. With
    `own_clock` it returns (seconds, result) itself, so that a part of it counts. `answer` makes of
    the result what all contenders must agree on; None where the job is another one, such as a pass
    that only reads. `most`, `least` and `limit` are a rival's, see Rival.
    """

    name: str
    run: Callable[..., Any]
    prepare: Callable[[], tuple[Any, ...]] = tuple
    answer: Callable[[Any], Any] | None = None
    calls: int = 1
    own_clock: bool = False
    most: float | None = None
    least: float | None = None
    limit: bool = False
    turns: list[float] = field(default_factory=list)
    cost: float = 0.0

    def ready(self, output: int = 0) -> tuple[Any, ...]:
        """The arguments of a turn that is to write `output` bytes to fresh memory."""
        start = time.perf_counter()
        prepared = self.prepare()
        back(output)
        self.cost += time.perf_counter() - start
        return prepared

    def take_turn(self, *prepared: Any) -> Any:
        """Runs once; notes the seconds of a call; returns the result."""
        start = time.perf_counter()
        result = self.run(*prepared)
        seconds = time.perf_counter() - start
        self.cost += seconds
        if self.own_clock:
            seconds, result = result
        self.turns.append(seconds / self.calls)
        return result

    def first_turn(self, output: int = 0) -> Any:
        """The turn that warms up: it counts only if there is no time for another. Its answer."""
        result = self.take_turn(*self.ready(output))
        if self.limit or 2 * self.cost <= BUDGET:
            self.turns.clear()
        return None if self.answer is None else self.answer(result)

    def has_turn(self) -> bool:
        """Whether it takes part in one more round; a limit always does."""
        return self.limit or not self.turns or self.turns_left() > 0

    def turns_left(self) -> int:
        """How many more turns the budget allows."""
        taken = max(1, len(self.turns))
        return int((BUDGET - self.cost) / (self.cost / taken))

    @property
    def median(self) -> float:
        """The figure that stands for all turns."""
        return statistics.median(self.turns)

    def figure(self) -> Rival:
        """The outcome."""
        return Rival(self.name, self.median, self.most, self.least, self.limit, len(self.turns))


def compare(
    benchmark: BenchmarkFixture,
    what: str,
    ours: Contender,
    rivals: Sequence[Contender] = (),
    most: float | None = None,
    **facts: Any,
) -> None:
    """Measures one row of the table; `most` is the target of ours alone, in seconds.

    Of the facts, `ranges` is how many a turn returns, or works on.
    """
    output = RANGE_BYTES * int(facts.get("ranges", 0))
    agree([ours, *rivals], output)

    def others() -> tuple[tuple[Any, ...], dict[str, Any]]:
        for rival in rivals:
            if rival.has_turn():
                rival.take_turn(*rival.ready(output))
        return ours.ready(output), {}

    rounds = max(FEWEST_TURNS, min(MOST_TURNS, ours.turns_left()))
    in_rounds(benchmark, ours.take_turn, rounds, setup=others)
    figures = [rival.figure() for rival in rivals]
    record(benchmark, what, "s", ours.median, figures, most, turns=len(ours.turns), **facts)


def in_rounds(
    benchmark: BenchmarkFixture, call: Callable[..., Any], rounds: int, **options: Any
) -> Any:
    """Has pytest-benchmark time a call, once a round; returns the result."""
    pedantic: Callable[..., Any] = benchmark.pedantic
    return pedantic(call, rounds=rounds, **options)


def agree(contenders: Sequence[Contender], output: int = 0) -> None:
    """Lets each take its first turn; AssertionError unless all come to the same answer."""
    answers: dict[str, Any] = {}
    for contender in contenders:
        answer = contender.first_turn(output)
        if answer is None:
            continue
        for name, other in answers.items():
            assert same(answer, other), f"{contender.name} does not return what {name} does"
        answers = answers or {contender.name: answer}


def same(one: Any, two: Any) -> bool:
    """Equality of numbers, arrays, sets, and tuples of them."""
    if isinstance(one, tuple) and isinstance(two, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return np.array_equal(one, two)
    return bool(one == two)


def record(
    benchmark: BenchmarkFixture,
    what: str,
    unit: str,
    ours: float,
    rivals: Sequence[Rival] = (),
    most: float | None = None,
    **facts: Any,
) -> None:
    """Notes in the benchmark's extra_info all that the table prints, and where it was run."""
    benchmark.extra_info.update(
        what=what,
        unit=unit,
        ours=ours,
        rivals=[rival.beside(ours) for rival in rivals],
        most=most,
        met=None if most is None else ours <= most,
        cpu=cpu_model(),
        kernels=kernels()["active"],
        profile="full" if FULL else "quick",
        **facts,
    )


@functools.cache
def cpu_model() -> str:
    """The processor by name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def repeated(call: Callable[[], Any], calls: int) -> Callable[[], Any]:
    """A turn that makes a short call many times and returns the last result."""

    def run() -> Any:
        result = None
        for _ in range(calls):
            result = call()
        return result

    return run


def fresh_copy(array: NDArray[Any]) -> NDArray[Any]:
    """A copy in memory that nobody has touched: what output of its size costs at the least.

    A large block from malloc may be one that was freed a turn before, its pages still there.
    """
    if array.nbytes < LARGE:
        return array.copy()
    copy = np.frombuffer(_mapped(array.nbytes), array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy


def back(nbytes: int) -> None:
    """Touches memory and frees it: in a virtual machine the host has then backed what is free.

    A guest that was idle has given free pages back, and a page that the host must find again takes
    ten times longer, whoever it falls to. More is touched, for the kernel picks among free pages.
    """
    if nbytes >= LARGE:
        np.frombuffer(_mapped(4 * nbytes), np.uint8)[::PAGE_BYTES] = 1


def _mapped(nbytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def clocked(
    call: Callable[..., Any], calls: Sequence[tuple[Any, ...]], between: Callable[[], Any]
) -> float:
    """For an own clock: the seconds in `call` alone; what `between` gives is held during it.

    A result is held until the next one is there, and both are dropped outside the clock, which
    itself costs every call the same.
    """
    now = time.perf_counter_ns
    total = 0
    kept: Any = None
    for arguments in calls:
        held = between()
        start = now()
        result = call(*arguments)
        total += now() - start
        kept = result
        del held
    del kept
    return total * 1e-9
