"""The guest: its own table of page types, and what it last wrote to every page.

Nothing here asks the tracker what is shared: the table is the guest's, as the C-bits of real
page tables are, and it is what the tracker is judged by. A page has one owner thread; only that
thread may pass its index to `take`. After the owners stopped, any thread may look.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import SharedPages
from pysharedpages.softguest.cipher import PageCipher
from pysharedpages.softguest.comparison import View, ranges_of
from pysharedpages.softguest.layout import Layout
from pysharedpages.softguest.workload import Step
from pysharedpages.testing.space import PAGE_SIZE, AddressSpace

__all__ = ["Guest"]

_STAMP = struct.Struct("<QQQQ")


class Guest:
    """The memory of one guest, seen from inside.

    `stored` is called with the gfn after each store, for hosts whose kernel does not see them.
    """

    def __init__(
        self,
        layout: Layout,
        space: AddressSpace,
        cipher: PageCipher,
        pages: SharedPages,
        *,
        seed: int = 0,
        stored: Callable[[int], None] | None = None,
    ) -> None:
        self.layout = layout
        self._space = space
        self._cipher = cipher
        self._pages = pages
        self._seed = seed
        self._stored = stored
        self._shared = bytearray(layout.resident_pages)
        self._versions = array("Q", bytes(8 * layout.resident_pages))

    def take(self, step: Step) -> None:
        """Do one step: convert the run through every type named, then write all of it anew.

        A conversion is visible to the host before the first write under the new type, and what
        the pages held is not used after it: the two duties of a guest in a migration.
        """
        for shared in step.types:
            self._convert(step.start, step.stop, shared)
        for index in range(step.start, step.stop):
            self._write(index)

    def touched(self) -> list[int]:
        """The indices of every page ever written."""
        return [index for index, version in enumerate(self._versions) if version]

    def is_shared(self, index: int) -> bool:
        """The type of a page, by the guest's own table."""
        return bool(self._shared[index])

    def shared_ranges(self) -> NDArray[np.uint64]:
        """The table as a list: the shared gfns, `(n, 2)` uint64, sorted and coalesced."""
        return ranges_of(self.layout.gfns(np.flatnonzero(np.frombuffer(self._shared, np.uint8))))

    def written(self, index: int) -> bytes:
        """What the guest last wrote to the page."""
        version = self._versions[index]
        stamp = _STAMP.pack(
            self._seed & (2**64 - 1), self.layout.gfn(index), version, ~version & (2**64 - 1)
        )
        return stamp * (PAGE_SIZE // _STAMP.size)

    def wrote(self, index: int, page: bytes) -> bool:
        """Whether `page` is what the guest last wrote there."""
        return page == self.written(index)

    def gfn(self, index: int) -> int:
        """Where the page lies."""
        return self.layout.gfn(index)

    def seen(self, index: int, host: View) -> bytes:
        """What the guest reads from the page when it runs on that host."""
        gfn = self.layout.gfn(index)
        raw = host.space.read(gfn)
        return raw if self._shared[index] else host.cipher.decrypt(gfn, raw)

    def _convert(self, start: int, stop: int, shared: bool) -> None:
        self._shared[start:stop] = bytes((shared,)) * (stop - start)
        call = self._pages.share if shared else self._pages.unshare
        for gfn, npages in self.layout.runs(start, stop):
            call(gfn, npages)

    def _write(self, index: int) -> None:
        self._versions[index] += 1
        page = self.written(index)
        gfn = self.layout.gfn(index)
        if not self._shared[index]:
            page = self._cipher.encrypt(gfn, page)
        self._space.write(gfn, page)
        if self._stored is not None:
            self._stored(gfn)
