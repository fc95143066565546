"""Being told of conversions in an asyncio loop: no thread, and no polling.

The eventfd of `SharedPages.fileno` is watched for edges through an epoll of one's own: nothing is
read from it, so that any number of tasks are told of the same change. Between two waits nothing is
held; what happened meanwhile shows in the epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
import select
from collections.abc import AsyncIterator

from pysharedpages._core import SharedPages
from pysharedpages.errors import ClosedError

__all__ = ["changed", "changes"]


async def changed(pages: SharedPages, epoch: int) -> int:
    """Waits until the tracker's epoch is above `epoch`, and returns it, as `SharedPages.wait`.

    TypeError for what is no integer; ClosedError if the tracker is closed, before or meanwhile, by
    any thread. A task that is cancelled here, as by `asyncio.timeout`, leaves nothing behind. The
    first call asks for the eventfd, which every later change then writes. Whoever reads that
    descriptor elsewhere may keep a change from being told before the next one.
    """
    epoch = operator.index(epoch)
    with contextlib.ExitStack() as ended:
        bell = _bell(pages)
        ended.callback(os.close, bell)
        edges = ended.enter_context(select.epoll())
        edges.register(bell, select.EPOLLIN | select.EPOLLET)
        rung = asyncio.Event()

        def on_edge() -> None:
            edges.poll(0)
            rung.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(edges.fileno(), on_edge)
        ended.callback(loop.remove_reader, edges.fileno())
        while (now := pages.epoch) <= epoch:
            await rung.wait()
            rung.clear()
        return now


async def changes(pages: SharedPages, epoch: int | None = None) -> AsyncIterator[int]:
    """The tracker's epochs, as `async for epoch in changes(pages)`: each time it has moved.

    From `epoch` on, by default the present one; changes that come while the body runs are one.
    Closing the tracker ends the loop.
    """
    try:
        seen = pages.epoch if epoch is None else epoch
        while True:
            seen = await changed(pages, seen)
            yield seen
    except ClosedError:
        return


def _bell(pages: SharedPages) -> int:
    """The eventfd by a descriptor of one's own: closing the tracker rings it, and closes its."""
    try:
        return os.dup(pages.fileno())
    except OSError:
        # Closed by another thread in between? Then this says so.
        _ = pages.epoch
        raise
