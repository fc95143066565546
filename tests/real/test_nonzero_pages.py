# tier: real
"""nonzero_pages over this host's own memory: what it finds, and that it fills no hole."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model import names

from pysharedpages import PageSet, RangeError, SharedPagesError
from pysharedpages.verify import nonzero_pages, nonzero_pages_of_file

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="holes are asked of Linux"
)

PAGE = mmap.PAGESIZE
TIB = 1 << 40
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
MADV_PAGEOUT = 21


def resident() -> int:
    """Bytes of memory and of page tables that this process holds."""
    text = Path("/proc/self/status").read_text()
    rows = dict(line.split(":", 1) for line in text.splitlines())
    return sum(int(rows[name].split()[0]) for name in ("RssAnon", "RssShmem", "VmPTE")) << 10


def gfns(pages: PageSet) -> list[int]:
    return list(pages)


@pytest.fixture
def memfd() -> Iterator[int]:
    """An empty file in memory."""
    fd = os.memfd_create("guest")
    yield fd
    os.close(fd)


@pytest.mark.parametrize("flags", [PRIVATE, SHARED], ids=["private", "shared"])
def test_any_byte_of_a_page_counts(flags: int) -> None:
    with mmap.mmap(-1, 4096 * PAGE, flags=flags) as memory:
        for page, byte in ((0, 0), (3, PAGE - 1), (4, 17), (9, 8), (4095, PAGE - 1)):
            memory[page * PAGE + byte] = 1
        memory[7 * PAGE] = 0  # touched, and as empty as before
        assert gfns(nonzero_pages(memory, 100, page_size=PAGE)) == [100, 103, 104, 109, 4195]
        within = PageSet.from_ranges([(0, 104), (109, 5000)])
        found = nonzero_pages(memory, 100, page_size=PAGE, within=within)
        assert gfns(found) == [100, 103, 109, 4195]
        memory[3 * PAGE : 4 * PAGE] = bytes(PAGE)
        assert gfns(nonzero_pages(memory, page_size=PAGE)) == [0, 4, 9, 4095]


def test_a_sparse_terabyte_is_read_where_it_was_touched() -> None:
    with mmap.mmap(-1, TIB, flags=PRIVATE) as memory:
        touched = [0, 1, 512, 777_777, (1 << 26) + 5, TIB // PAGE - 1]
        for page in touched:
            memory[page * PAGE] = 0xFF
        before = resident()
        assert gfns(nonzero_pages(memory, page_size=PAGE)) == touched
        assert resident() - before < 16 << 20


def test_a_hole_of_a_sparse_file_is_neither_read_nor_filled(memfd: int) -> None:
    os.ftruncate(memfd, TIB)
    touched = [0, 5, 777_777, TIB // PAGE - 1]
    for page in touched:
        os.pwrite(memfd, b"x", (page + 1) * PAGE - 1)
    os.pwrite(memfd, bytes(PAGE), 9 * PAGE)
    os.lseek(memfd, 42, os.SEEK_SET)
    blocks, before = os.fstat(memfd).st_blocks, resident()
    assert gfns(nonzero_pages_of_file(memfd, page_size=PAGE)) == touched
    assert os.fstat(memfd).st_blocks == blocks
    assert resident() - before < 16 << 20
    assert os.lseek(memfd, 0, os.SEEK_CUR) == 42


def test_a_part_of_a_file(memfd: int) -> None:
    os.ftruncate(memfd, 64 * PAGE)
    for page in (0, 3, 4, 10, 63):
        os.pwrite(memfd, b"x", page * PAGE)
    found = nonzero_pages_of_file(memfd, 1000, offset=3 * PAGE, length=8 * PAGE, page_size=PAGE)
    assert gfns(found) == [1000, 1001, 1007]
    within = PageSet.from_pages([0, 10, 11])
    assert gfns(nonzero_pages_of_file(memfd, page_size=PAGE, within=within)) == [0, 10]
    assert gfns(nonzero_pages_of_file(memfd, offset=64 * PAGE)) == []


def test_a_file_on_a_disk() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(2 * PAGE) + b"x" + bytes(2 * PAGE - 1))
        file.flush()
        assert gfns(nonzero_pages_of_file(file.fileno(), 7, page_size=PAGE)) == [9]


def test_data_that_another_mapping_wrote_is_found(memfd: int) -> None:
    os.ftruncate(memfd, 16 * PAGE)
    with mmap.mmap(memfd, 16 * PAGE) as one, mmap.mmap(memfd, 16 * PAGE) as other:
        other[5 * PAGE] = 1
        assert gfns(nonzero_pages(one, page_size=PAGE)) == [5]


def test_a_private_copy_of_a_file_is_read(memfd: int) -> None:
    os.ftruncate(memfd, 16 * PAGE)
    os.pwrite(memfd, b"x", 3 * PAGE)
    with mmap.mmap(memfd, 16 * PAGE, flags=mmap.MAP_PRIVATE) as copy:
        copy[5 * PAGE] = 1
        assert gfns(nonzero_pages(copy, page_size=PAGE)) == [3, 5]


def test_swapped_pages_hold_data() -> None:
    with mmap.mmap(-1, 64 * PAGE, flags=PRIVATE) as memory:
        for page in (1, 40):
            memory[page * PAGE] = 1
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(64 * PAGE), MADV_PAGEOUT):
            pytest.skip(f"no MADV_PAGEOUT: {os.strerror(ctypes.get_errno())}")
        assert gfns(nonzero_pages(memory, page_size=PAGE)) == [1, 40]


@pytest.mark.parametrize("page_size", [8, 512, PAGE, 16 * PAGE])
def test_guest_pages_of_any_size_against_numpy(
    page_size: int, rng: np.random.Generator, scale: float
) -> None:
    """The buffer begins anywhere in a host's page; the oracle looks at every byte."""
    npages = 4096 * PAGE // page_size if page_size >= PAGE else 8192
    for _ in range(max(1, round(5 * scale))):
        with mmap.mmap(-1, npages * page_size + PAGE, flags=PRIVATE) as memory:
            offset = int(rng.integers(0, PAGE // 8)) * 8
            data = np.frombuffer(memory, np.uint8)[offset : offset + npages * page_size]
            for byte in rng.integers(0, data.size, 200).tolist():
                data[byte : byte + int(rng.integers(1, 2 * PAGE))] = 1
            expected = np.flatnonzero(data.reshape(npages, page_size).any(axis=1)).tolist()
            assert gfns(nonzero_pages(data, page_size=page_size)) == expected
            del data


def test_arrays_and_bytes_are_memory_too() -> None:
    assert gfns(nonzero_pages(bytes(8) + b"\1" + bytes(15), page_size=8)) == [1]
    assert gfns(nonzero_pages(np.arange(512 * 5, dtype=np.uint64) // 1024)) == [2, 3, 4]
    assert gfns(nonzero_pages(b"")) == []


BAD: list[tuple[Any, dict[str, Any], type[Exception], list[int]]] = [
    (bytes(4095), {}, RangeError, [4095]),
    (bytes(4096), {"page_size": 0}, RangeError, [0]),
    (bytes(4096), {"page_size": 1000}, RangeError, [1000]),
    (bytes(4096), {"page_size": 4}, RangeError, [4]),
    (bytes(8192), {"gfn": 2**52 - 1}, RangeError, [2**52 - 1]),
    (bytes(8192), {"gfn": -1}, RangeError, [-1]),
    (bytes(4096), {"gfn": 0.5}, TypeError, []),
    ("text", {}, TypeError, []),
    (np.zeros((64, 64), np.uint8)[:, ::2], {}, TypeError, []),
]


@pytest.mark.parametrize(("buffer", "more", "error", "values"), BAD)
def test_what_is_no_memory(
    buffer: Any, more: dict[str, Any], error: type[Exception], values: list[int]
) -> None:
    with pytest.raises(error) as caught:
        nonzero_pages(buffer, **more)
    if values:
        names(caught.value, values)


def test_what_is_no_file(memfd: int) -> None:
    os.ftruncate(memfd, 8 * PAGE)
    for offset, length in ((-PAGE, None), (0, 9 * PAGE), (9 * PAGE, None), (0, -1)):
        with pytest.raises(RangeError) as caught:
            nonzero_pages_of_file(memfd, offset=offset, length=length)
        names(caught.value, [8 * PAGE])
    with pytest.raises(RangeError):
        nonzero_pages_of_file(memfd, length=PAGE - 8, page_size=PAGE)
    with pytest.raises(SharedPagesError, match="file 1000000"):
        nonzero_pages_of_file(1_000_000)
    read, write = os.pipe()
    try:
        with pytest.raises(SharedPagesError, match="no regular file"):
            nonzero_pages_of_file(read)
    finally:
        os.close(read)
        os.close(write)
    assert os.fstat(memfd).st_size == 8 * PAGE
