"""A guest, a real Migration of it, and a destination that notes path and content of every page.

Slow and obvious: sets of gfns and dictionaries. Whatever a conversion reaches is scrambled and no
source tells; a page that arrives brings what it holds at that instant. All of it is checked as it
happens: what a round sends, what it says is rerouted, and in the end every page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count

from pysharedpages import DirtyLog, GuestMemory, PageSet, SharedPages
from pysharedpages.migration import Migration, Round

__all__ = ["LAYOUTS", "NGFNS", "LinkDownError", "Slots", "Watch", "World"]

NGFNS = 64
Slots = Sequence[tuple[int, int, int]]
LAYOUTS: Sequence[Slots] = (
    [(0, 0, 32)],
    [(0, 0, 48)],
    [(0, 0, 16), (1, 24, 16)],
    [(0, 0, 16), (1, 16, 16), (2, 40, 20)],
    [(1, 24, 16)],
    [(3, 0, 16), (1, 24, 16), (2, 44, 4)],
    [(0, 0, 32), (0x10000, 8, 8)],
)
"""Slots (slot, gfn, npages); some of them are the same in two layouts, and some overlap."""


class LinkDownError(Exception):
    """The transport failed."""


class Watch:
    """A source that sees every `step`th page from `first` on."""

    def __init__(self, first: int, step: int, complete: bool) -> None:
        self.complete = complete
        self.gfns: list[int] = []
        self._own = range(first, NGFNS, step)

    def sees(self, gfn: int) -> bool:
        return gfn in self._own

    def collect(self, log: DirtyLog) -> None:
        gfns, self.gfns = self.gfns, []
        if len(gfns) % 2:
            log.add_pages(gfns)
        else:
            log.add_ranges([(gfn, gfn + 1) for gfn in gfns])

    def set_memory(self, memory: GuestMemory) -> None:
        """A slot that goes takes its dirty bits along."""
        self.gfns = [gfn for gfn in self.gfns if gfn in memory.pages()]


class World:
    """What is so, page by page, beside the Migration that should know."""

    def __init__(self, slots: Slots, *, nsources: int, complete: bool) -> None:
        self.pages = SharedPages(NGFNS)
        self.slots = list(slots)
        self.log = DirtyLog(GuestMemory(self.slots))
        self.sources = [Watch(first, nsources, complete) for first in range(nsources)]
        self.complete = complete
        self._versions = count(1)
        self._steps = count(1)
        self.content: dict[int, int] = {}
        self.shared: set[int] = set()
        self.converted: dict[int, int] = {}
        self.listed = 0
        self.ram = ram_of(slots)
        self.dirty: set[int] = set() if complete else set(self.ram)
        for gfn in sorted(self.ram):
            self.content[gfn] = next(self._versions)
        if complete:
            for gfn in sorted(self.ram)[::2]:
                self.write(gfn)
            self.content = {gfn: self.content[gfn] for gfn in sorted(self.ram)[::2]}
        self.arrived: dict[int, tuple[str, int | None]] = {}
        self.may: dict[int, set[str]] = {}
        self.migration = Migration(self.pages, self.log, self.sources)
        self.round: Round | None = None
        self.loop: Iterator[Round] = iter(())
        self.due: list[tuple[int, str]] = []
        self.taken: set[int] = set()
        self.taken_ram: set[int] = set()
        self.taken_at = 0

    # -- the guest and its VMM

    def write(self, gfn: int) -> None:
        """The guest writes a page, if it is memory, and a source sees it."""
        if gfn in self.ram:
            self.content[gfn] = next(self._versions)
            self.dirty.add(gfn)
            for source in self.sources:
                if source.sees(gfn):
                    source.gfns.append(gfn)

    def report(self, gfn: int) -> None:
        """Somebody reports a page, be it memory or not."""
        self.log.add_pages([gfn])
        self.dirty.add(gfn)

    def convert(self, start: int, npages: int, shared: bool) -> None:
        """The guest converts a range; what changes there is scrambled."""
        step = next(self._steps)
        run = range(start, min(NGFNS, start + npages))
        for gfn in run:
            if (gfn in self.shared) is not shared:
                self.converted[gfn] = step
                if gfn in self.ram:
                    self.content[gfn] = next(self._versions)
        (self.shared.update if shared else self.shared.difference_update)(run)
        self.pages.convert(start, len(run), shared)

    def reslot(self, slots: Slots, replace_sources: bool) -> None:
        """Slots come and go; a new one has content from the beginning."""
        memory, ram = GuestMemory(slots), ram_of(slots)
        if replace_sources:
            nsources = len(self.sources)
            joining = [Watch(first, nsources, self.complete) for first in range(nsources)]
            self.migration.set_memory(memory, joining)
            self.sources = joining
        else:
            self.migration.set_memory(memory)
        gone = self.ram - ram
        self.dirty -= gone
        self.taken -= gone & self.taken_ram
        for table in (self.content, self.arrived, self.may):
            for gfn in gone & set(table):
                del table[gfn]
        for slot in set(slots) - set(self.slots):
            for gfn in ram_of([slot]):
                self.content[gfn] = next(self._versions)
                self.dirty.add(gfn)
        self.slots, self.ram = list(slots), ram

    # -- rounds

    def begin(self, loop: Iterator[Round]) -> bool:
        """The next round of a loop, if there is one; one that is open is aborted by it."""
        if self.round is not None:
            self._aborted()
        self.loop = loop
        expected = self.expected()
        round_ = self.round = next(loop, None)
        self.taken, self.taken_ram, self.dirty = self.dirty, self.ram, set()
        step = next(self._steps)
        if round_ is None:
            assert not expected
            self.taken, self.listed = set(), step
            return False
        self.taken_at = step
        self.due = [(gfn, "shared") for gfn in PageSet.from_ranges(round_.shared)]
        self.due += [(gfn, "private") for gfn in PageSet.from_ranges(round_.private)]
        assert dict(self.due) == {
            gfn: "shared" if gfn in self.shared else "private" for gfn in expected
        }
        assert round_.dirty_pages == len(self.taken)
        assert set(round_.rerouted) == {
            gfn for gfn, path in self.due if self.may.get(gfn, set()) - {path}
        }
        return True

    def expected(self) -> set[int]:
        """What a round that began now would have to send."""
        return self.dirty | {
            gfn for gfn, step in self.converted.items() if step > self.listed and gfn in self.ram
        }

    def send(self, npages: int) -> None:
        """Some more of the round's pages arrive."""
        now, self.due = self.due[:npages], self.due[npages:]
        for gfn, path in now:
            if gfn in self.ram:
                self.arrived[gfn] = (path, self.content.get(gfn))

    def end(self, how: str) -> None:
        """Ends the open round: by the loop, by hand, by an exception, or by forgetting the loop."""
        round_ = self.round
        assert round_ is not None
        if how in ("loop", "commit"):
            self.send(NGFNS)
        sent = [PageSet.from_ranges(ranges) for ranges in (round_.shared, round_.private)]
        if how == "loop":
            assert next(self.loop, None) is None
        elif how in ("commit", "abort"):
            (round_.commit if how == "commit" else round_.abort)()
            self.loop = iter(())
        elif how == "exception":
            with suppress(LinkDownError):
                self.loop.throw(LinkDownError)  # type: ignore[attr-defined]
        else:
            self.loop = iter(())
        assert round_.is_committed is (how in ("loop", "commit"))
        if not round_.is_committed:
            self._aborted()
            return
        for gfns, path in zip(sent, ("shared", "private"), strict=True):
            self.may.update({gfn: {path} for gfn in gfns if gfn in self.ram})
        self.listed, self.round, self.taken = self.taken_at, None, set()

    def _aborted(self) -> None:
        round_ = self.round
        assert round_ is not None
        for ranges, path in ((round_.shared, "shared"), (round_.private, "private")):
            for gfn in PageSet.from_ranges(ranges):
                if gfn in self.ram:
                    self.may.setdefault(gfn, set()).add(path)
        self.dirty |= self.taken
        self.round, self.taken, self.due = None, set(), []

    def finish(self) -> None:
        """The guest has stopped: the final rounds, and every page compared."""
        loop = self.migration.final()
        while self.begin(loop):
            self.send(NGFNS)
            for gfn, path in [*self._paths()]:
                self.may[gfn] = {path}
            self.listed, self.round, self.taken = self.taken_at, None, set()
        assert self.migration.is_finished
        assert set(self.migration.snapshot) == self.shared
        there = {gfn: self.arrived.get(gfn) for gfn in self.content}
        assert there == {
            gfn: ("shared" if gfn in self.shared else "private", content)
            for gfn, content in self.content.items()
        }

    def _paths(self) -> Iterable[tuple[int, str]]:
        assert self.round is not None
        for ranges, path in ((self.round.shared, "shared"), (self.round.private, "private")):
            for gfn in PageSet.from_ranges(ranges):
                if gfn in self.ram:
                    yield gfn, path

    def close(self) -> None:
        """Ends it all."""
        self.migration.close()
        self.pages.close()


def ram_of(slots: Slots) -> set[int]:
    """The gfns that are memory."""
    return {page for _, gfn, npages in slots for page in range(gfn, gfn + npages)}
