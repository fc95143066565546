"""A dirty log the stand-in keeps itself, for hosts whose kernel has no PAGEMAP_SCAN."""

from __future__ import annotations

import threading

import numpy as np

from pysharedpages.dirty import DirtyLog

__all__ = ["WriteLog"]


class WriteLog:
    """Collects the gfns it is told of; a source of dirty pages. Safe in any thread.

    The guest reports a page *after* it stored it. A store that a transfer misses is therefore
    reported after the harvest that led to the transfer, and the page travels again.
    """

    complete = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gfns: set[int] = set()

    def stored(self, gfn: int) -> None:
        """Note that the page was written."""
        with self._lock:
            self._gfns.add(gfn)

    def collect(self, log: DirtyLog) -> None:
        """Move what was written since the last call to `log`."""
        with self._lock:
            gfns, self._gfns = self._gfns, set()
        log.add_pages(np.fromiter(gfns, dtype=np.uint64, count=len(gfns)))
