"""Guests without a story: every short program, and long ones by chance."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Final

from pysharedpages.races.scenario import Kind, Log, Scenario, Step

__all__ = ["every_program", "random_programs"]

_KINDS: Final = (Kind.WRITE, Kind.SET_SHARED, Kind.SET_PRIVATE)


def every_program(most: int, *, rounds: int = 2) -> Iterator[Scenario]:
    """Every guest of one vCPU and one page that takes 1 to `most` steps; it keeps R1 and R3.

    There are 3 + 9 + ... + 3^most.
    """
    for count in range(1, most + 1):
        for kinds in product(_KINDS, repeat=count):
            program = tuple(Step(kind, 0) for kind in kinds)
            yield Scenario(" ".join(kinds), "", (program,), rounds=rounds)


def random_programs(seed: int, *, shortest: int = 6, longest: int = 12) -> Iterator[Scenario]:
    """Guests of one or two vCPUs and pages, which keep R1 and R3, without end.

    `shortest` and `longest` bound the steps of all vCPUs together. Pages may be shared at first,
    and writes reach the harvest in any way there is. Where one vCPU leaves few enough states there
    may be two rounds, and the transport may fail once.
    """
    rng = Random(seed)
    while True:
        npages, nvcpus = rng.randint(1, 2), 1 + (rng.random() < 0.25)
        programs: list[list[Step]] = [[] for _ in range(nvcpus)]
        for _ in range(rng.randint(shortest, longest)):
            rng.choice(programs).append(Step(rng.choice(_KINDS), rng.randrange(npages)))
        yield Scenario(
            "; ".join(", ".join(map(str, program)) for program in programs),
            "",
            tuple(map(tuple, programs)),
            npages=npages,
            shared=frozenset(page for page in range(npages) if rng.random() < 0.5),
            rounds=1 if nvcpus > 1 else rng.randint(1, 2),
            failures=int(nvcpus == 1 and rng.random() < 0.25),
            log=rng.choice(list(Log)),
        )
