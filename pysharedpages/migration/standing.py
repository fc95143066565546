"""What a migration knows of its destination: the last list, and the path each page came by.

A round sends its pages by its own list, L. Let P be the list of the last round that arrived, and
`sent` the pages of all rounds that arrived; all pages here are memory.

1. A page of `sent` came last by the path that P gives it. For if it was not in the round of P, it
   was not converted between the list before and P, or it would have been in it (rule R4); so these
   two lists agree on it, and by induction it had come by that path.
2. A page of a round that was aborted since P comes again in the next: the round gave back what was
   dirty, and what was converted before its list is newer than P still. Once a round arrives, its
   own path is the last of all these pages: what was tried is forgotten.
3. A page that L gives another path than P, or than the list of an aborted round, was converted
   after that list, hence after P: it is among the pages that L's round sends as converted.

So what may lie on the destination by the other path is found among the converted pages alone, of
which there are few, and not by looking at every page that was ever sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pysharedpages._core import PageSet, Snapshot, Transfer
from pysharedpages.dirty import GuestMemory

__all__ = ["Standing", "pages_of"]


@dataclass(frozen=True)
class Standing:
    """What is known once a round has ended. Immutable: every change makes a new one, or raises.

    `list` is P above. With `is_whole`, every page of memory was sent or is in the log, so that the
    next round that arrives leaves none unsent; without, each round's pages are counted one by one.
    `tried_shared` and `tried_private` are pages of rounds aborted since P, by path.
    """

    list: Snapshot
    memory: GuestMemory
    is_whole: bool
    sent: PageSet = field(default_factory=PageSet)
    tried_shared: PageSet = field(default_factory=PageSet)
    tried_private: PageSet = field(default_factory=PageSet)

    def arrived(self, shared: Snapshot, transfer: Transfer, memory: GuestMemory) -> Standing:
        """After a round by the list `shared`, harvested when `memory` was the guest's.

        O(slots) once all memory is sent and while the slots stay; else O(ranges of the transfer).
        """
        ram = self.memory.pages()
        if self.is_whole and memory is self.memory:
            sent = ram
        else:
            sent = (self.sent | pages_of(transfer)) & ram
        return Standing(shared, self.memory, self.is_whole or ram <= sent, sent)

    def tried(self, transfer: Transfer) -> Standing:
        """After a round that was aborted when some of it may have gone. O(ranges)."""
        ram = self.memory.pages()
        return replace(
            self,
            tried_shared=self.tried_shared | PageSet.from_ranges(transfer.shared) & ram,
            tried_private=self.tried_private | PageSet.from_ranges(transfer.private) & ram,
        )

    def within(self, memory: GuestMemory) -> Standing:
        """The same where `memory` is the guest's now: what is no longer memory lies nowhere."""
        if memory is self.memory:
            return self
        ram = memory.pages()
        return Standing(
            self.list,
            memory,
            self.is_whole,
            self.sent & ram,
            self.tried_shared & ram,
            self.tried_private & ram,
        )

    def rerouted(self, shared: Snapshot, converted: PageSet) -> PageSet:
        """Pages that may lie on the destination by another path than the list `shared` gives them.

        `converted` is the transfer's. O(nodes that `converted` touches).
        """
        known = converted & self.sent
        flipped = (known & shared) ^ (known & self.list)
        tried = (self.tried_private & converted & shared) | (self.tried_shared & converted) - shared
        return flipped | tried


def pages_of(transfer: Transfer) -> PageSet:
    """All pages that a transfer sends. O(ranges)."""
    return PageSet.from_ranges(transfer.shared) | PageSet.from_ranges(transfer.private)
