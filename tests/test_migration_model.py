# tier: model
"""Migration against a destination that keeps path and content of every page it ever got."""

from __future__ import annotations

import threading
from random import Random

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import seed as seeded
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from migration_world import LAYOUTS, NGFNS, World
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory, PageSet, SharedPages
from pysharedpages.migration import Migration, Round

GFNS = st.integers(0, NGFNS - 1)
COMMITTING = ("loop", "commit")
ABORTING = ("abort", "exception", "drop")


class Machine(RuleBasedStateMachine):
    """Everything that can happen to a migration, in any order."""

    @initialize(slots=st.sampled_from(LAYOUTS), nsources=st.integers(0, 3), complete=st.booleans())
    def start(self, slots: list[tuple[int, int, int]], nsources: int, complete: bool) -> None:
        self.world = World(slots, nsources=nsources, complete=complete and nsources > 0)

    @rule(gfn=GFNS)
    def write(self, gfn: int) -> None:
        if self.world.sources:
            self.world.write(gfn)

    @rule(gfn=GFNS)
    def report(self, gfn: int) -> None:
        self.world.report(gfn)

    @rule(start=GFNS, npages=st.integers(1, 12), shared=st.booleans())
    def convert(self, start: int, npages: int, shared: bool) -> None:
        self.world.convert(start, npages, shared)

    @rule(start=GFNS, npages=st.integers(1, 12))
    def convert_there_and_back(self, start: int, npages: int) -> None:
        self.world.convert(start, npages, True)
        self.world.convert(start, npages, False)

    @rule(slots=st.sampled_from(LAYOUTS), replace_sources=st.booleans())
    def reslot(self, slots: list[tuple[int, int, int]], replace_sources: bool) -> None:
        self.world.reslot(slots, replace_sources)

    @rule()
    def begin(self) -> None:
        assert self.world.begin(self.world.migration.rounds(1))

    @precondition(lambda self: self.world.round is not None)
    @rule(npages=st.integers(1, 40))
    def send(self, npages: int) -> None:
        self.world.send(npages)

    @precondition(lambda self: self.world.round is not None)
    @rule(how=st.sampled_from([*COMMITTING, *ABORTING]))
    def end(self, how: str) -> None:
        self.world.end(how)

    @precondition(lambda self: self.world.round is None)
    @rule()
    def finish(self) -> None:
        self.world.finish()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()
            self.world.close()


def test_every_page_arrives_by_the_path_of_the_list(seed: int) -> None:
    run_state_machine_as_test(seeded(seed)(Machine))


def live(world: World, rng: Random, nsteps: int) -> None:
    """The guest goes on for a while, and now and then its VMM changes the slots."""
    for _ in range(nsteps):
        start, kind = rng.randrange(NGFNS), rng.random()
        if kind < 0.5:
            world.write(start)
        elif kind < 0.9:
            world.convert(start, rng.randint(1, 6), rng.random() < 0.5)
        elif kind < 0.97:
            world.report(start)
        else:
            world.reslot(rng.choice(LAYOUTS), rng.random() < 0.5)


def migrate(seed: str) -> int:
    """One migration over a transport that fails in three rounds of ten; how many failed."""
    rng = Random(seed)
    world = World(rng.choice(LAYOUTS), nsources=rng.randint(1, 3), complete=rng.random() < 0.5)
    failed = 0
    for _ in range(rng.randint(1, 12)):
        live(world, rng, rng.randrange(20))
        world.begin(world.migration.rounds(1))
        for _ in range(rng.randrange(4)):
            world.send(rng.randrange(20))
            live(world, rng, rng.randrange(6))
        fails = rng.random() < 0.3
        failed += fails
        world.end(rng.choice(ABORTING if fails else COMMITTING))
    world.finish()
    world.close()
    return failed


def test_transport_that_fails_in_three_rounds_of_ten_loses_nothing(seed: int, scale: float) -> None:
    migrations = max(40, round(40 * scale))
    failed = [migrate(f"{seed}/{number}") for number in range(migrations)]
    assert sum(failed) > migrations / 2


def gfns_of(round_: Round) -> NDArray[np.uint64]:
    return (PageSet.from_ranges(round_.shared) | PageSet.from_ranges(round_.private)).pages()


@pytest.mark.parametrize("seed_", range(4))
def test_what_threads_add_meanwhile_is_in_one_round_or_the_next(seed: int, seed_: int) -> None:
    """Every page that a thread reports arrives after it was reported, through rounds that fail."""
    npages, nthreads, each = 1 << 16, 4, 300
    rng = Random(f"{seed}/{seed_}")
    pages, log = SharedPages(npages), DirtyLog(GuestMemory([(0, 0, npages)]))
    versions = np.zeros(npages, np.uint64)  # of which a thread has a quarter
    arrived = np.zeros(npages, np.uint64)

    class Nobody:
        complete = True

        def collect(self, log: DirtyLog) -> None:
            """Adds nothing."""

    def report(first: int) -> None:
        own = Random(f"{seed}/{seed_}/{first}")
        for _ in range(each):
            gfns = [own.randrange(first, npages, nthreads) for _ in range(8)]
            if own.random() < 0.3:
                pages.convert(gfns[0], 1, own.random() < 0.5)
            versions[gfns] += 1
            log.add_pages(gfns)

    with Migration(pages, log, [Nobody()], threads=2) as migration:
        threads = [threading.Thread(target=report, args=(first,)) for first in range(nthreads)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for round_ in migration.rounds(1):
                gfns = (
                    PageSet.from_ranges(round_.shared) | PageSet.from_ranges(round_.private)
                ).pages()
                if rng.random() < 0.3:
                    round_.abort()
                else:
                    arrived[gfns] = versions[gfns]
        for round_ in migration.final():
            gfns = (
                PageSet.from_ranges(round_.shared) | PageSet.from_ranges(round_.private)
            ).pages()
            arrived[gfns] = versions[gfns]
        assert np.array_equal(arrived, versions)
        assert migration.snapshot == pages.snapshot()
    assert int(versions.sum()) > 0
    pages.close()
