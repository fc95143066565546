# tier: model
"""merge and iter_merge against the oracle: what is dirty or converted, split by what is shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
from model import (
    Memory,
    Ranges,
    bitmap,
    canonical,
    events,
    from_set,
    gfns,
    names,
    ranges,
    ring,
    size,
    to_set,
)
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory, Harvest, PageSet, SharedPages, Snapshot, Transfer

Make = Callable[..., SharedPages]
Dirty: TypeAlias = DirtyLog | Harvest | PageSet | NDArray[np.uint64]

MEMORY = Memory(
    {
        0: (3, 700),
        1: (1000, 513),
        9: (2**16 - 37, 300),
        11: (2**32 - 65, 129),
        1 << 16: (50, 640),
        1 << 16 | 1: (2**16 + 200, 91),
    }
)
"""Slots that begin and end off every boundary; two address spaces use the same gfns."""

MMIO = [(5000, 5200), (2**16 + 400, 2**16 + 500), (2**40 - 8, 2**40 + 8)]
"""Gfns in no slot, which guests convert too."""


@dataclass
class Scene:
    """A tracker converted at random, before and after `since`, and what the oracle says of it."""

    since: Snapshot
    snap: Snapshot
    shared: set[int]
    converted: set[int]

    def expect(
        self, dirty: set[int], *, since: bool, memory: bool
    ) -> tuple[Ranges, Ranges, Ranges]:
        """The shared ranges, the private ranges and the converted ones of a merge."""
        converted = self.converted if since else set()
        if memory:
            converted = converted & MEMORY.pages()
        send = dirty | converted
        return from_set(send & self.shared), from_set(send - self.shared), from_set(converted)


def random_batch(rng: np.random.Generator, count: int) -> list[tuple[int, int, bool]]:
    """Conversions of RAM and MMIO, single pages and runs, there and back."""
    places = [*MEMORY.slots.values(), *((start, stop - start) for start, stop in MMIO)]
    batch = []
    for _ in range(count):
        gfn, npages = places[int(rng.integers(len(places)))]
        start = int(rng.integers(npages))
        length = 1 if rng.random() < 0.5 else int(rng.integers(1, npages - start + 1))
        batch.append((gfn + start, length, bool(rng.random() < 0.5)))
    return batch


def run(shared: set[int], converted: set[int], batch: list[tuple[int, int, bool]]) -> None:
    """Carry a batch out on Python sets."""
    for start, npages, status in batch:
        asked = set(range(start, start + npages))
        change = asked - shared if status else asked & shared
        converted |= change
        shared ^= change


def scene(make: Make, rng: np.random.Generator) -> Scene:
    """A random scene."""
    pages, shared, converted = make(), set[int](), set[int]()
    first, second = random_batch(rng, 30), random_batch(rng, 12)
    pages.apply(events(*first))
    run(shared, converted, first)
    since = pages.snapshot()
    converted.clear()
    pages.apply(events(*second[:6]))
    pages.apply(events(*second[6:]))
    run(shared, converted, second)
    snap = pages.snapshot()
    pages.reset("shared")
    return Scene(since, snap, shared, converted)


def dirty_slots(rng: np.random.Generator) -> dict[int, set[int]]:
    """Slot-relative dirty pages by slot, some of them past the slot's end, in runs and alone."""
    dirty = {}
    for slot, (_, npages) in MEMORY.slots.items():
        density = rng.choice([0, 0.01, 0.1, 0.5, 1])
        bits = rng.random((npages + 63) // 64 * 64) < density
        if rng.random() < 0.3:
            bits = np.repeat(bits[::8], 8)
        dirty[slot] = set(np.flatnonzero(bits).tolist())
    return dirty


def fill(log: DirtyLog, rng: np.random.Generator) -> set[int]:
    """Report random pages by random means; the gfns reported."""
    reported = set[int]()
    for slot, offsets in dirty_slots(rng).items():
        gfn, npages = MEMORY.slots[slot]
        inside = sorted(offset for offset in offsets if offset < npages)
        means = rng.integers(5)
        if means == 0:
            log.add_bitmap(slot, bitmap(npages, offsets))
        elif means == 1:
            skip = int(rng.integers(0, (npages + 63) // 64)) * 64
            tail = {offset - skip for offset in offsets if offset >= skip}
            log.add_bitmap(slot, bitmap(npages - skip, tail), first_page=skip)
            inside = [offset for offset in inside if offset >= skip]
        elif means == 2:
            log.add_ring(ring(*((slot, offset) for offset in rng.permutation(inside).tolist())))
        elif means == 3:
            log.add_ranges(ranges(*from_set(gfn + offset for offset in inside)))
        else:
            log.add_pages(gfns(*(gfn + offset for offset in rng.permutation(inside).tolist())))
        reported |= {gfn + offset for offset in inside}
    return reported


def check(transfer: Transfer, expected: tuple[Ranges, Ranges, Ranges], epoch: int) -> None:
    """Compare every field."""
    shared, private, converted = expected
    assert canonical(transfer.shared) == shared
    assert canonical(transfer.private) == private
    assert transfer.shared_pages == size(shared)
    assert transfer.private_pages == size(private)
    assert type(transfer.converted) is PageSet
    assert canonical(transfer.converted.ranges()) == converted
    assert transfer.epoch == epoch


@pytest.fixture
def memory() -> GuestMemory:
    """The library's twin of MEMORY."""
    return GuestMemory(list(MEMORY.entries()))


@pytest.fixture
def rounds(scale: float) -> int:
    """How many random scenes a test draws."""
    return max(1, round(25 * scale))


@pytest.mark.parametrize("given", [False, True], ids=["no since", "since"])
@pytest.mark.parametrize("kind", ["log", "harvest"])
def test_merge_of_a_log(
    tracker: Make,
    memory: GuestMemory,
    rng: np.random.Generator,
    rounds: int,
    kind: str,
    given: bool,
) -> None:
    for _ in range(rounds):
        at = scene(tracker, rng)
        log = DirtyLog(memory)
        reported = fill(log, rng)
        dirty = log if kind == "log" else log.take()
        expected = at.expect(reported, since=given, memory=True)
        for _ in range(2):
            check(at.snap.merge(dirty, at.since if given else None), expected, at.snap.epoch)


@pytest.mark.parametrize("filtered", [False, True], ids=["no memory", "memory"])
@pytest.mark.parametrize("given", [False, True], ids=["no since", "since"])
@pytest.mark.parametrize("kind", ["set", "ranges", "snapshot"])
def test_merge_of_a_set(
    tracker: Make,
    memory: GuestMemory,
    rng: np.random.Generator,
    rounds: int,
    kind: str,
    given: bool,
    filtered: bool,
) -> None:
    for _ in range(rounds):
        at = scene(tracker, rng)
        reported = to_set((start, start + npages) for start, npages, _ in random_batch(rng, 8))
        table = ranges(*from_set(reported))
        dirty: Dirty = table if kind == "ranges" else PageSet.from_ranges(table)
        if kind == "snapshot":
            holder = tracker()
            holder.set_list(table)
            dirty = holder.snapshot()
        expected = at.expect(reported, since=given, memory=filtered)
        transfer = at.snap.merge(
            dirty, since=at.since if given else None, memory=memory if filtered else None
        )
        check(transfer, expected, at.snap.epoch)


def test_merge_leaves_the_log(
    tracker: Make, memory: GuestMemory, rng: np.random.Generator, rounds: int
) -> None:
    for _ in range(rounds):
        at = scene(tracker, rng)
        log = DirtyLog(memory)
        reported = fill(log, rng)
        at.snap.merge(log, at.since)
        list(at.snap.iter_merge(log, at.since, batch=7))
        check(
            at.snap.merge(log.take()), at.expect(reported, since=False, memory=True), at.snap.epoch
        )


def test_merge_of_what_an_abort_put_back(
    tracker: Make, memory: GuestMemory, rng: np.random.Generator, rounds: int
) -> None:
    for _ in range(rounds):
        at = scene(tracker, rng)
        log = DirtyLog(memory)
        reported = fill(log, rng)
        harvest = log.take()
        reported |= fill(log, rng)
        harvest.abort()
        check(
            at.snap.merge(log.take()), at.expect(reported, since=False, memory=True), at.snap.epoch
        )


@pytest.mark.parametrize("batch", [1, 2, 13, 65536])
@pytest.mark.parametrize("kind", ["log", "harvest", "set", "ranges"])
def test_iter_merge_is_the_merge_in_parts(
    tracker: Make, memory: GuestMemory, rng: np.random.Generator, rounds: int, kind: str, batch: int
) -> None:
    for _ in range(max(1, rounds // 3)):
        at = scene(tracker, rng)
        log = DirtyLog(memory)
        reported = from_set(fill(log, rng))
        dirty: Dirty = log
        if kind == "harvest":
            dirty = log.take()
        elif kind == "set":
            dirty = PageSet.from_ranges(ranges(*reported))
        elif kind == "ranges":
            dirty = ranges(*reported)
        whole = at.snap.merge(dirty, at.since)
        check_parts(list(at.snap.iter_merge(dirty, since=at.since, batch=batch)), whole, batch)


def check_parts(parts: list[Transfer], whole: Transfer, batch: int) -> None:
    """The parts are small, ascending and apart, and make up the whole."""
    for part in parts:
        assert len(canonical(part.shared)) <= batch
        assert len(canonical(part.private)) <= batch
        assert part.epoch == whole.epoch
    for name in ("shared", "private"):
        table = np.concatenate(
            [np.empty((0, 2), np.uint64), *(getattr(part, name) for part in parts)]
        )
        flat = table.ravel()
        assert np.all(flat[:-1] <= flat[1:])
        assert np.array_equal(PageSet.from_ranges(table).ranges(), getattr(whole, name))
        assert sum(getattr(part, f"{name}_pages") for part in parts) == getattr(
            whole, f"{name}_pages"
        )
    united = PageSet()
    for part in parts:
        united |= part.converted
    assert united == whole.converted


def test_flips_there_and_back_are_sent_again(tracker: Make) -> None:
    pages = tracker()
    pages.share(10, 10)
    since = pages.snapshot()
    pages.unshare(12)
    pages.share(12)
    pages.share(30)
    pages.unshare(30)
    transfer = pages.snapshot().merge(PageSet(), since=since)
    check(transfer, ([(12, 13)], [(30, 31)], [(12, 13), (30, 31)]), 5)


def test_converted_mmio_is_not_sent(tracker: Make) -> None:
    pages = tracker()
    since = pages.snapshot()
    pages.share(90, 20)
    pages.share(2**32, 2**34)
    log = DirtyLog(GuestMemory([(0, 100, 50)]))
    log.add_pages(gfns(120))
    transfer = pages.snapshot().merge(log, since)
    check(transfer, ([(100, 110)], [(120, 121)], [(100, 110)]), 2)


def test_dirty_pages_outside_the_given_memory_are_sent(tracker: Make) -> None:
    pages = tracker()
    pages.share(5)
    transfer = pages.snapshot().merge(ranges((4, 7)), memory=GuestMemory([(0, 100, 50)]))
    check(transfer, ([(5, 6)], [(4, 5), (6, 7)], []), 1)


def test_an_explicit_memory_overrides_the_log(tracker: Make) -> None:
    pages = tracker()
    since = pages.snapshot()
    pages.share(0, 200)
    log = DirtyLog(GuestMemory([(0, 100, 50)]))
    transfer = pages.snapshot().merge(log, since, GuestMemory([(0, 10, 5)]))
    check(transfer, ([(10, 15)], [], [(10, 15)]), 1)


def test_nothing_to_send(tracker: Make, memory: GuestMemory) -> None:
    pages = tracker()
    pages.share(0, 2**40)
    snap = pages.snapshot()
    for dirty in (DirtyLog(memory), DirtyLog(memory).take(), PageSet(), ranges()):
        check(snap.merge(dirty, snap), ([], [], []), 1)
        assert sum(len(part.shared) + len(part.private) for part in snap.iter_merge(dirty)) == 0


def test_a_huge_dirty_range(tracker: Make) -> None:
    pages = tracker("24TiB")
    pages.share(2**30, 2**32)
    end = 24 * 2**28
    transfer = pages.snapshot().merge(ranges((0, end)))
    check(transfer, ([(2**30, 2**30 + 2**32)], [(0, 2**30), (2**30 + 2**32, end)], []), 1)


@pytest.mark.parametrize("argument", ["dirty", "since", "memory"])
@pytest.mark.parametrize(
    "value", ["text", 5, 1.5, object()], ids=lambda value: type(value).__name__
)
def test_arguments_of_other_types(
    tracker: Make, memory: GuestMemory, argument: str, value: Any
) -> None:
    log = DirtyLog(memory)
    log.add_pages(gfns(5))
    snap = tracker().snapshot()
    arguments: dict[str, Any] = {"dirty": log, argument: value}
    with pytest.raises(TypeError):
        snap.merge(**arguments)
    check(snap.merge(log), ([], [(5, 6)], []), 0)


def test_a_since_that_cannot_be(tracker: Make, memory: GuestMemory) -> None:
    log = DirtyLog(memory)
    log.add_pages(gfns(5))
    pages = tracker()
    snap = pages.snapshot()
    pages.share(500)
    for merge in (snap.merge, lambda dirty, since: list(snap.iter_merge(dirty, since=since))):
        with pytest.raises(ValueError, match="tracker"):
            merge(log, since=tracker().snapshot())
        with pytest.raises(ValueError) as raised:
            merge(log, since=pages.snapshot())
        names(raised.value, {1}, {0})
    check(snap.merge(log), ([], [(5, 6)], []), 0)
