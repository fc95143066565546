"""The guest's ledger: what it knows of its own pages, kept in its own memory.

Eight bytes a page in use, by index: bit 0 says shared, the bits above count how often the page was
written. The ledger's pages are shared, and at the end of the guest's memory; they travel as all
others do. Nothing here asks the tracker: the ledger is what the tracker is judged by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.errors import RangeError
from pysharedpages.softguest.comparison import View, ranges_of
from pysharedpages.softguest.layout import Layout
from pysharedpages.testing.space import PAGE_SIZE, AddressSpace
from pysharedpages.testing.steps import STAMP_WORDS, Assume, Convert, Retype, Stamp, Step

__all__ = ["Ledger", "LedgerView"]

_ENTRY_BYTES: Final = 8
_GFN_BITS: Final = 40


class Ledger:
    """Where the pages in use lie, and their entries; makes the steps that keep it."""

    def __init__(self, memory_pages: int, resident_pages: int) -> None:
        self.npages = -(-resident_pages * _ENTRY_BYTES // PAGE_SIZE)
        if memory_pages < resident_pages + self.npages:
            raise RangeError(
                f"{resident_pages} resident pages and {self.npages} of the guest's ledger: "
                f"the memory has {memory_pages}"
            )
        self.gfn = memory_pages - self.npages
        self.layout = Layout(self.gfn, resident_pages)

    def convert_itself(self) -> Step:
        """The guest shares the ledger's own pages."""
        return Convert(self.gfn, self.npages, True)

    def stamp(self, indices: range) -> Iterator[Step]:
        """The guest writes pages anew."""
        for gfn, npages, entry in self._runs(indices):
            yield Stamp(gfn, npages, entry)

    def retype(self, indices: range, shared: bool) -> Iterator[Step]:
        """The guest converts pages."""
        for gfn, npages, entry in self._runs(indices):
            yield Retype(gfn, npages, entry, shared)

    def assume(self, index: int, shared: bool) -> Step:
        """The guest takes a page for another type, and tells nobody."""
        return Assume(self.gfn * PAGE_SIZE + index * _ENTRY_BYTES, shared)

    def read(self, space: AddressSpace) -> bytes:
        """All of it, as it lies on a host."""
        return b"".join(space.read(self.gfn + page) for page in range(self.npages))

    def _runs(self, indices: range) -> Iterator[tuple[int, int, int]]:
        index = indices.start
        for gfn, npages in self.layout.runs(indices.start, indices.stop):
            yield gfn, npages, self.gfn * PAGE_SIZE + index * _ENTRY_BYTES
            index += npages


class LedgerView:
    """A stopped guest by the ledger that lies in `space`; see `comparison.StoppedGuest`.

    The ledger's own pages come after the pages in use. Of those only that all hosts show the same
    is known: their content is what this trusts.
    """

    def __init__(self, ledger: Ledger, space: AddressSpace) -> None:
        self._ledger = ledger
        self._resident = ledger.layout.resident_pages
        self._entries = np.frombuffer(ledger.read(space), np.uint64)[: self._resident]

    def touched(self) -> Sequence[int]:
        """See `comparison.StoppedGuest`."""
        written = np.flatnonzero(self._entries >> np.uint64(1)).tolist()
        return [*written, *range(self._resident, self._resident + self._ledger.npages)]

    def gfn(self, index: int) -> int:
        """See `comparison.StoppedGuest`."""
        beyond = index - self._resident
        return self._ledger.layout.gfn(index) if beyond < 0 else self._ledger.gfn + beyond

    def seen(self, index: int, host: View) -> bytes:
        """See `comparison.StoppedGuest`."""
        gfn = self.gfn(index)
        raw = host.space.read(gfn)
        return raw if self.is_shared(index) else host.cipher.decrypt(gfn, raw)

    def is_shared(self, index: int) -> bool:
        """The type of a page, as the guest has it."""
        return index >= self._resident or bool(self._entries[index] & np.uint64(1))

    def wrote(self, index: int, page: bytes) -> bool:
        """See `comparison.StoppedGuest`."""
        return index >= self._resident or _version(page, self.gfn(index)) == self._version(index)

    def wrote_ever(self, index: int, page: bytes) -> bool:
        """Whether `page` is what the guest wrote there at some time."""
        return (_version(page, self.gfn(index)) or 0) in range(1, self._version(index) + 1)

    def _version(self, index: int) -> int:
        return int(self._entries[index]) >> 1

    def shared_ranges(self) -> NDArray[np.uint64]:
        """See `comparison.StoppedGuest`."""
        shared = np.flatnonzero(self._entries & np.uint64(1))
        own = np.arange(self._ledger.gfn, self._ledger.gfn + self._ledger.npages, dtype=np.uint64)
        return ranges_of(np.concatenate((self._ledger.layout.gfns(shared), own)))


def _version(page: bytes, gfn: int) -> int | None:
    """Which stamp of the page at `gfn` this is; None if it is none."""
    word = page[:_ENTRY_BYTES]
    version, at = divmod(int.from_bytes(word, "little"), 1 << _GFN_BITS)
    return version if at == gfn and page.startswith(word * STAMP_WORDS) else None
