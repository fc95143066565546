"""Dirty logs: a guest's memory slots, the pages its sources report, what a pass takes of them."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

from pysharedpages import _buffers
from pysharedpages._core import Loan, Log, Memory, PageSet, Taken
from pysharedpages.errors import ClosedError, FormatError, RangeError

__all__ = ["DirtyLog", "GuestMemory", "Harvest"]

_GFN_LIMIT: Final = 1 << 52
_SLOT_MAX_PAGES: Final = (1 << 31) - 1
"""KVM_MEM_MAX_NR_PAGES (virt/kvm/kvm_main.c)."""


def _bounded(value: Any, most: int, name: str) -> int:
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
        _, gfn, npages = self._slot(slot)
        return gfn + _bounded(offset, npages - 1, f"the offset in slot {slot:#x}")

    def _slot(self, slot: int) -> tuple[int, int, int]:
        index = self._memory.find(_bounded(slot, 0xFFFFFFFF, "slot"))
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
    slot, gfn = _bounded(slot, 0xFFFFFFFF, "slot"), _bounded(gfn, _GFN_LIMIT - 1, "gfn")
    npages = _bounded(npages, _SLOT_MAX_PAGES, f"the size in pages of slot {slot:#x}")
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


@contextmanager
def _known(slot: int) -> Iterator[None]:
    """Raises RangeError where the core finds that the slot was taken away meanwhile."""
    try:
        yield
    except KeyError as error:
        raise RangeError(f"slot {slot:#x} is no longer as it was: {error.args[0]}") from None


class DirtyLog:
    """Collects dirty pages from many sources, until `take` hands them out.

    Pages are kept as they come: bitmaps stay dense bitmaps, one a slot; ring entries, pages and
    short ranges a list, which moves into the bitmaps when it has grown to half their size; ranges
    of more than 4,096 pages go into a set. Safe in any thread. On any error nothing was added, but
    that a MemoryError may leave some of the pages in.
    """

    __slots__ = ("_changing", "_counting", "_log", "_memory", "_passes", "_sources")

    def __init__(self, memory: GuestMemory) -> None:
        if not isinstance(memory, GuestMemory):
            raise TypeError(f"memory must be GuestMemory, not {type(memory).__name__}")
        self._memory = memory
        self._log = Log(memory._memory)
        self._sources: dict[str, int] = {}
        self._passes = 0
        self._counting = threading.Lock()
        self._changing = threading.Lock()

    @property
    def memory(self) -> GuestMemory:
        """The guest's slots."""
        return self._memory

    def set_memory(self, memory: GuestMemory) -> None:
        """The guest has other slots from now on.

        A slot (slot, gfn, npages) that was not there before is new: all its pages become dirty.
        Pages that were memory and are no longer are dropped; all others stay dirty, by gfn, whether
        they are in the log, in a lent bitmap, or come back from a harvest later. A slot that is the
        same in its three numbers is the same slot: if its memory was replaced, add its pages.

        On MemoryError nothing changed. Loans of slots that are gone may still be written, and are
        seen no more. A report for a slot that another thread made vanish is refused. O(slots) and
        what the log holds beside the bitmaps of slots that stay.
        """
        if not isinstance(memory, GuestMemory):
            raise TypeError(f"memory must be GuestMemory, not {type(memory).__name__}")
        with self._changing:
            self._pass()
            self._log.set_memory(memory._memory)
            self._memory = memory

    @property
    def nbytes(self) -> int:
        """Heap bytes held."""
        return self._log.nbytes

    def add_bitmap(
        self, slot: int, buffer: Any, first_page: int = 0, source: str | None = None
    ) -> None:
        """Adds the set bits of a bitmap as KVM_GET_DIRTY_LOG gives it.

        Little-endian; bit 0 is page `first_page` of the slot; it must reach the slot's end, and
        bits past that are ignored. `source` names who reports, for `sources()`. One pass, and a
        copy.
        Source: Documentation/virt/kvm/api.rst, 4.8.
        """
        place = self._memory._slot(slot)
        npages = place[2]
        first = _bounded(first_page, npages, "first_page")
        bits = _buffers.as_bits(buffer)
        if bits.size * 8 < npages - first:
            raise FormatError(
                f"a bitmap of {bits.size} bytes for {npages - first} pages of slot {slot:#x}:"
                f" {(npages - first + 7) // 8} are needed",
                offset=bits.size,
            )
        if source is not None:
            pages = len(PageSet.from_bitmap(bits, npages=npages - first))
        with _known(slot):
            self._log.add_bitmap(place, bits, first, npages - first)
        if source is not None:
            with self._counting:
                self._sources[source] = self._sources.get(source, 0) + pages

    def bitmap_buffer(self, slot: int) -> Loan:
        """Lends a bitmap of the log's own, all zero, for a source to fill in place.

        A writable buffer of ceil(npages / 64) * 8 bytes. What it holds when the log is taken from
        is dirty; fill it before, and let go of it: one that is still held then is copied.
        """
        return self._lend(self._memory._slot(slot))

    def fill_bitmap(self, slot: int, fill: Callable[[Loan], object]) -> None:
        """Has `fill` write a bitmap lent as by `bitmap_buffer`, and loses none of it.

        If the log was taken from while `fill` ran, or got other slots, what it wrote is added for
        the next take, as far as it is memory. What it wrote before it raised an exception is added
        too.
        """
        passes = self._passes
        place = self._memory._slot(slot)
        loan = self._lend(place)
        try:
            fill(loan)
        finally:
            if self._passes != passes:
                self._log.add_bitmap_at(place[1], _buffers.as_bits(loan), place[2])

    def _lend(self, place: tuple[int, int, int]) -> Loan:
        with _known(place[0]):
            return self._log.lend(place)

    def add_ring(self, entries: Any) -> None:
        """Adds dirty-ring entries (struct kvm_dirty_gfn, 16 bytes: flags, slot, offset).

        RangeError, and nothing is added, if an entry is not marked dirty, names an unknown slot, or
        lies past its slot's end. Each entry is read once; O(n). Source:
        Documentation/virt/kvm/api.rst, 8.29.
        """
        table = _buffers.as_ring(entries)
        bad = self._log.add_ring(table)
        if bad is not None:
            flags, slot, offset = table[bad].tolist()
            if not flags & 1:
                raise RangeError(f"ring entry {bad} has flags {flags}: bit 0, dirty, is not set")
            npages = self._memory._slot(slot)[2]
            raise RangeError(
                f"ring entry {bad} has offset {offset}: slot {slot:#x} has {npages} pages"
            )

    def add_ranges(self, ranges: Any) -> None:
        """Adds ranges of gfns, in any order; they need not be memory."""
        self._log.add_ranges(_buffers.as_ranges(ranges))

    def add_pages(self, gfns: Any) -> None:
        """Adds gfns, in any order; they need not be memory."""
        self._log.add_pages(_buffers.as_pages(gfns))

    def sources(self) -> dict[str, int]:
        """Pages reported by each source that gave its name, since the log was made."""
        return dict(self._sources)

    def take(self) -> Harvest:
        """Everything added so far; the log is then empty.

        O(1), but for bitmaps still lent and for what came as ring entries, pages and ranges: these
        are sorted, in O(n).
        """
        self._pass()
        taken = self._log.take()
        memory = self._memory
        if not taken.is_of(memory._memory):
            memory = GuestMemory._over(taken.memory())
        return Harvest(memory, taken)

    def _taken(self) -> Taken:
        self._pass()
        return self._log.peek()

    def _pass(self) -> None:
        """Counts what ends loans before it is done, for `fill_bitmap` to see."""
        with self._counting:
            self._passes += 1


class Harvest:
    """The dirty pages of one pass.

    `commit` drops them once they have arrived, `abort` puts them back into their log; as a context
    manager it commits, or aborts on an exception; one that is forgotten aborts. Immutable until
    then, safe in any thread. `len` is the number of pages, counted by a pass over them.
    """

    __slots__ = ("_memory", "_pages")

    def __init__(self, memory: GuestMemory, taken: Taken) -> None:
        self._memory = memory
        self._pages: Taken | None = taken

    @property
    def memory(self) -> GuestMemory:
        """The guest's slots when the pages were taken."""
        return self._memory

    def __len__(self) -> int:
        return self._taken().count()

    def commit(self) -> None:
        """Drops the pages. ClosedError if the harvest was already ended."""
        self._end(False)

    def abort(self) -> None:
        """Puts the pages back into the log. ClosedError if the harvest was already ended."""
        self._end(True)

    def __enter__(self) -> Harvest:
        self._taken()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pages is not None:
            if kind is None:
                self.commit()
            else:
                self.abort()

    def _taken(self) -> Taken:
        if self._pages is None:
            raise ClosedError("the harvest was already committed or aborted")
        return self._pages

    def _end(self, give_back: bool) -> None:
        self._taken().end(give_back)
        self._pages = None

    def __repr__(self) -> str:
        return "<Harvest, ended>" if self._pages is None else f"<Harvest of {len(self)} pages>"
