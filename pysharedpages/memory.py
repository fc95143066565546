"""A guest's memory: the slots that KVM has it in.

Floor: memory. A `GuestMemory` is a value; a guest whose slots change has another one from then on.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pysharedpages._core import Memory, PageSet
from pysharedpages.errors import RangeError

__all__ = ["GuestMemory", "bounded"]

_GFN_LIMIT: Final = 1 << 52
_SLOT_MAX_PAGES: Final = (1 << 31) - 1
"""KVM_MEM_MAX_NR_PAGES (virt/kvm/kvm_main.c)."""


def bounded(value: Any, most: int, name: str) -> int:
    """An integer from 0 to `most`, else RangeError."""
    number = operator.index(value)
    if number < 0:
        raise RangeError(f"{name} is {number}, below 0")
    if number > most:
        raise RangeError(f"{name} is {number}, above {most}")
    return number


class GuestMemory:
    """A guest's KVM memory slots: an iterable of (slot, gfn, npages).

    `slot` is the full id, `(as_id << 16) | id`. Slots of one address space do not overlap; those of
    two may name the same gfns, and the guest's pages are the union. Immutable, safe in any thread.

    Raises RangeError for a slot of 0 or more than 2^31 - 1 pages, for pages at or beyond 2^52, for
    two slots of one id, and for two of one address space that overlap.
    """

    __slots__ = ("_memory",)

    def __init__(self, slots: Iterable[tuple[int, int, int]]) -> None:
        table = [_checked(*_three(slot)) for slot in slots]
        try:
            self._memory = Memory([(gfn, npages, slot, 0) for slot, gfn, npages in table])
        except IndexError as error:
            bad, other = error.args
            raise RangeError(_clash(table[bad], table[other])) from None

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """(slot, gfn, npages) by gfn."""
        return (self._memory.at(index) for index in range(len(self._memory)))

    def __len__(self) -> int:
        """The number of slots."""
        return len(self._memory)

    @classmethod
    def _over(cls, memory: Memory) -> GuestMemory:
        made = cls.__new__(cls)
        made._memory = memory
        return made

    @property
    def npages(self) -> int:
        """Pages of all slots; those that two address spaces share count twice."""
        return sum(npages for _, _, npages in self)

    def pages(self) -> PageSet:
        """Every gfn that is memory."""
        return self._memory.pages()

    def to_gfn(self, slot: int, offset: int) -> int:
        """The gfn of a page by its offset in a slot. RangeError if there is none. O(log slots)."""
        _, gfn, npages = self.slot(slot)
        return gfn + bounded(offset, npages - 1, f"the offset in slot {slot:#x}")

    def slot(self, slot: int) -> tuple[int, int, int]:
        """The (slot, gfn, npages) of a slot. RangeError if there is none. O(log slots)."""
        index = self._memory.find(bounded(slot, 0xFFFFFFFF, "slot"))
        if index < 0:
            known = ", ".join(f"{each:#x}" for each, _, _ in self) or "none"
            raise RangeError(
                f"slot {slot} (address space {slot >> 16}, id {slot & 0xFFFF}) is unknown;"
                f" the guest has {known}"
            )
        return self._memory.at(index)

    def __repr__(self) -> str:
        return f"<GuestMemory of {len(self)} slots, {self.npages} pages>"


def _three(slot: Any) -> tuple[Any, Any, Any]:
    try:
        number, gfn, npages = slot
    except (TypeError, ValueError):
        raise TypeError(f"a slot is (slot, gfn, npages), not {slot!r}") from None
    return number, gfn, npages


def _checked(slot: Any, gfn: Any, npages: Any) -> tuple[int, int, int]:
    slot, gfn = bounded(slot, 0xFFFFFFFF, "slot"), bounded(gfn, _GFN_LIMIT - 1, "gfn")
    npages = bounded(npages, _SLOT_MAX_PAGES, f"the size in pages of slot {slot:#x}")
    if npages == 0:
        raise RangeError(f"slot {slot:#x} has 0 pages: the least is 1")
    if gfn + npages > _GFN_LIMIT:
        raise RangeError(f"slot {slot:#x} ends at gfn {gfn + npages}: gfns are below {_GFN_LIMIT}")
    return slot, gfn, npages


def _clash(one: tuple[int, int, int], two: tuple[int, int, int]) -> str:
    if one[0] == two[0]:
        return f"slot {one[0]} is given twice"
    shown = [f"slot {slot} [{gfn}, {gfn + npages})" for slot, gfn, npages in (two, one)]
    return f"{shown[0]} and {shown[1]} overlap in address space {one[0] >> 16}"
