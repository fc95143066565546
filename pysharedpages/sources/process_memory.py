"""Dirty pages of this process's own memory, from the kernel's write tracking.

Floor: sources. Turns the addresses that `_pagemap` finds written into gfns and hands them to a log
in batches of bounded size. Invariant: a page that the kernel was told to protect again is in the
log, or is held here and comes first in the next collection.
"""

import ctypes
import mmap
import operator
import os
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from pysharedpages.errors import ClosedError, RangeError, SharedPagesError
from pysharedpages.sources import _pagemap

if TYPE_CHECKING:
    from typing_extensions import Buffer

PAGE_SIZE: Final = 4096
GFN_LIMIT: Final = 1 << 52


class RangeLog(Protocol):
    """What a source needs of a log; a `DirtyLog` is one."""

    def add_ranges(self, ranges: npt.NDArray[np.uint64], /) -> object:
        """Add half-open ranges of gfns, (n, 2) uint64, sorted and disjoint."""


class ProcessMemory:
    """Tracks the writes to a mapping of this process, as the memory of a guest it runs.

    `address` and `length` (bytes, multiples of the host's page size) name the mapping, `gfn` the
    guest frame of its first page. Counted are all writes by threads of this process, in user mode
    and by its system calls, and a KVM guest's. Not counted: a device's writes to pinned memory
    (VFIO, direct I/O under way), and writes by other processes or through other mappings.

    A page costs 1 to 3 us at its first write after a collection, for the page fault, and a few ns
    a collection while it is present, written or not. Holes of private memory cost nothing.

    * **Precision.** In private anonymous memory the pages written, and pages first read (the zero
      page appears there), which is harmless. A transparent huge page counts as a whole when it
      first appears; its later writes count by 4 KiB, for the kernel splits it at the first of
      them. To keep reports exact, the mapping is therefore forbidden to gain huge pages
      (MADV_NOHUGEPAGE, which nothing undoes), unless `huge_pages` is true.
    * **Shared and file mappings** hold data that no page-table entry of this process tells of: the
      first collection reports the whole mapping, later ones also neighbours of newly touched
      pages, once. Holes cost the page tables to mark them, 2 GiB and seconds for a terabyte.
      Pages of hugetlbfs count as a whole.
    * **Discarded memory** (MADV_DONTNEED, MADV_REMOVE, munmap) is invisible: the caller adds it to
      the log. A discarded page that is written again is reported.
    * **Fork.** The child's memory is not tracked, and the inherited object still means the
      parent's: in the child `collect` raises ClosedError, and `close` frees the child's
      descriptors alone. The parent's tracking goes on, and loses nothing.

    Thread-safe. The mapping must outlive the source. `complete` is True: the first collection, and
    no later one, reports every page that ever held data. A second migration to another host takes
    a source of its own.

    Raises RangeError for an address, length or gfn that is unaligned, negative or out of bounds,
    or a range that is not mapped throughout; TypeError for numbers that are no integers;
    SharedPagesError where the host cannot track (`available` tells) or the range is tracked
    already; MemoryError. After an error nothing has changed.

    Source: see `_pagemap`.
    """

    complete: Final = True

    def __init__(
        self, address: int, length: int, gfn: int = 0, *, huge_pages: bool = False
    ) -> None:
        self._start = _aligned("address", address)
        length = _aligned("length", length)
        if length == 0:
            raise RangeError("length 0: at least one page is tracked")
        self._stop = self._start + length
        self._gfn = operator.index(gfn)
        self._npages = length // PAGE_SIZE
        if not 0 <= self._gfn <= GFN_LIMIT - self._npages:
            raise RangeError(
                f"gfn {self._gfn} with {self._npages} pages: gfns are 0 to below {GFN_LIMIT}"
            )
        _pagemap.check_host()
        private = _pagemap.is_private_anonymous(self._start, self._stop)
        populated = _pagemap.PAGE_IS_PRESENT | _pagemap.PAGE_IS_SWAPPED
        self._watch = _pagemap.WriteWatch(self._start, self._stop, populated if private else 0)
        if not huge_pages:
            try:
                _pagemap.forbid_huge_pages(self._start, length)
            except BaseException:
                self._watch.close()
                raise
        self._whole_is_due = not private
        self._anchor: object = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @classmethod
    def over(cls, buffer: "Buffer", gfn: int = 0, *, huge_pages: bool = False) -> Self:
        """Track a writable, C-contiguous buffer (an `mmap.mmap`, say), and hold it until closed.

        Its address and size in bytes must be multiples of the host's page size. Raises TypeError
        for a buffer that is read-only or not contiguous, otherwise as the class.
        """
        with memoryview(buffer) as view:
            if view.nbytes == 0:
                raise RangeError("buffer of 0 bytes: at least one page is tracked")
            anchor = ctypes.c_char.from_buffer(view)
            source = cls(ctypes.addressof(anchor), view.nbytes, gfn, huge_pages=huge_pages)
        source._anchor = anchor
        return source

    @classmethod
    def available(cls) -> str | None:
        """Return None where this host can track writes, else one sentence that says why not.

        Tries it on one page of its own; under a millisecond.
        """
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            with cls.over(page) as source:
                source.collect(_Nowhere())
        except SharedPagesError as error:
            return str(error)
        return None

    def collect(self, log: RangeLog) -> int:
        """Add the pages written since the last collection to the log; return their number.

        A page written while this runs is in this collection or in the next one. Each call of
        `log.add_ranges` gets at most 8192 ranges. When it raises, or the kernel does, the pages
        found so far and not yet in the log come first in the next collection.

        Raises ClosedError after `close` and in a forked child, SharedPagesError when a part of the
        range was mapped anew, MemoryError, and whatever the log raises.
        """
        self._check_owner()
        with self._lock:
            if not self._watch.close.alive:
                raise ClosedError(f"the source of {self._start:#x} is closed")
            if self._whole_is_due:
                return self._collect_whole(log)
            added = self._deliver(log)
            position = self._start
            while position < self._stop:
                position = self._watch.scan(position)
                added += self._deliver(log)
            return added

    def close(self) -> None:
        """Stop tracking and release the buffer; further calls do nothing."""
        if os.getpid() == self._pid:
            with self._lock:
                self._watch.close()
        else:
            # A thread that held the lock at the fork does not exist here to release it.
            self._watch.close()
        self._anchor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        length = self._stop - self._start
        return f"ProcessMemory(address={self._start:#x}, length={length}, gfn={self._gfn})"

    def _check_owner(self) -> None:
        if os.getpid() != self._pid:
            raise ClosedError(
                f"the source of {self._start:#x} belongs to process {self._pid}, "
                f"not to its forked child {os.getpid()}"
            )

    def _collect_whole(self, log: RangeLog) -> int:
        """Protect the whole range, then report all of it, whatever the scan makes of its holes.

        Reported last: were it first, the log could be taken, and a page written after that be
        protected as if it had been reported since.
        """
        position = self._start
        while position < self._stop:
            position = self._watch.scan(position)
            self._watch.discard()
        log.add_ranges(np.array([[self._gfn, self._gfn + self._npages]], np.uint64))
        self._whole_is_due = False
        return self._npages

    def _deliver(self, log: RangeLog) -> int:
        regions = self._watch.regions()
        if not len(regions):
            return 0
        ranges = (regions - np.uint64(self._start)) // np.uint64(PAGE_SIZE) + np.uint64(self._gfn)
        log.add_ranges(ranges)
        self._watch.discard()
        return int((ranges[:, 1] - ranges[:, 0]).sum())


class _Nowhere:
    """A log that keeps nothing."""

    def add_ranges(self, ranges: npt.NDArray[np.uint64], /) -> None:
        """Drop the ranges."""


def _aligned(name: str, value: int) -> int:
    number = operator.index(value)
    if number < 0 or number % mmap.PAGESIZE:
        raise RangeError(f"{name} {number} is not a multiple of {mmap.PAGESIZE}, 0 or more")
    return number
