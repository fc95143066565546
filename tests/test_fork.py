# tier: unit
"""What the child of a fork has: copies of its own, and a typed error for what was half changed."""

from __future__ import annotations

import os
import select
import threading
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from model import canonical, events, ranges

from pysharedpages import DirtyLog, GuestMemory, SharedPages, SharedPagesError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the host has no fork")


def in_child(body: Callable[[], bool]) -> bool:
    """Whether `body` returned True in the child of a fork."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if body() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_child_has_a_copy_of_its_own() -> None:
    pages = SharedPages(1000)
    pages.share(5)
    held = pages.snapshot()

    def child() -> bool:
        pages.share(7)
        return canonical(pages.get_list()) == [(5, 6), (7, 8)] and canonical(held.ranges()) == [
            (5, 6)
        ]

    assert in_child(child)
    assert canonical(pages.get_list()) == [(5, 6)]


def test_the_child_has_an_eventfd_of_its_own() -> None:
    pages = SharedPages(1000)
    fd = pages.fileno()

    def child() -> bool:
        pages.share(5)
        return fd == pages.fileno() and select.select([fd], [], [], 0)[0] == [fd]

    assert in_child(child)
    assert select.select([fd], [], [], 0)[0] == []
    pages.share(6)
    assert select.select([fd], [], [], 0)[0] == [fd]


def test_what_another_thread_was_changing_is_refused() -> None:
    pages = SharedPages()
    log = DirtyLog(GuestMemory([(0, 0, 2**31 - 1)]))
    batch = events(*((gfn, 1, True) for gfn in range(0, 40000, 2)))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            pages.apply(batch)
            pages.reset("private")
            log.add_ranges(ranges((0, 10)))

    writer = threading.Thread(target=write)
    writer.start()
    refused = 0

    def child() -> bool:
        try:
            pages.share(1)
            log.add_pages(np.array([1], np.uint64))
        except SharedPagesError:
            return False
        return True

    try:
        for _ in range(40):
            refused += not in_child(child)
    finally:
        stop.set()
        writer.join()
    assert refused
    pages.share(1)
    assert 1 in pages
