# tier: torture
"""Many threads: readers see only complete states, nothing is lost, any end may come at any time."""

from __future__ import annotations

import gc
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import pytest
from model import DIRTY_GFN, bitmap, canonical, events, ranges
from numpy.typing import NDArray

from pysharedpages import ClosedError, DirtyLog, GuestMemory, PageSet, SharedPages, Snapshot

Make = Callable[..., SharedPages]

STUCK_SECONDS = 120
"""How long a thread may take before it counts as deadlocked."""

BASES = np.arange(64, dtype=np.uint64) * np.uint64(2**17 + 1)
"""One page in each of 64 leaves; a state of the pattern is all of them, moved by one offset."""

PERIOD = 7
"""How many states the pattern has."""


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Let the interpreter change threads a hundred times as often as it would."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


def together(targets: Iterable[Callable[[], None]]) -> None:
    """Run every target in a thread of its own, released at once; raise what any of them raised."""
    work = list(targets)
    gate = threading.Barrier(len(work))
    failures: list[BaseException] = []

    def body(target: Callable[[], None]) -> None:
        gate.wait()
        try:
            target()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=body, args=(target,), daemon=True) for target in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STUCK_SECONDS)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), "a thread is stuck"


def step(epoch: int) -> NDArray[np.void]:
    """The events that lead from the state of epoch - 1 to that of `epoch`."""
    batch = np.zeros(2 * len(BASES), dtype=events().dtype)
    old, new = (epoch - 1) % PERIOD, epoch % PERIOD
    batch["start"] = np.concatenate([BASES + np.uint64(old), BASES + np.uint64(new)])
    batch["npages"] = 1
    batch["shared"][len(BASES) :] = 1
    return batch


def pattern(make: Make) -> SharedPages:
    """A tracker whose state at each epoch e is BASES + e % PERIOD, begun at epoch 1."""
    pages = make()
    batch = step(1)[len(BASES) :]
    pages.apply(batch)
    return pages


def complete(snap: PageSet, epoch: int) -> bool:
    """Whether a snapshot is exactly the pattern of its epoch; before the first, nothing."""
    if epoch == 0:
        return len(snap) == 0
    return np.array_equal(snap.pages(), BASES + np.uint64(epoch % PERIOD))


def race(pages: SharedPages, reader: Callable[[], Callable[[], int]], enough: int) -> None:
    """Step the pattern until each of three readers has returned `enough` different epochs."""
    seen = [Counter[int]() for _ in range(3)]
    finished = [threading.Event() for _ in seen]
    stopped = threading.Event()

    def write() -> None:
        epoch = pages.epoch
        try:
            while not all(event.is_set() for event in finished):
                epoch += 1
                assert pages.apply(step(epoch)) == 2 * len(BASES)
                assert pages.epoch == epoch
        finally:
            stopped.set()

    def read(histogram: Counter[int], done: threading.Event) -> None:
        look = reader()
        try:
            while len(histogram) < enough and not stopped.is_set():
                histogram[look()] += 1
        finally:
            done.set()

    together([write, *(partial(read, *pair) for pair in zip(seen, finished, strict=True))])
    assert [len(histogram) for histogram in seen] == [enough] * 3
    assert complete(pages.snapshot(), pages.epoch)


@pytest.mark.parametrize(
    "look", [SharedPages.snapshot, SharedPages.latest], ids=["snapshot", "latest"]
)
def test_readers_see_complete_states(
    tracker: Make, scale: float, look: Callable[[SharedPages], Snapshot]
) -> None:
    pages = pattern(tracker)

    def reader() -> Callable[[], int]:
        newest = 0

        def read() -> int:
            nonlocal newest
            snap = look(pages)
            assert snap.epoch >= newest
            newest = snap.epoch
            assert complete(snap, newest)
            return newest

        return read

    race(pages, reader, max(10, round(200 * scale)))


def test_live_reads_see_complete_states(tracker: Make, scale: float) -> None:
    pages = pattern(tracker)

    def read() -> int:
        before = pages.epoch
        assert len(pages) == len(BASES)
        assert 2**51 not in pages
        assert pages.epoch >= before
        return before

    race(pages, lambda: read, max(10, round(200 * scale)))


def test_what_was_converted_is_complete(tracker: Make, scale: float) -> None:
    pages = pattern(tracker)

    def reader() -> Callable[[], int]:
        older = pages.snapshot()

        def read() -> int:
            nonlocal older
            snap = pages.snapshot()
            offsets = {epoch % PERIOD for epoch in range(older.epoch, snap.epoch + 1)}
            expected = offsets if snap.epoch > older.epoch else set()
            converted = snap.converted_since(older)
            assert len(converted) == len(expected) * len(BASES)
            assert all(int(BASES[-1]) + offset in converted for offset in expected)
            older = snap
            return snap.epoch

        return read

    race(pages, reader, max(10, round(100 * scale)))


def test_writers_of_different_pages(tracker: Make, scale: float) -> None:
    pages = tracker()
    count = max(20, round(400 * scale))
    changed = [0] * 4

    def write(worker: int) -> None:
        for index in range(count):
            changed[worker] += pages.share(index * 8 + worker * 2)
            if index % 3 == 0:
                changed[worker] += pages.unshare(index * 8 + worker * 2)

    together(partial(write, worker) for worker in range(4))
    expected = [
        index * 8 + worker * 2 for index in range(count) if index % 3 for worker in range(4)
    ]
    assert pages.snapshot().pages().tolist() == expected
    assert sum(changed) == pages.epoch == 4 * (count + (count + 2) // 3)


def test_writers_of_the_same_page(tracker: Make, scale: float) -> None:
    pages = tracker(100)
    count = max(50, round(2000 * scale))
    shared, unshared = [0, 0], [0, 0]

    def share(worker: int) -> None:
        for _ in range(count):
            shared[worker] += pages.share(5)

    def unshare(worker: int) -> None:
        for _ in range(count):
            unshared[worker] += pages.unshare(5)

    together([lambda: share(0), lambda: unshare(0), lambda: share(1), lambda: unshare(1)])
    assert sum(shared) - sum(unshared) == len(pages) == (5 in pages)
    assert sum(shared) + sum(unshared) == pages.epoch


def test_snapshots_dropped_on_other_threads(tracker: Make, scale: float) -> None:
    pages = pattern(tracker)
    rounds = max(50, round(1000 * scale))
    handed: queue.Queue[Snapshot | None] = queue.Queue(maxsize=64)

    def write() -> None:
        try:
            for epoch in range(2, rounds):
                pages.apply(step(epoch))
                handed.put(pages.snapshot(), timeout=STUCK_SECONDS)
        finally:
            for _ in range(2):
                handed.put(None, timeout=STUCK_SECONDS)

    def drop(close: bool) -> None:
        while (snap := handed.get(timeout=STUCK_SECONDS)) is not None:
            assert complete(snap, snap.epoch)
            if close:
                snap.close()
            del snap

    together([write, lambda: drop(True), lambda: drop(False)])
    gc.collect()
    # A snapshot publishes the open version; once it is gone the tracker is at rest.
    pages.snapshot().close()
    stats = pages.stats()
    assert stats["nodes"] == stats["live_nodes"]


def test_hints_of_many_threads_are_all_counted(engine: str, scale: float) -> None:
    pages = SharedPages(engine=engine)
    rounds = max(50, round(400 * scale))
    changed: list[int] = []

    def write(number: int) -> None:
        batches = [events((2**17 * number, 3, kind), (7, 1, kind)) for kind in (True, False)]
        own = [pages.apply(batches[i % 2], trusted=False) for i in range(rounds)]
        changed.append(sum(own))

    def look() -> None:
        seen = (0, 0)
        while seen[0] < 8 * rounds:
            stats = pages.stats()
            now = stats["hint_events"], stats["hint_pages"]
            assert now >= seen and now[0] % 2 == 0
            seen = now

    together([*(partial(write, number) for number in range(4)), look])
    stats = pages.stats()
    assert (stats["hint_events"], stats["hint_pages"]) == (8 * rounds, sum(changed))
    assert 12 * rounds <= sum(changed) <= 16 * rounds


@pytest.mark.parametrize("attempt", range(10))
def test_close_by_another_thread(engine: str, attempt: int) -> None:
    pages = pattern(lambda: SharedPages(engine=engine))
    held = pages.snapshot()
    under_way = threading.Barrier(4)
    refused = Counter[str]()

    def use(name: str, call: Callable[[int], object]) -> None:
        under_way.wait(STUCK_SECONDS)
        epoch = 1
        try:
            while True:
                epoch += 1
                call(epoch)
        except ClosedError:
            refused[name] += 1

    def read(_: int) -> None:
        snap = pages.snapshot()
        assert complete(snap, snap.epoch)

    def close() -> None:
        under_way.wait(STUCK_SECONDS)
        for _ in range(attempt * 20):
            held.pages()
        pages.close()

    together(
        [
            lambda: use("write", lambda epoch: pages.apply(step(epoch))),
            lambda: use("read", read),
            lambda: use("look", lambda _: (len(pages), 5 in pages, pages.latest())),
            close,
        ]
    )
    assert refused == {"write": 1, "read": 1, "look": 1}
    assert complete(held, 1)


def test_close_wakes_a_waiter(engine: str) -> None:
    pages = SharedPages(engine=engine)
    woken: list[type[BaseException]] = []

    def wait() -> None:
        try:
            pages.wait(0)
        except ClosedError as error:
            woken.append(type(error))

    together([wait, pages.close])
    assert woken == [ClosedError]


def test_waiters_see_every_epoch_pass(tracker: Make, scale: float) -> None:
    pages = tracker()
    rounds = max(20, round(500 * scale))
    reached = [0, 0, 0]

    def write() -> None:
        for gfn in range(rounds):
            pages.share(gfn)

    def wait(index: int) -> None:
        while reached[index] < rounds:
            epoch = pages.wait(reached[index])
            assert epoch > reached[index]
            reached[index] = epoch

    together([write, *(partial(wait, index) for index in range(3))])
    assert reached == [rounds] * 3


def test_a_snapshot_closed_while_it_is_read(tracker: Make, scale: float) -> None:
    pages = pattern(tracker)
    for _ in range(max(5, round(50 * scale))):
        snap = pages.snapshot()
        refused: list[ClosedError] = []

        def read(snap: Snapshot = snap, refused: list[ClosedError] = refused) -> None:
            try:
                while True:
                    assert complete(snap, 1)
            except ClosedError as error:
                refused.append(error)

        def close(snap: Snapshot = snap) -> None:
            pages.share(2**50)
            pages.unshare(2**50)
            snap.close()

        together([read, read, close])
        assert len(refused) == 2


MEMORY = GuestMemory([(0, 70, 40000), (1, 2**32 - 5, 4096)])


def test_add_and_take_at_once(scale: float) -> None:
    log = DirtyLog(MEMORY)
    private = SharedPages().snapshot()
    count = min(9999, max(100, round(3000 * scale)))
    adding = threading.Semaphore(0)
    committed: list[NDArray[np.uint64]] = []

    def add(means: Callable[[int], None], index: int) -> None:
        try:
            for step_ in range(count):
                means(step_ * 4 + index)
        finally:
            adding.release()

    def collect(index: int) -> None:
        turn = index
        while not adding.acquire(blocking=False):
            turn += 1
            harvest = log.take()
            if turn % 3 == 0:
                harvest.abort()
                continue
            committed.append(private.merge(harvest).private)
            harvest.commit()
        adding.release()

    def add_bitmap(offset: int) -> None:
        first = offset // 64 * 64
        log.add_bitmap(0, bitmap(40000 - first, [offset - first]), first_page=first)

    together(
        [
            lambda: add(add_bitmap, 0),
            lambda: add(
                lambda offset: log.add_ring(np.array([(1, 0, offset)], dtype=DIRTY_GFN)), 1
            ),
            lambda: add(lambda offset: log.add_ranges(ranges((70 + offset, 71 + offset))), 2),
            lambda: add(lambda offset: log.add_pages(np.array([70 + offset], dtype=np.uint64)), 3),
            lambda: collect(0),
            lambda: collect(1),
        ]
    )
    committed.append(private.merge(log.take()).private)
    everything = np.concatenate(committed)
    assert canonical(PageSet.from_ranges(everything).ranges()) == [(70, 70 + 4 * count)]
    assert int((everything[:, 1] - everything[:, 0]).sum()) == 4 * count


def test_a_look_never_hides_the_log_from_a_take() -> None:
    log = DirtyLog(GuestMemory([(0, 0, 64)]))
    log.add_pages(np.array([5], np.uint64))
    private = SharedPages().snapshot()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            private.merge(log)

    def take() -> None:
        try:
            for _ in range(3000):
                harvest = log.take()
                assert len(harvest) == 1
                harvest.abort()
        finally:
            stop.set()

    together([look, take])
