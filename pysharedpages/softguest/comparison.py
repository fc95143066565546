"""The judgement: every page the guest ever wrote, read on both hosts as the guest reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pysharedpages.softguest.cipher import PageCipher
from pysharedpages.softguest.guest import Guest
from pysharedpages.softguest.host import DestinationHost
from pysharedpages.softguest.space import AddressSpace

__all__ = ["Comparison", "View", "compare"]

_REPORT_PAGES: Final = 256


@dataclass(frozen=True)
class View:
    """A host as the guest that runs there sees it: its memory, through its key."""

    space: AddressSpace
    cipher: PageCipher


@dataclass(frozen=True)
class Comparison:
    """What was compared, the gfns that differ, and whether the lists of shared pages agree."""

    pages_compared: int
    differing: list[int]
    list_equal: bool


def compare(
    guest: Guest,
    here: View,
    there: View,
    destination: DestinationHost,
    compared: Callable[[int], None],
) -> Comparison:
    """Compare a stopped guest's memory on both hosts, through the guest's own table.

    A page differs unless both hosts show what the guest last wrote; the list differs unless the
    destination's equals the table. `compared` is told of every few pages that are done.
    """
    differing = []
    indices = guest.touched()
    for done, index in enumerate(indices, 1):
        written = guest.written(index)
        seen = (guest.seen(index, host.space, host.cipher) for host in (here, there))
        if any(page != written for page in seen):
            differing.append(guest.layout.gfn(index))
        if done % _REPORT_PAGES == 0:
            compared(_REPORT_PAGES)
    compared(len(indices) % _REPORT_PAGES)
    list_equal = np.array_equal(destination.get_list(), guest.shared_ranges())
    return Comparison(len(indices), differing, list_equal)
