"""The programs of the guest's vCPUs: a workload's steps, unrolled into steps of a `MicroVM`.

Two vCPUs work, each on its own half of the pages. They boot, stay at a breakpoint until the
migration begins, and then go through their steps over and over. A third keeps the reserve: pages
that it converts and writes at one exact instant, when it is let pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Final

from pysharedpages.kvmguest.ledger import Ledger
from pysharedpages.softguest.report import RESERVED_PAGES
from pysharedpages.softguest.scenario import Scenario
from pysharedpages.softguest.workload import WORKLOADS, Workload
from pysharedpages.testing.steps import STAMP_WORDS, Breakpoint, Checkpoint, Loop, Step, Wait

__all__ = ["RESERVE_VCPU", "WORKERS", "WRITE_PAGES", "programs"]

WORKERS: Final = 2
RESERVE_VCPU: Final = WORKERS
WRITE_PAGES: Final = 7
"""Pages that a vCPU writes before it leaves the guest, and between two checkpoints while it boots.

A full dirty ring is noticed when its vCPU leaves the guest. It has room for 64 entries more, and
where guests are emulated every store takes one: of a page its words, and its entry in the ledger.
"""
assert WRITE_PAGES * (STAMP_WORDS + 1) < 64

# Steps before a vCPU begins anew: more than a long migration takes. A rest after every few, as in
# softguest: a guest that writes faster than its pages travel never converges.
_STEPS: Final = 8192
_BURST_STEPS: Final = 16
_REST_MICROSECONDS: Final = 4000


def programs(scenario: Scenario, ledger: Ledger) -> list[tuple[Step, ...]]:
    """One program a vCPU, the reserve's last."""
    ordinary = range(scenario.resident_pages - RESERVED_PAGES)
    share = -(-len(ordinary) // WORKERS)
    workload = WORKLOADS[scenario.workload]
    workers = [
        tuple(
            _worker(
                ledger,
                workload,
                ordinary[number * share :][:share],
                Random(f"{scenario.seed}/vcpu{number}"),
            )
        )
        for number in range(WORKERS)
    ]
    reserve = range(len(ordinary), scenario.resident_pages)
    return [*workers, tuple(_reserve(ledger, reserve))]


def _worker(ledger: Ledger, workload: Workload, owned: range, rng: Random) -> Iterator[Step]:
    for first in range(0, len(owned), WRITE_PAGES):
        yield from _fill(ledger, owned[first : first + WRITE_PAGES])
        yield Checkpoint()
    for run in workload.shared_at_boot(owned, rng):
        yield from ledger.retype(run, True)
        yield from _fill(ledger, run)
    yield Breakpoint(0)
    yield Loop(tuple(_life(ledger, workload, owned, rng)))


def _fill(ledger: Ledger, indices: range) -> Iterator[Step]:
    """Write pages, and leave the guest in time."""
    for first in range(0, len(indices), WRITE_PAGES):
        for step in ledger.stamp(indices[first : first + WRITE_PAGES]):
            yield step
            yield Wait(0)


def _life(ledger: Ledger, workload: Workload, owned: range, rng: Random) -> Iterator[Step]:
    for number, step in enumerate(islice(workload.steps(owned, rng), _STEPS), 1):
        run = range(step.start, step.stop)
        for shared in step.types:
            yield from ledger.retype(run, shared)
        yield from _fill(ledger, run)
        yield Checkpoint()
        if number % _BURST_STEPS == 0:
            yield Wait(_REST_MICROSECONDS)


def _reserve(ledger: Ledger, reserve: range) -> Iterator[Step]:
    yield ledger.convert_itself()
    yield from _fill(ledger, reserve)
    yield Breakpoint(0)
    yield from ledger.retype(reserve, True)
    yield from _fill(ledger, reserve)
