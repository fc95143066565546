# tier: failure
"""A migration that fails or is interrupted at any of its steps, and goes on: no page is lost.

The interrupt comes at every line of the package's own code that a migration runs through, in turn
(every fifth, until SP_TEST_SCALE is 5), as a signal's handler may raise it. Its traceback is kept,
as `except` keeps it, while the migration goes on. The destination refuses a page that comes on
another path than before, unless the round said so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any

import pytest

from pysharedpages import (
    DirtyLog,
    GuestMemory,
    PageSet,
    RangeError,
    SharedPages,
    Snapshot,
    SnapshotLimitError,
)
from pysharedpages._core import Transfer
from pysharedpages.dirty import Harvest
from pysharedpages.migration import Migration, MigrationForbiddenError, Round

SMALL, LARGE = [(0, 0, 16)], [(0, 0, 16), (1, 32, 8)]
# Within `with lock` a line begins twice, the second time where no signal is handled.
TRACED = {"pysharedpages/migration/": ("call", "line"), "pysharedpages/dirty.py": ("call",)}


class Destination:
    """Keeps what arrives, and by which path."""

    def __init__(self) -> None:
        self.pages: dict[int, tuple[str, int]] = {}

    def cancel(self, gfns: PageSet) -> None:
        for gfn in gfns:
            self.pages.pop(gfn, None)

    def store(self, gfn: int, path: str, content: int) -> None:
        assert self.pages.get(gfn, (path, 0))[0] == path, f"gfn {gfn} was not said to be rerouted"
        self.pages[gfn] = (path, content)


class Guest:
    """Pages with content, a source of its writes, and its migration. It is written in the open."""

    def __init__(self, complete: bool, kind: type[Migration] = Migration) -> None:
        self.complete = complete
        self.pages = SharedPages(64)
        self.log = DirtyLog(GuestMemory(SMALL))
        self.content: dict[int, int] = {}
        self.dirty: list[int] = []
        self.versions = count(1)
        self.there = Destination()
        self.fail: Callable[[], object] = bool
        for gfn in range(16):
            self.write(gfn)
        self.migration = kind(self.pages, self.log, [self])

    def write(self, *gfns: int) -> None:
        for gfn in gfns:
            self.content[gfn] = next(self.versions)
            self.dirty.append(gfn)

    def convert(self, gfn: int, shared: bool) -> None:
        """What was there is gone, and no source tells."""
        self.pages.convert(gfn, 1, shared)
        self.content[gfn] = next(self.versions)

    def collect(self, log: DirtyLog) -> None:
        self.fail()
        log.add_pages(self.dirty)
        self.dirty.clear()

    def set_memory(self, memory: GuestMemory) -> None:
        ram = memory.pages()
        self.dirty = [gfn for gfn in self.dirty if gfn in ram]

    def plug(self) -> None:
        for gfn in range(32, 40):
            self.content[gfn] = next(self.versions)
        self.migration.set_memory(GuestMemory(LARGE))

    def unplug(self) -> None:
        self.migration.set_memory(GuestMemory(SMALL))
        for table in (self.content, self.there.pages):
            for gfn in range(32, 40):
                table.pop(gfn, None)

    def send(self, round_: Round, npages: int = 64) -> None:
        self.there.cancel(round_.rerouted)
        pages = [(gfn, "shared") for gfn in PageSet.from_ranges(round_.shared)]
        pages += [(gfn, "private") for gfn in PageSet.from_ranges(round_.private)]
        for gfn, path in pages[:npages]:
            self.there.store(gfn, path, self.content[gfn])

    def steps(self) -> Iterator[Callable[[], object]]:
        """A migration, step by step; each may be made again if it failed."""

        def round_fails() -> None:
            for round_ in self.migration.rounds(1):
                self.send(round_, 5)
                round_.abort()

        def round_arrives() -> None:
            for round_ in self.migration.rounds(1, until=lambda _: True):
                self.send(round_)

        def round_is_left() -> None:
            for round_ in self.migration.rounds():
                self.send(round_, 3)
                break

        def round_is_committed() -> None:
            for round_ in self.migration.rounds():
                self.send(round_)
                self.write(4)
                self.plug()
                round_.commit()
                break

        def arrives_at_last() -> None:
            for round_ in self.migration.final():
                self.send(round_)

        yield round_fails
        self.convert(1, True)
        self.write(2)
        yield round_arrives
        self.convert(1, False)
        self.convert(3, True)
        yield round_is_left
        self.convert(3, False)
        self.convert(5, True)
        yield round_is_committed
        self.convert(33, True)
        yield round_arrives
        self.convert(33, False)
        yield self.unplug
        self.convert(5, False)
        self.write(6)
        yield arrives_at_last

    def check(self) -> None:
        """Every page is there, nothing is owed, and nothing is held for longer than needed."""
        assert self.migration.is_finished
        shared = set(self.migration.snapshot)
        assert shared == set(self.pages.snapshot())
        assert self.there.pages == {
            gfn: ("shared" if gfn in shared else "private", content)
            for gfn, content in self.content.items()
        }
        with self.log.take() as harvest:
            assert len(harvest) == 0
        self.migration.close()
        assert self.pages.stats()["versions"] == 1
        self.pages.close()


class InterruptError(Exception):
    """Comes from nowhere, as KeyboardInterrupt does."""


class Tracer:
    """Raises at the `at`th line of the package that is run."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> Tracer | None:
        name = frame.f_code.co_filename
        events = next((events for part, events in TRACED.items() if part in name), None)
        if events is None:
            return None
        if event in events:
            self.left -= 1
            if self.left == 0:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise InterruptError(self.where)
        return self

    def run(self, call: Callable[[], object]) -> InterruptError | None:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            call()
        except InterruptError as error:
            return error
        finally:
            sys.settrace(before)
        return None


@pytest.mark.parametrize("complete", [False, True])
def test_interrupt_at_any_line_loses_no_page(
    complete: bool, monkeypatch: pytest.MonkeyPatch, seed: int, scale: float
) -> None:
    # Where a loop that is left ends its generator, Python has nobody to raise an exception to.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    stride = max(1, round(5 / scale))
    for at in count(1 + seed % stride, stride):
        guest, tracer = Guest(complete), Tracer(at)
        kept = []
        for step in guest.steps():
            kept.append(tracer.run(step))
            if kept[-1] is not None:
                step()
        if tracer.left > 0:
            break
        kept.clear()
        try:
            guest.check()
        except AssertionError as error:
            raise AssertionError(f"interrupted at {tracer.where}") from error
    assert at > 500


@pytest.mark.parametrize("complete", [False, True])
def test_interrupted_close_can_be_made_again(complete: bool) -> None:
    for at in count(1):
        guest, tracer = Guest(complete), Tracer(at)
        for round_ in guest.migration.rounds(1):
            guest.send(round_)
        guest.write(3)
        loop = guest.migration.rounds()
        next(loop)
        guest.convert(7, True)
        kept = tracer.run(guest.migration.close)
        guest.migration.close()
        assert len(guest.log.take()) == (16 if complete else 1)
        del kept
        if tracer.left > 0:
            break
    assert at > 10


class Limited:
    """A tracker that has no more snapshots, now and then."""

    def __init__(self, pages: SharedPages) -> None:
        self._pages = pages
        self.fails = False

    @property
    def migration_allowed(self) -> bool | None:
        return self._pages.migration_allowed

    def snapshot(self) -> Snapshot:
        if self.fails:
            raise SnapshotLimitError("no more")
        return self._pages.snapshot()


def test_tracker_s_error_passes_and_the_pages_are_in_the_log() -> None:
    with SharedPages(64) as pages:
        limited, log = Limited(pages), DirtyLog(GuestMemory(SMALL))
        migration = Migration(limited, log, [])
        limited.fails = True
        for rounds in (migration.rounds, migration.final):
            with pytest.raises(SnapshotLimitError):
                next(rounds())
        with log.take() as harvest:
            assert len(harvest) == 16
            harvest.abort()
        limited.fails = False
        assert [r.private.tolist() for r in migration.rounds(1)] == [[[0, 16]]]
        with pytest.raises(SnapshotLimitError):
            limited.fails = True
            Migration(limited, log, [])
        assert len(log.take()) == 0


def test_source_s_error_passes_and_what_was_collected_before_is_in_the_log() -> None:
    guest = Guest(True)

    def fail() -> None:
        guest.log.add_pages([40])
        raise OSError("the kernel refuses")

    guest.fail = fail
    with pytest.raises(OSError, match="the kernel refuses"):
        for _ in guest.migration.rounds():
            pass
    guest.fail = bool
    for round_ in guest.migration.rounds(1):
        assert round_.private.tolist() == [[0, 16], [40, 41]]


@pytest.mark.parametrize("step", ["_merge", "_rerouted", "_settle"])
def test_no_memory_at_a_step_loses_no_page(step: str) -> None:
    class Starved(Migration):
        calls = count()

        def _starve(self) -> None:
            if next(self.calls) % 4 == 0:
                raise MemoryError

        def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
            if step == "_merge":
                self._starve()
            return super()._merge(snapshot, harvest)

        def _rerouted(self, snapshot: Snapshot, transfer: Transfer) -> PageSet:
            if step == "_rerouted":
                self._starve()
            return super()._rerouted(snapshot, transfer)

        def _settle(self, round_: Round, arrived: bool) -> None:
            if step == "_settle" and arrived:
                self._starve()
            super()._settle(round_, arrived)

    guest = Guest(True, Starved)
    failed = 0
    for do in guest.steps():
        while True:
            try:
                do()
                break
            except MemoryError:
                failed += 1
    assert failed > 1
    guest.check()


def test_migration_that_cannot_begin_holds_nothing() -> None:
    with SharedPages(64) as pages:
        log = DirtyLog(GuestMemory(SMALL))
        with pytest.raises(RangeError) as caught:
            Migration(pages, log, [], threads=0)
        pages.share(3)
        assert (pages.stats()["versions"], len(log.take())) == (1, 0)
        assert caught.value.__traceback__ is not None


def test_round_that_cannot_begin_holds_nothing() -> None:
    class Broken(Migration):
        def _merge(self, snapshot: Snapshot, harvest: Harvest) -> Transfer:
            raise MemoryError

    with SharedPages(64) as pages:
        log = DirtyLog(GuestMemory(SMALL))
        migration = Broken(pages, log, [])
        pages.share(1)
        with pytest.raises(MemoryError) as caught:
            next(migration.rounds())
        pages.share(2)
        # The list of the last round, and the newest version.
        assert (pages.stats()["versions"], len(log.take())) == (2, 16)
        assert caught.value.__traceback__ is not None


def test_clock_s_error_aborts_the_round() -> None:
    with SharedPages(64) as pages:
        ticks = iter([0.0, 1.0, 2.0, 3.0])
        log = DirtyLog(GuestMemory(SMALL))
        migration = Migration(pages, log, [], clock=lambda: next(ticks))
        with pytest.raises(RuntimeError):
            for round_ in migration.rounds():
                assert round_.pages == 16
        assert (migration.history, len(log.take())) == ((), 16)


def test_failed_final_goes_on_with_rounds() -> None:
    guest = Guest(True)
    with pytest.raises(MigrationForbiddenError):
        for round_ in guest.migration.final():
            guest.send(round_)
            guest.pages.migration_allowed = False
            guest.write(3)
    guest.convert(3, True)
    for round_ in guest.migration.rounds(2):
        guest.send(round_)
    guest.pages.migration_allowed = True
    for round_ in guest.migration.final():
        guest.send(round_)
    guest.check()
