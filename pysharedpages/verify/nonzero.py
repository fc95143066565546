"""Which pages hold data, found without touching those that never did.

Floor: verify. To read a hole of a mapping is to fill it: with a page table over the zero page in
private memory, with a page of its own in shared memory. So holes are asked of the kernel first:
/proc/self/pagemap knows those of private anonymous memory, SEEK_DATA those of files, a memfd
among them. Only what is left is read, a few MiB at a time.

Sources: Documentation/admin-guide/mm/pagemap.rst (bits 63 and 62: present, swapped; readable
without privilege since Linux 4.2); lseek(2). Swapped pages count as data in both.
"""

from __future__ import annotations

import errno
import mmap
import operator
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet
from pysharedpages.errors import RangeError, SharedPagesError
from pysharedpages.sources import _pagemap

__all__ = ["nonzero_pages", "nonzero_pages_of_file"]

_GFN_LIMIT: Final = 1 << 52
_HELD: Final = np.uint64(62)
# Entries of pagemap a read: 1 MiB, 512 MiB of memory of 4 KiB pages. Larger gained nothing.
_ENTRIES: Final = 1 << 17
# Bytes read at once; pages of a range that make a read of their own worth its call; ranges a batch.
_CHUNK_BYTES: Final = 4 << 20
_LONG: Final = 64
_RANGES: Final = 4096
_EXTENTS: Final = 65536

_Spans = Iterable[NDArray[np.uint64]]


def nonzero_pages(
    buffer: Any, gfn: int = 0, *, page_size: int = 4096, within: PageSet | None = None
) -> PageSet:
    """The pages of guest memory that hold anything but zeros, by gfn.

    `buffer` is the memory itself (an mmap, an array), a whole number of pages of `page_size` bytes,
    and `gfn` its first page; `within` limits what is looked at. Never-touched private anonymous
    memory is passed over: 1 TiB of it takes under a second. Other memory is read throughout,
    and shared memory then grows by its holes: use `nonzero_pages_of_file` there. A few MiB of
    scratch. The memory must not change meanwhile for the answer to be of one instant.

    Raises RangeError for a page size that is no power of two from 8 on, a buffer that is not whole
    pages, and gfns outside [0, 2^52); TypeError for what is no contiguous buffer; SharedPagesError
    where Linux does not tell what is mapped.
    """
    data = _bytes_of(buffer)
    if not _pages_of(data.nbytes, gfn, page_size):
        return PageSet()
    words = data.reshape(-1, page_size).view(np.uint64)
    address = int(data.__array_interface__["data"][0])
    if _is_anonymous(address, address + data.nbytes):
        look = _covering(_spans_held(address, data.nbytes), gfn, len(words), page_size)
    else:
        look = PageSet.from_ranges([(gfn, gfn + len(words))])
    return _scan(words, gfn, look if within is None else look & within)


def nonzero_pages_of_file(
    fd: int,
    gfn: int = 0,
    *,
    offset: int = 0,
    length: int | None = None,
    page_size: int = 4096,
    within: PageSet | None = None,
) -> PageSet:
    """The pages of a file - a memfd, shared memory, a dump - that hold anything but zeros, by gfn.

    Bytes [offset, offset + length) of the file, by default up to its end, are the pages from `gfn`
    on. Holes are neither read nor filled; the file's position is left alone.

    Raises as `nonzero_pages`, and SharedPagesError for what is no regular file, or cannot be opened
    again or mapped (guest_memfd: its private memory holds what no host can read).
    """
    try:
        status = os.fstat(operator.index(fd))
        if not stat.S_ISREG(status.st_mode):
            raise SharedPagesError(f"file {fd} is no regular file: nothing tells its size")
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SharedPagesError(f"cannot open file {fd} again: {error.strerror}") from error
    try:
        size, offset = status.st_size, operator.index(offset)
        length = size - offset if length is None else operator.index(length)
        if offset < 0 or length < 0 or offset + length > size:
            raise RangeError(f"bytes {offset} to {offset + length} of a file of {size}")
        npages = _pages_of(length, gfn, page_size)
        if not npages:
            return PageSet()
        mapping = mmap.mmap(own, offset + length, mmap.MAP_SHARED, mmap.PROT_READ)
        data = np.frombuffer(mapping, np.uint8)[offset:]
        words = data.reshape(-1, page_size).view(np.uint64)
        look = _covering(_spans_of_file(own, offset, offset + length), gfn, npages, page_size)
        return _scan(words, gfn, look if within is None else look & within)
    except OSError as error:
        raise SharedPagesError(f"cannot read file {fd}: {error.strerror}") from error
    finally:
        os.close(own)


def _bytes_of(buffer: Any) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(buffer, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise TypeError(f"memory is a contiguous buffer of bytes: {error}") from None


def _pages_of(nbytes: int, gfn: int, page_size: int) -> int:
    """How many pages that is, after checking that it is whole pages of a guest."""
    if operator.index(page_size) < 8 or page_size & (page_size - 1):
        raise RangeError(f"page_size is {page_size}: a power of two, 8 or more")
    npages, rest = divmod(nbytes, page_size)
    if rest:
        raise RangeError(f"{nbytes} bytes are not whole pages of {page_size}")
    if operator.index(gfn) < 0 or gfn + npages > _GFN_LIMIT:
        raise RangeError(f"{npages} pages from gfn {gfn} on: gfns are from 0 to below 2^52")
    return npages


def _is_anonymous(start: int, stop: int) -> bool:
    return sys.platform.startswith("linux") and _pagemap.is_private_anonymous(start, stop)


def _spans_held(address: int, length: int) -> Iterator[NDArray[np.uint64]]:
    """Bytes of the memory, from its start on, that have pages of their own, (n, 2)."""
    host = mmap.PAGESIZE
    first, last = address // host, (address + length - 1) // host
    entries = np.empty(_ENTRIES, np.uint64)
    with _pagemap.open_proc("pagemap") as pagemap:
        pagemap.seek(first * 8)
        while first <= last:
            room = entries[: last + 1 - first]
            count = (pagemap.readinto(room.data) or 0) // 8
            if not count:
                raise SharedPagesError(f"/proc/self/pagemap ends before {first * host:#x}")
            if room[:count].any():
                edges = np.diff((room[:count] >> _HELD) != 0, prepend=False, append=False)
                spans = np.flatnonzero(edges).reshape(-1, 2) + first
                yield np.clip(spans * host - address, 0, length).astype(np.uint64)
            first += count


def _spans_of_file(fd: int, start: int, stop: int) -> Iterator[NDArray[np.uint64]]:
    """Bytes of the file, from `start` on, that are no hole, (n, 2)."""
    found: list[tuple[int, int]] = []
    position = start
    while position < stop:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        position = min(os.lseek(fd, data, os.SEEK_HOLE), stop)
        if data < stop:
            found.append((data - start, position - start))
        if len(found) == _EXTENTS:
            yield np.array(found, np.uint64)
            found.clear()
    if found:
        yield np.array(found, np.uint64)


def _covering(spans: _Spans, gfn: int, npages: int, page_size: int) -> PageSet:
    """The pages that some span of bytes touches."""
    pages = PageSet()
    size = np.uint64(page_size)
    for table in spans:
        ranges = np.stack((table[:, 0] // size, -(-table[:, 1].astype(np.int64) // page_size)), 1)
        pages |= PageSet.from_ranges(ranges.astype(np.uint64) + np.uint64(gfn))
    return pages


def _scan(words: NDArray[np.uint64], gfn: int, look: PageSet) -> PageSet:
    """The pages of `look`, rows of `words`, that are not all zero."""
    found = PageSet()
    chunk = max(1, _CHUNK_BYTES // words.strides[0])
    for batch in look.iter_ranges(_RANGES):
        is_long = batch[:, 1] - batch[:, 0] >= _LONG
        for start, stop in batch[is_long].tolist():
            for first in range(start, stop, chunk):
                rows = words[first - gfn : min(first + chunk, stop) - gfn]
                bits = np.packbits(rows.any(axis=1), bitorder="little")
                found |= PageSet.from_bitmap(bits, first)
        pages = PageSet.from_ranges(batch[~is_long]).pages()
        for part in range(0, len(pages), chunk):
            some = pages[part : part + chunk]
            held = words[some - np.uint64(gfn)].any(axis=1)
            found |= PageSet.from_pages(some[held])
    return found
