# tier: model
"""Many snapshots held across many conversions: each still equals its own record when it is dropped.

The oracle is one NumPy bool a page, over a universe small enough to record whole, across a seam.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from model import EVENT, ranges
from numpy.typing import NDArray

from pysharedpages import RangeError, SharedPages, Snapshot

Make = Callable[..., SharedPages]
Bits = NDArray[np.uint8]

UNIVERSE = 3 * 2**16 + 192
"""Four leaves, the last one cut short."""

SNAPSHOTS = 1_000
CONVERSIONS = 1_000_000
"""For each engine, at scale 1."""


@dataclass
class Held:
    """A snapshot with the record of its pages, and how many batches had been applied."""

    snap: Snapshot
    record: Bits
    batches: int


@dataclass
class Oracle:
    """The state of every page, and which pages each batch converted."""

    base: int
    state: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(UNIVERSE, dtype=np.bool_))
    converted: list[Bits] = field(default_factory=list)
    epoch: int = 0

    def apply(self, batch: NDArray[np.void]) -> int:
        """Carry a batch out; how often a page changed."""
        changed = np.zeros(UNIVERSE, dtype=np.bool_)
        total = 0
        for start, npages, shared in batch.tolist():
            at = slice(start - self.base, start - self.base + npages)
            flips = self.state[at] != bool(shared)
            changed[at] |= flips
            total += int(np.count_nonzero(flips))
            self.state[at] = shared
        self.converted.append(np.packbits(changed, bitorder="little"))
        self.epoch += total > 0
        return total

    def record(self) -> Bits:
        """The state as a bitmap."""
        return np.packbits(self.state, bitorder="little")

    def converted_between(self, after: int, upto: int) -> Bits:
        """Every page converted by the batches in (after, upto]."""
        none = np.zeros(UNIVERSE // 8, dtype=np.uint8)
        return np.bitwise_or.reduce(self.converted[after:upto], axis=0) if after < upto else none


def random_batch(rng: np.random.Generator, base: int, count: int) -> NDArray[np.void]:
    """Conversions of single pages and short runs, half of them close together, a few long."""
    batch = np.zeros(count, dtype=EVENT)
    length = rng.choice([1, 1, 1, 2, 8, 64, 700], size=count)
    if rng.random() < 0.1:
        length[0] = rng.integers(2**14, UNIVERSE)
    near = rng.integers(UNIVERSE - 2048)
    local = near + rng.integers(0, 1024, size=count)
    start = np.where(rng.random(count) < 0.5, local, rng.integers(0, UNIVERSE, size=count))
    start = np.minimum(start, UNIVERSE - length)
    batch["start"], batch["npages"] = base + start, length
    batch["shared"] = rng.random(count) < 0.5
    return batch


def verify(held: Held, base: int) -> None:
    """Compare a snapshot with its record, bit by bit, and that it holds nothing else."""
    assert np.array_equal(held.snap.to_bitmap(base, UNIVERSE), held.record)
    assert len(held.snap) == int(np.bitwise_count(held.record).sum())


def at_rest(pages: SharedPages) -> None:
    """Assert that no node is alive but those of the current state."""
    gc.collect()
    # A snapshot publishes the open version, so that the version before it goes too.
    pages.snapshot().close()
    stats = pages.stats()
    assert stats["nodes"] == stats["live_nodes"]


def cost(pages: SharedPages) -> dict[str, object]:
    """What the tracker says of its size, without any counters of past work."""
    stats = pages.stats()
    return {
        key: stats[key] for key in ("pages", "ranges", "nodes", "live_nodes", "leaves", "bytes")
    }


@pytest.fixture
def batch_size(scale: float) -> int:
    """How many conversions lie between two snapshots at this scale."""
    return CONVERSIONS // SNAPSHOTS if scale >= 0.1 else 100


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_every_snapshot_equals_its_record(
    engine: str, rng: np.random.Generator, scale: float, batch_size: int, closed: bool
) -> None:
    pages = SharedPages(engine=engine)
    oracle, held = Oracle(2**32 - 2**17 - 64), list[Held]()
    for turn in range(max(20, round(SNAPSHOTS * scale / 2))):
        batch = random_batch(rng, oracle.base, batch_size)
        assert pages.apply(batch) == oracle.apply(batch)
        assert pages.epoch == oracle.epoch
        held.append(Held(pages.snapshot(), oracle.record(), turn + 1))
        while held and rng.random() < 0.3:
            drop(held, oracle, rng)
    if closed:
        for _ in range(len(held) // 2):
            drop(held, oracle, rng)
        pages.close()
    while held:
        drop(held, oracle, rng)
    if not closed:
        at_rest(pages)
        pages.close()


def drop(held: list[Held], oracle: Oracle, rng: np.random.Generator) -> None:
    """Verify a random snapshot, and what was converted since another one, and let it go."""
    out = held.pop(int(rng.integers(len(held))))
    verify(out, oracle.base)
    if held and rng.random() < 0.2:
        other = held[int(rng.integers(len(held)))]
        older, newer = sorted((out, other), key=lambda one: one.batches)
        converted = newer.snap.converted_since(older.snap)
        expected = oracle.converted_between(older.batches, newer.batches)
        assert np.array_equal(converted.to_bitmap(oracle.base, UNIVERSE), expected)
        assert len(converted) == int(np.bitwise_count(expected).sum())
    if rng.random() < 0.5:
        out.snap.close()


@pytest.mark.parametrize("order", ["oldest first", "newest first", "random"])
def test_nothing_is_retained_at_rest(
    tracker: Make, rng: np.random.Generator, scale: float, order: str
) -> None:
    pages, oracle = tracker(), Oracle(2**16)
    at_rest(pages)
    held = []
    for turn in range(max(10, round(100 * scale))):
        batch = random_batch(rng, oracle.base, 50)
        pages.apply(batch)
        oracle.apply(batch)
        held.append(Held(pages.snapshot(), oracle.record(), turn + 1))
    assert pages.stats()["live_nodes"] > pages.stats()["nodes"]
    if order == "newest first":
        held.reverse()
    elif order == "random":
        held = [held[index] for index in rng.permutation(len(held))]
    while held:
        verify(held.pop(0), oracle.base)
    at_rest(pages)
    pages.reset("private")
    at_rest(pages)
    assert len(pages) == 0


def test_bytes_come_back(tracker: Make, rng: np.random.Generator) -> None:
    pages = tracker()
    pages.apply(random_batch(rng, 0, 2000))
    at_rest(pages)
    before, nbytes, listed = cost(pages), pages.nbytes, pages.get_list()
    held = [pages.snapshot()]
    for _ in range(20):
        pages.apply(random_batch(rng, 0, 100))
        held.append(pages.snapshot())
    assert pages.nbytes > nbytes
    held.clear()
    pages.set_list(listed)
    at_rest(pages)
    assert cost(pages)["pages"] == before["pages"]
    assert cost(pages)["ranges"] == before["ranges"]
    assert pages.nbytes <= 2 * nbytes


@pytest.mark.parametrize("holding", [False, True], ids=["no snapshot", "snapshots"])
def test_a_failed_apply_leaves_no_trace(
    tracker: Make, rng: np.random.Generator, scale: float, holding: bool
) -> None:
    pages, oracle = tracker(UNIVERSE), Oracle(0)
    held = list[Held]()
    for turn in range(max(10, round(100 * scale))):
        batch = random_batch(rng, 0, int(rng.integers(1, 300)))
        pages.apply(batch)
        oracle.apply(batch)
        if holding:
            held.append(Held(pages.snapshot(), oracle.record(), turn + 1))
        published = pages.snapshot()
        before = cost(pages), pages.nbytes, pages.epoch, len(pages)

        bad = random_batch(rng, 0, int(rng.integers(2, 300)))
        bad[-1] = (UNIVERSE - 1, 2, True)
        with pytest.raises(RangeError):
            pages.apply(bad)

        assert (cost(pages), pages.nbytes, pages.epoch, len(pages)) == before
        again = pages.snapshot()
        assert np.array_equal(again.to_bitmap(0, UNIVERSE), oracle.record())
        assert len(again.converted_since(published)) == 0
        del published, again
    while held:
        drop(held, oracle, rng)
    at_rest(pages)


@pytest.mark.parametrize(
    "fail",
    [
        lambda pages: pages.set_list(ranges((0, 5), (100, UNIVERSE + 1))),
        lambda pages: pages.share(0, UNIVERSE + 1),
        lambda pages: pages.unshare(UNIVERSE, 1),
        lambda pages: pages.convert(5, UNIVERSE, True),
    ],
    ids=["set_list", "share", "unshare", "convert"],
)
def test_other_failures_leave_no_trace(
    tracker: Make, rng: np.random.Generator, fail: Callable[[SharedPages], object]
) -> None:
    pages, oracle = tracker(UNIVERSE), Oracle(0)
    batch = random_batch(rng, 0, 500)
    pages.apply(batch)
    oracle.apply(batch)
    published = pages.snapshot()
    before = cost(pages), pages.nbytes, pages.epoch
    with pytest.raises(RangeError):
        fail(pages)
    assert (cost(pages), pages.nbytes, pages.epoch) == before
    assert np.array_equal(pages.snapshot().to_bitmap(0, UNIVERSE), oracle.record())
    assert len(pages.snapshot().converted_since(published)) == 0
