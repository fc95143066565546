"""Dirty logs: the pages that a guest's sources report, and what a pass takes of them.

Floor: dirty. Invariant: a page that was reported is in the log, or in a harvest that was not
committed, whatever is raised on the way from one to the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from pysharedpages import _buffers, _core, _fork
from pysharedpages._core import Loan, Log, PageSet, Taken
from pysharedpages.errors import ClosedError, FormatError, RangeError, SharedPagesError
from pysharedpages.memory import GuestMemory, bounded

__all__ = ["DirtyLog", "GuestMemory", "Harvest", "SourceReport"]


class SourceReport(NamedTuple):
    """What one source did for a log, since the log was made.

    `pages` counts every report: a page twice if it came twice, aborted rounds or not. `only` counts
    committed harvests: the pages of each that no other source, named or not, had reported in it. It
    is None for a log without provenance.
    """

    pages: int
    only: int | None


def _vanished(error: KeyError) -> RangeError:
    """The core found that the slot was taken away meanwhile."""
    slot, gfn, npages = error.args[0]
    return RangeError(f"slot {slot:#x} is no longer one of {npages} pages at gfn {gfn}")


class DirtyLog:
    """Collects dirty pages from many sources, until `take` hands them out.

    Pages are kept as they come: bitmaps stay dense bitmaps, one a slot; ring entries, pages and
    short ranges a list, which moves into the bitmaps when it has grown to half their size; ranges
    of more than 4,096 pages go into a set. So a log takes four bits a page of the guest at most
    (10 MiB for the smallest) however much is reported, and as much again for what was aborted;
    beside loans and pages that no slot holds. Safe in any thread. On any error nothing was added,
    but that a MemoryError may leave some of the pages in.

    Each way to add takes the name of a `source`, for `sources()`. With `provenance` the log also
    keeps which source reported which page, `Harvest.sources()`: it is then one log a source (those
    without a name are one), each of that size, and a pass takes them all and unites them.
    """

    __slots__ = (
        "__weakref__",
        "_changing",
        "_counting",
        "_logs",
        "_memory",
        "_only",
        "_pages",
        "_provenance",
    )

    def __init__(self, memory: GuestMemory, *, provenance: bool = False) -> None:
        if not isinstance(memory, GuestMemory):
            raise TypeError(f"memory must be GuestMemory, not {type(memory).__name__}")
        self._memory = memory
        self._provenance = bool(provenance)
        # Replaced, never changed: a source's log is in all later ones.
        self._logs: Mapping[str | None, Log] = {None: Log(memory._memory)}
        self._pages: dict[str, int] = {}
        self._only: dict[str, int] = {}
        self._after_fork()
        _fork.watch(self)

    def _after_fork(self) -> None:
        """A thread that held a lock at the fork is not there to release it."""
        self._counting = threading.Lock()
        self._changing = threading.Lock()

    @property
    def memory(self) -> GuestMemory:
        """The guest's slots."""
        return self._memory

    @property
    def provenance(self) -> bool:
        """Whether the log keeps which source reported which page."""
        return self._provenance

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
            _core.give_memory(list(self._logs.values()), memory._memory)
            self._memory = memory

    @property
    def nbytes(self) -> int:
        """Heap bytes held."""
        return sum(log.nbytes for log in self._logs.values())

    def add_bitmap(
        self, slot: int, buffer: Any, first_page: int = 0, source: str | None = None
    ) -> None:
        """Adds the set bits of a bitmap as KVM_GET_DIRTY_LOG gives it.

        Little-endian; bit 0 is page `first_page` of the slot; it must reach the slot's end, and
        bits past that are ignored. One pass, and a copy; one more with a `source`, to count.
        Source: Documentation/virt/kvm/api.rst, 4.8.
        """
        place = self._memory.slot(slot)
        first = bounded(first_page, place[2], "first_page")
        npages = place[2] - first
        bits = _buffers.as_bits(buffer)
        if bits.size * 8 < npages:
            raise FormatError(
                f"a bitmap of {bits.size} bytes for {npages} pages of slot {slot:#x}:"
                f" {(npages + 7) // 8} are needed",
                offset=bits.size,
            )
        log = self._log_of(source)
        try:
            log.add_bitmap(place, bits, first, npages)
        except KeyError as error:
            raise _vanished(error) from None
        if source is not None:
            self._count(source, _core.count_bits(bits, npages))

    def bitmap_buffer(self, slot: int, source: str | None = None) -> Loan:
        """Lends a bitmap of the log's own, all zero, for a source to fill in place.

        A writable buffer of ceil(npages / 64) * 8 bytes. What it holds when the log is taken from
        is dirty; fill it before, and let go of it: one that is still held then is copied.
        `sources()` does not count it.
        """
        return self._lend(self._memory.slot(slot), source)

    def fill_bitmap(
        self, slot: int, fill: Callable[[Loan], object], source: str | None = None
    ) -> None:
        """Has `fill` write a bitmap lent as by `bitmap_buffer`, and loses none of it.

        If the log was taken from while `fill` ran, or got other slots, what it wrote is added for
        the next take, as far as it is memory. What it wrote before it raised an exception is added
        too.
        """
        place = self._memory.slot(slot)
        loan = self._lend(place, source)
        try:
            fill(loan)
        finally:
            self._log_of(source).settle(place, loan)
            if source is not None:
                self._count(source, _core.count_bits(_buffers.as_bits(loan), place[2]))

    def add_ring(self, entries: Any, source: str | None = None) -> None:
        """Adds dirty-ring entries (struct kvm_dirty_gfn, 16 bytes: flags, slot, offset).

        RangeError, and nothing is added, if an entry is not marked dirty, names an unknown slot, or
        lies past its slot's end. Each entry is read once; O(n). Source:
        Documentation/virt/kvm/api.rst, 8.29.
        """
        table = _buffers.as_ring(entries)
        bad = self._log_of(source).add_ring(table)
        if bad is not None:
            flags, slot, offset = table[bad].tolist()
            if not flags & 1:
                raise RangeError(f"ring entry {bad} has flags {flags}: bit 0, dirty, is not set")
            npages = self._memory.slot(slot)[2]
            raise RangeError(
                f"ring entry {bad} has offset {offset}: slot {slot:#x} has {npages} pages"
            )
        if source is not None:
            self._count(source, len(table))

    def add_ranges(self, ranges: Any, source: str | None = None) -> None:
        """Adds ranges of gfns, in any order; they need not be memory."""
        table = _buffers.as_ranges(ranges)
        self._log_of(source).add_ranges(table)
        if source is not None:
            self._count(source, int((table[:, 1] - table[:, 0]).sum()))

    def add_pages(self, gfns: Any, source: str | None = None) -> None:
        """Adds gfns, in any order; they need not be memory."""
        table = _buffers.as_pages(gfns)
        self._log_of(source).add_pages(table)
        if source is not None:
            self._count(source, len(table))

    def sources(self) -> dict[str, SourceReport]:
        """What each source that gave its name did, since the log was made."""
        with self._counting:
            return {
                name: SourceReport(pages, self._only.get(name, 0) if self._provenance else None)
                for name, pages in self._pages.items()
            }

    def take(self) -> Harvest:
        """Everything added so far; the log is then empty.

        O(1), but for bitmaps still lent and for what came as ring entries, pages and ranges: these
        are sorted, in O(n). With provenance O(pages / 64) a source, and on a MemoryError nothing
        was taken.
        """
        parts: dict[str | None, Taken] = {}
        try:
            for name, log in self._logs.items():
                parts[name] = log.take()
            return self._harvest(parts)
        except BaseException:
            _core.ended(tuple(parts.values()), True)  # not when the traceback is forgotten, but now
            raise

    def _harvest(self, parts: Mapping[str | None, Taken]) -> Harvest:
        owed = tuple(parts.values())
        taken = self._united(owed)
        memory = self._memory
        if not taken.is_of(memory._memory):
            memory = GuestMemory._over(taken.memory())
        reported = _reported(parts, taken, memory) if self._provenance else None
        return Harvest(self, memory, taken, owed, reported)

    def _taken(self) -> Taken:
        return self._united([log.peek() for log in self._logs.values()])

    def _united(self, parts: Sequence[Taken]) -> Taken:
        """All parts as one, of the memory that the last was taken of, which is the newest."""
        return _core.united(parts) if self._provenance else parts[0]

    def _log_of(self, source: str | None) -> Log:
        if source is not None and not isinstance(source, str):
            raise TypeError(f"source must be str, not {type(source).__name__}")
        if not self._provenance:
            return self._logs[None]
        log = self._logs.get(source)
        if log is None:
            with self._changing:
                log = self._logs.get(source)
                if log is None:
                    log = Log(self._memory._memory)
                    self._logs = {**self._logs, source: log}
        return log

    def _lend(self, place: tuple[int, int, int], source: str | None) -> Loan:
        try:
            return self._log_of(source).lend(place)
        except KeyError as error:
            raise _vanished(error) from None

    def _count(self, source: str, pages: int) -> None:
        with self._counting:
            self._pages[source] = self._pages.get(source, 0) + pages

    def _count_only(self, only: Mapping[str, int]) -> None:
        with self._counting:
            for name, pages in only.items():
                self._only[name] = self._only.get(name, 0) + pages


def _reported(
    parts: Mapping[str | None, Taken], taken: Taken, memory: GuestMemory
) -> dict[str | None, PageSet]:
    """Which pages of what was taken each source reported; without those that reported none."""
    sets = {
        name: part.pages() if part.is_of(memory._memory) else part.pages() & taken.pages()
        for name, part in parts.items()
    }
    return {name: pages for name, pages in sets.items() if pages}


class Harvest:
    """The dirty pages of one pass.

    `commit` drops them once they have arrived, `abort` puts them back into their log; as a context
    manager it commits, or aborts on an exception; one that is forgotten aborts. Immutable until
    then, safe in any thread. `len` is the number of pages, counted by a pass over them.
    """

    __slots__ = ("_log", "_memory", "_owed", "_pages", "_reported")

    def __init__(
        self,
        log: DirtyLog,
        memory: GuestMemory,
        pages: Taken,
        owed: tuple[Taken, ...],
        reported: dict[str | None, PageSet] | None = None,
    ) -> None:
        self._log = log
        self._memory = memory
        self._pages: Taken | None = pages
        self._owed = owed
        self._reported = reported

    @property
    def memory(self) -> GuestMemory:
        """The guest's slots when the pages were taken."""
        return self._memory

    def __len__(self) -> int:
        return self._taken().count()

    def sources(self) -> dict[str | None, PageSet]:
        """Which pages each source reported, by name; None for reports without one.

        Pages that were aborted still have their reporters. SharedPagesError if the log was made
        without provenance.
        """
        if self._reported is None:
            raise SharedPagesError("the log keeps no reporters: it was made without provenance")
        return dict(self._reported)

    def only(self, name: str | None) -> PageSet:
        """The pages that no other source reported. SharedPagesError as above. O(sources)."""
        reported = self.sources()
        own = reported.pop(name, PageSet())
        for pages in reported.values():
            own -= pages
        return own

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
        self._taken()
        only = {} if give_back or self._reported is None else _only(self._reported)
        _core.ended(self._owed, give_back)
        self._pages = None
        if only:
            self._log._count_only(only)

    def __repr__(self) -> str:
        return "<Harvest, ended>" if self._pages is None else f"<Harvest of {len(self)} pages>"


def _only(reported: Mapping[str | None, PageSet]) -> dict[str, int]:
    """How many pages each name reported alone."""
    once, twice = PageSet(), PageSet()
    for pages in reported.values():
        twice |= once & pages
        once |= pages
    return {name: len(pages - twice) for name, pages in reported.items() if name is not None}
