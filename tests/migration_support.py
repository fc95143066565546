"""What the tests of migrations by hand share: a guest of 64 pages and a source that is told."""

from __future__ import annotations

from typing import Any

from pysharedpages import DirtyLog, GuestMemory, SharedPages
from pysharedpages.migration import Migration, Round

__all__ = ["NPAGES", "Host", "Told", "sent"]

NPAGES = 64


class Told:
    """A source that is told what is dirty, and that vouches."""

    def __init__(self, complete: bool = True) -> None:
        self.complete = complete
        self.gfns: list[int] = []

    def collect(self, log: DirtyLog) -> None:
        log.add_pages(self.gfns)
        self.gfns.clear()


class Host:
    """A guest of 64 pages and its migration, not to be forgotten here."""

    def __init__(self, *, complete: bool = True, **options: Any) -> None:
        self.pages = SharedPages(4 * NPAGES)
        self.log = DirtyLog(GuestMemory([(0, 0, NPAGES)]))
        self.source = Told(complete)
        self.migration = Migration(self.pages, self.log, [self.source], **options)

    def write(self, *gfns: int) -> None:
        self.source.gfns.extend(gfns)

    def one(self) -> tuple[list[Any], list[Any]]:
        """What the next round sends; it arrives."""
        for round_ in self.migration.rounds(1):
            found = sent(round_)
        return found


def sent(round_: Round) -> tuple[list[Any], list[Any]]:
    return round_.shared.tolist(), round_.private.tolist()
