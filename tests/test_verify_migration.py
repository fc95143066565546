# tier: model
"""The real Migration under the check: clean when right, whatever fails on the way; and mutants."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from verify_model import PRIVATE, SHARED, Guest

from pysharedpages import DirtyLog, GuestMemory, Harvest, PageSet, SharedPages, Snapshot, Transfer
from pysharedpages.migration import Migration, Round, StillDirtyError
from pysharedpages.verify import Journal, Report, verify

MEMORY = GuestMemory([(0, 0, 40), (1, 64, 24)])
RAM = set(MEMORY.pages())
MMIO = set(range(44, 60))


class TransportError(Exception):
    """Some of a round may not have arrived."""


class World:
    """A guest, its tracker and its dirty source; the guest runs whenever one of them is asked."""

    complete = False
    migration_allowed = None

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.guest = Guest(RAM, MMIO)
        self.tracker = SharedPages()
        self.by_events = Journal(shared=())
        self.by_snapshots = Journal()
        self.is_running = True
        self.seen: list[Round] = []

    def run(self, most: int) -> None:
        for _ in range(self.rng.randrange(most) if self.is_running else 0):
            do, page = self.guest.pick(self.rng)
            if do == "write":
                self.guest.write(page)
                continue
            event = self.guest.convert(page)
            self.by_events.converted([event])
            self.tracker.convert(*event)
            if self.rng.random() < 0.7 and page in RAM:
                self.guest.write(page)

    def snapshot(self) -> Snapshot:
        """As a tracker: the guest goes on up to the instant of the list."""
        self.run(4)
        return self.tracker.snapshot()

    def collect(self, log: DirtyLog) -> None:
        """As a source: the guest goes on after it was harvested."""
        log.add_pages(sorted(self.guest.harvest()))
        self.run(4)

    def send(self, round_: Round, fails: bool = False) -> None:
        work = [
            (page, path)
            for path, table in ((SHARED, round_.shared), (PRIVATE, round_.private))
            for page in PageSet.from_ranges(table)
        ]
        self.rng.shuffle(work)
        self.seen.append(round_)
        last = self.rng.randrange(len(work) + 1) if fails else len(work)
        for page, path in work[:last]:
            self.guest.send(page, path)
            if self.rng.random() < 0.1:
                self.run(3)
        if fails:
            raise TransportError

    def report(self, journal: Journal, destination: Snapshot) -> Report:
        nonzero = [page for page, content in self.guest.content.items() if content]
        is_by_events = journal is self.by_events
        return verify(
            journal,
            [(page, page + 1) for page in self.guest.shared]
            if is_by_events
            else self.tracker.snapshot(),
            memory=MEMORY,
            nonzero=PageSet.from_pages(sorted(nonzero)),
            destination=destination,
        )


def migrated(
    world: World, make: Callable[..., Migration] = Migration, *, fails: float = 0.3
) -> Migration:
    """A whole migration, each round of which may fail, be left, or be ended by hand."""
    rng = world.rng
    world.run(60)
    migration = make(world, DirtyLog(MEMORY), [world])

    def follow(rounds: Any) -> Any:
        # Two journals of one migration: the inner loop records before, and ends after, the outer.
        return world.by_snapshots.follow(world.by_events.follow(rounds))

    for _ in range(rng.randrange(1, 4)):
        try:
            for round_ in follow(migration.rounds(rng.randrange(1, 5))):
                world.send(round_, rng.random() < fails)
                end = rng.random()
                if end < fails / 4:
                    round_.abort()
                elif end < fails / 2:
                    round_.commit()
                    break
                elif end < fails:
                    break
        except TransportError:
            world.run(5)
    world.run(10)
    world.is_running = False
    while True:
        try:
            for round_ in follow(migration.final()):
                world.send(round_, rng.random() < fails)
            return migration
        except TransportError:
            pass
        except StillDirtyError as error:
            raise AssertionError("a stopped guest dirties nothing") from error


def test_a_right_migration_is_clean_whatever_fails(seed: int, scale: float) -> None:
    failed, mmio = 0, 0
    for number in range(max(5, round(40 * scale))):
        world = World(Random(f"{seed} {number}"))
        migration = migrated(world)
        assert not world.guest.corrupt()
        for journal in (world.by_events, world.by_snapshots):
            report = world.report(journal, migration.snapshot)
            assert report.is_clean, f"{number}: {report}"
            outcomes = [round_.is_committed for round_ in world.seen]
            assert (report.passes, report.failed_passes) == (len(outcomes), outcomes.count(False))
        failed += world.by_events.failed_passes
        mmio += len(world.guest.shared & MMIO)
    assert failed and mmio


class WithoutR4(Migration):
    """Does not send again what was only converted."""

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        return snapshot.merge(harvest)


class WithoutMemory(Migration):
    """Sends converted MMIO too."""

    def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
        everything = GuestMemory([(0, 0, 1 << 20)])
        return snapshot.merge(harvest, since=self.snapshot, memory=everything)


@pytest.mark.parametrize(
    ("make", "name"), [(WithoutR4, "stale"), (WithoutMemory, "outside")], ids=["R4", "MMIO"]
)
def test_a_mutant_is_found(make: type[Migration], name: str, seed: int, scale: float) -> None:
    caught = 0
    for number in range(max(5, round(20 * scale))):
        world = World(Random(f"{seed} {number} {name}"))
        migration = migrated(world, make, fails=0.0)
        report = world.report(world.by_events, migration.snapshot)
        assert world.guest.corrupt() <= set(report.pages)
        caught += bool(getattr(report, name))
    assert caught
