# tier: unit
"""Conversions that wake a task, or a thread, which begins a round because of them."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from pysharedpages import ClosedError, DirtyLog, GuestMemory, SharedPages
from pysharedpages.migration import Migration, changed, changes

SECONDS = 30


@pytest.fixture
def pages() -> Iterator[SharedPages]:
    """A tracker of 1,000 pages."""
    with SharedPages(1000) as pages:
        yield pages


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_a_change_that_was_before_is_told_at_once(pages: SharedPages) -> None:
    pages.share(1)
    pages.share(2)
    assert asyncio.run(changed(pages, 0)) == 2


def test_an_epoch_is_an_integer(pages: SharedPages) -> None:
    with pytest.raises(TypeError, match="float"):
        asyncio.run(changed(pages, 1.5))  # type: ignore[arg-type]


def test_a_change_by_another_thread_wakes_a_task(pages: SharedPages) -> None:
    async def told() -> int:
        waiting = asyncio.create_task(changed(pages, 0))
        await asyncio.sleep(0)
        threading.Thread(target=pages.share, args=(5,)).start()
        return await asyncio.wait_for(waiting, SECONDS)

    assert asyncio.run(told()) == 1


class Asked:
    """A tracker that counts how often it is asked for its epoch."""

    def __init__(self, pages: SharedPages) -> None:
        self.pages = pages
        self.times = 0

    def fileno(self) -> int:
        """See `SharedPages.fileno`."""
        return self.pages.fileno()

    @property
    def epoch(self) -> int:
        """See `SharedPages.epoch`."""
        self.times += 1
        return self.pages.epoch


def test_a_task_that_waits_does_not_poll(pages: SharedPages) -> None:
    pages.fileno()
    pages.share(1)
    asked = Asked(pages)

    async def waited() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(changed(cast(SharedPages, asked), 1), 0.1)

    asyncio.run(waited())
    assert asked.times <= 3


def test_an_eventfd_that_nobody_reads_does_not_wake(pages: SharedPages) -> None:
    async def waited() -> int:
        fd = pages.fileno()
        pages.share(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(changed(pages, 1), 0.05)
        assert select.select([fd], [], [], 0)[0] == [fd]
        pages.share(2)
        return await asyncio.wait_for(changed(pages, 1), SECONDS)

    assert asyncio.run(waited()) == 2


def test_all_tasks_are_told(pages: SharedPages) -> None:
    async def all_told() -> list[int]:
        tasks = [asyncio.create_task(changed(pages, 0)) for _ in range(5)]
        await asyncio.sleep(0)
        threading.Thread(target=pages.share, args=(5,)).start()
        return await asyncio.wait_for(asyncio.gather(*tasks), SECONDS)

    assert asyncio.run(all_told()) == [1] * 5


def test_epochs_pass_in_order_up_to_the_last(pages: SharedPages) -> None:
    def convert() -> None:
        for gfn in range(500):
            pages.share(gfn)

    async def seen() -> list[int]:
        epochs = []
        vcpu = threading.Thread(target=convert)
        async with asyncio.timeout(SECONDS):
            vcpu.start()
            async for epoch in changes(pages, 0):
                epochs.append(epoch)
                if epoch == 500:
                    break
        vcpu.join()
        return epochs

    epochs = asyncio.run(seen())
    assert epochs == sorted(set(epochs))
    assert epochs[-1] == 500


def test_changes_begin_with_the_present_epoch(pages: SharedPages) -> None:
    async def first() -> int:
        pages.share(1)
        told = changes(pages)
        task = asyncio.ensure_future(anext(told))
        await asyncio.sleep(0)
        assert not task.done()
        pages.share(2)
        return await asyncio.wait_for(task, SECONDS)

    assert asyncio.run(first()) == 2


def test_a_cancelled_task_leaves_nothing_behind(pages: SharedPages) -> None:
    async def cancelled() -> tuple[int, int]:
        pages.fileno()
        before = descriptors()
        for _ in range(3):
            task = asyncio.create_task(changed(pages, 0))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(SECONDS):
            pages.share(1)
            async for _ in changes(pages, 0):
                break
        return before, descriptors()

    before, after = asyncio.run(cancelled())
    assert before == after


def test_closing_ends_the_loop_and_wakes_who_waits(pages: SharedPages) -> None:
    async def ended() -> list[int]:
        waiting = asyncio.create_task(changed(pages, 7))
        looping = asyncio.create_task(collected())
        await asyncio.sleep(0)
        threading.Thread(target=pages.close).start()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(waiting, SECONDS)
        return await asyncio.wait_for(looping, SECONDS)

    async def collected() -> list[int]:
        return [epoch async for epoch in changes(pages)]

    assert asyncio.run(ended()) == []


def test_a_closed_tracker(pages: SharedPages) -> None:
    async def epochs() -> list[int]:
        return [epoch async for epoch in changes(pages)]

    pages.close()
    with pytest.raises(ClosedError):
        asyncio.run(changed(pages, 0))
    assert asyncio.run(epochs()) == []


def migration_of(pages: SharedPages) -> Migration:
    """A migration whose first round, of all memory, has arrived."""
    migration = Migration(pages, DirtyLog(GuestMemory([(0, 0, 1000)])), [])
    for _ in migration.rounds(1):
        pass
    return migration


def test_a_round_begins_because_of_a_conversion(pages: SharedPages) -> None:
    async def first_sent() -> object:
        migration = migration_of(pages)
        vcpu = threading.Thread(target=pages.share, args=(40, 2))
        async with asyncio.timeout(SECONDS):
            vcpu.start()
            async for _ in changes(pages, 0):
                for round_ in migration.rounds(1):
                    return round_.shared.tolist()
        return []

    assert asyncio.run(first_sent()) == [[40, 42]]


def test_a_round_begins_because_wait_returned(pages: SharedPages) -> None:
    migration = migration_of(pages)
    sent: list[list[list[int]]] = []

    def migrate() -> None:
        pages.wait(0, timeout=SECONDS)
        for round_ in migration.rounds(1):
            sent.append(round_.shared.tolist())

    thread = threading.Thread(target=migrate)
    thread.start()
    pages.share(40, 2)
    thread.join(SECONDS)
    assert sent == [[[40, 42]]]
