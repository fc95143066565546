"""A journal and its verdict, page by page and slowly; and a guest whose bytes can be judged.

Nothing in here calls the library. `History` keeps all that ever happened, in order, and looks
through it once for each page. `Guest` is what a migration is for: contents, keys and types, of
which the second host has what was sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

SHARED, PRIVATE = "shared", "private"

Event = tuple[int, int, bool]


@dataclass
class PassRecord:
    """One pass: where in the history its list was read, and what it took and sent, in order."""

    listed_at: int
    dirty: set[int] = field(default_factory=set)
    sent: list[tuple[int, str]] = field(default_factory=list)
    arrived: bool = False


class History:
    """Everything that a journal is told. Positions count conversions and begun passes."""

    def __init__(self, shared: Iterable[int] = ()) -> None:
        self.shared = set(shared)
        self.position = 0
        self.conversions: list[tuple[int, int]] = []
        self.passes: list[PassRecord] = []

    def converted(self, events: Iterable[Event]) -> None:
        for start, npages, shared in events:
            for page in range(start, start + npages):
                if (page in self.shared) != shared:
                    self.conversions.append((self.position, page))
                    (self.shared.add if shared else self.shared.remove)(page)
            self.position += 1

    def begin(self, listed_at: int | None = None) -> PassRecord:
        record = PassRecord(self.position if listed_at is None else listed_at)
        self.passes.append(record)
        return record

    def verdict(
        self, final: set[int], memory: set[int], nonzero: set[int], destination: set[int]
    ) -> dict[str, set[int]]:
        """The pages of each finding, by name."""
        found: dict[str, set[int]] = {
            name: set()
            for name in (
                "never_sent",
                "private_sent_shared",
                "shared_sent_private",
                "stale",
                "dropped",
                "outside",
                "wrong_list",
            )
        }
        told = {page for each in self.passes for page, _ in each.sent}
        told |= {page for each in self.passes for page in each.dirty}
        for page in memory | told | final | destination:
            for name in self._faults(page, final, memory, nonzero):
                found[name].add(page)
            if (page in final) != (page in destination):
                found["wrong_list"].add(page)
        return found

    def _faults(self, page: int, final: set[int], memory: set[int], nonzero: set[int]) -> list[str]:
        last: tuple[int, str] | None = None
        is_owed = False
        for each in self.passes:
            paths = [path for sent, path in each.sent if sent == page]
            if each.arrived and paths:
                last, is_owed = (each.listed_at, paths[-1]), False
            elif page in each.dirty or (paths and not each.arrived):
                is_owed = True
        if page not in memory:
            return ["outside"] if last is not None else []
        faults = ["dropped"] if is_owed else []
        if last is None:
            return faults + ["never_sent"] * (page in nonzero)
        listed_at, path = last
        if path == SHARED and page not in final:
            faults.append("private_sent_shared")
        if path == PRIVATE and page in final:
            faults.append("shared_sent_private")
        if any(at >= listed_at for at, converted in self.conversions if converted == page):
            faults.append("stale")
        return faults


class Guest:
    """Pages with contents and types, on a host that scrambles what it converts and logs it not.

    A page's content is a number, 0 where nothing was ever written. The guest keeps its duties: it
    converts before it writes under a new type, and does not care for what a page held before.
    """

    def __init__(self, memory: set[int], mmio: set[int]) -> None:
        self.memory = memory
        self.mmio = mmio
        self.shared: set[int] = set()
        self.dirty: set[int] = set()
        self.content = dict.fromkeys(memory, 0)
        self.arrived: dict[int, tuple[int, str]] = {}
        self._stamp = 0

    def convert(self, page: int) -> Event:
        """Flips a page's type."""
        self.shared ^= {page}
        if page in self.memory:
            self._stamp += 1
            self.content[page] = self._stamp
        return page, 1, page in self.shared

    def write(self, page: int) -> None:
        """Writes a page of memory, which the host's dirty log sees."""
        self._stamp += 1
        self.content[page] = self._stamp
        self.dirty.add(page)

    def harvest(self) -> set[int]:
        """What was written since the last call."""
        taken, self.dirty = self.dirty, set()
        return taken

    def send(self, page: int, path: str) -> None:
        """A page goes to the other host as it is at this moment."""
        if page in self.memory:
            self.arrived[page] = (self.content[page], path)

    def corrupt(self) -> set[int]:
        """The pages that the guest would not find on the other host as it left them."""
        bad = set()
        for page, content in self.content.items():
            path = SHARED if page in self.shared else PRIVATE
            if page not in self.arrived:
                if content:
                    bad.add(page)
            elif self.arrived[page] != (content, path):
                bad.add(page)
        return bad

    def pick(self, rng: Random) -> tuple[str, int]:
        """A step: what to do, and with which page; a few pages take part more than the rest."""
        pages = sorted(self.memory)[:: rng.choice((1, 7))]
        if rng.random() < 0.5:
            return "write", rng.choice(pages)
        return "convert", rng.choice(pages if rng.random() < 0.8 else sorted(self.mmio))
