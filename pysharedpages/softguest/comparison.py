"""The judgement: every page the guest ever wrote, read on both hosts as the guest reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pysharedpages.softguest.cipher import HostCipher
from pysharedpages.testing.space import AddressSpace

__all__ = ["Comparison", "StoppedGuest", "View", "compare", "ranges_of"]

_REPORT_PAGES: Final = 256


@dataclass(frozen=True)
class View:
    """A host as the guest that runs there sees it: its memory, through its key."""

    space: AddressSpace
    cipher: HostCipher


class StoppedGuest(Protocol):
    """What a guest that runs nowhere can be asked; its pages go by index."""

    def touched(self) -> Sequence[int]:
        """The indices of every page ever written."""

    def gfn(self, index: int, /) -> int:
        """Where the page lies."""

    def seen(self, index: int, host: View, /) -> bytes:
        """What the guest reads from the page when it runs on that host."""

    def wrote(self, index: int, page: bytes, /) -> bool:
        """Whether `page` is what the guest last wrote there."""

    def shared_ranges(self) -> NDArray[np.uint64]:
        """The guest's own table as a list: the shared gfns, `(n, 2)` uint64, sorted, coalesced."""


@dataclass(frozen=True)
class Comparison:
    """What was compared, the gfns that differ, and whether the lists of shared pages agree."""

    pages_compared: int
    differing: list[int]
    list_equal: bool

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return self.list_equal and not self.differing


def compare(
    guest: StoppedGuest,
    hosts: Sequence[View],
    shared: NDArray[np.uint64],
    compared: Callable[[int], None],
) -> Comparison:
    """Compare a stopped guest's memory on all `hosts`, through the guest's own table.

    A page differs unless all hosts show the same, and that is what the guest last wrote; the list
    differs unless `shared`, the destination's, equals the table. `compared` is told of every few
    pages that are done.
    """
    differing = []
    indices = guest.touched()
    for done, index in enumerate(indices, 1):
        first, *others = (guest.seen(index, host) for host in hosts)
        if any(page != first for page in others) or not guest.wrote(index, first):
            differing.append(guest.gfn(index))
        if done % _REPORT_PAGES == 0:
            compared(_REPORT_PAGES)
    compared(len(indices) % _REPORT_PAGES)
    list_equal = np.array_equal(shared, guest.shared_ranges())
    return Comparison(len(indices), differing, list_equal)


def ranges_of(gfns: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sorted gfns as ranges, `(n, 2)` uint64, coalesced."""
    if not len(gfns):
        return np.empty((0, 2), dtype=np.uint64)
    breaks = np.flatnonzero(np.diff(gfns) != 1)
    starts = gfns[np.concatenate(([0], breaks + 1))]
    stops = gfns[np.concatenate((breaks, [len(gfns) - 1]))] + np.uint64(1)
    return np.stack((starts, stops), axis=1)
