# tier: real
"""ProcessMemory: what it refuses, with the value and the bound, and hosts it cannot work on."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import platform
import re
from collections.abc import Callable

import numpy as np
import pytest

from pysharedpages import RangeError
from pysharedpages.sources import ProcessMemory

REASON = ProcessMemory.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PAGE = 4096
LENGTH = 256 * PAGE


@pytest.fixture
def mapping() -> mmap.mmap:
    """256 pages of private anonymous memory."""
    return mmap.mmap(-1, LENGTH, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def address_of(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        ("address", lambda a: a + 1, "is not a multiple of"),
        ("address", lambda _: -PAGE, "address -4096"),
        ("length", lambda _: PAGE - 1, "length 4095 is not a multiple of"),
        ("length", lambda _: 0, "length 0"),
        ("length", lambda _: -PAGE, "length -4096"),
        ("length", lambda _: 1 << 60, "not mapped throughout"),
        ("length", lambda _: 1 << 80, "below 4503599627370496"),
        ("gfn", lambda _: -1, "gfn -1"),
        ("gfn", lambda _: (1 << 52) - 255, "below 4503599627370496"),
    ],
)
def test_bad_numbers_are_range_errors(
    mapping: mmap.mmap, change: str, value: Callable[[int], int], message: str
) -> None:
    arguments = {"address": address_of(mapping), "length": LENGTH, "gfn": 0}
    arguments[change] = value(arguments["address"])
    with pytest.raises(RangeError, match=message):
        ProcessMemory(arguments["address"], arguments["length"], arguments["gfn"])
    ProcessMemory(address_of(mapping), LENGTH).close()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_floats_are_type_errors(mapping: mmap.mmap, position: int) -> None:
    arguments: list[float] = [address_of(mapping), LENGTH, 0]
    arguments[position] = float(arguments[position])
    with pytest.raises(TypeError, match="float"):
        ProcessMemory(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("buffer", "error"),
    [
        (b"read-only", TypeError),
        (bytearray(), RangeError),
        (bytearray(100), RangeError),
        (np.zeros((4, PAGE), np.uint8)[:, ::2], TypeError),
        (3, TypeError),
    ],
)
def test_bad_buffers(buffer: bytearray, error: type[Exception]) -> None:
    with pytest.raises(error):
        ProcessMemory.over(buffer)


def test_a_foreign_machine_is_refused_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    assert "s390x" in str(ProcessMemory.available())


@pytest.mark.parametrize(
    ("request_code", "code", "message"),
    [
        (0xC018AA3F, errno.EINVAL, "has no UFFD_FEATURE_WP_ASYNC"),
        (0xC020AA00, errno.EINVAL, "userfaultfd cannot watch"),
        (0xC0606610, errno.ENOTTY, "PAGEMAP_SCAN: kernel .* has no such call"),
    ],
)
def test_an_older_kernel_is_refused_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, request_code: int, code: int, message: str
) -> None:
    before = os.listdir("/proc/self/fd")
    real = fcntl.ioctl

    def refuse(fd: int, request: int, argument: bytearray) -> object:
        if request == request_code:
            raise OSError(code, os.strerror(code))
        return real(fd, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    reason = ProcessMemory.available()
    assert reason is not None
    assert re.search(message, reason)
    gc.collect()
    assert os.listdir("/proc/self/fd") == before
