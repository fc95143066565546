"""The check itself: a journal against the list at the stop, the memory, and what it holds."""

from __future__ import annotations

import operator
from typing import Any

from pysharedpages.dirty import GuestMemory
from pysharedpages.errors import RangeError
from pysharedpages.verify.journal import Journal, as_pageset
from pysharedpages.verify.report import Report

__all__ = ["verify"]


def verify(
    journal: Journal,
    final: Any,
    *,
    memory: GuestMemory,
    nonzero: Any,
    destination: Any = None,
    page_size: int = 4096,
) -> Report:
    """What `journal` should have sent and did not, or sent otherwise than it should have.

    Called with the guest stopped on the source, or with what was kept of that instant:

    * `final`: the shared pages at the stop. To a journal of snapshots a Snapshot taken then; to one
      that was told of conversions ranges or a PageSet: `journal.shared`, or better the guest's own
      page tables.
    * `memory`: what is RAM.
    * `nonzero`: the pages that hold data, as ranges or a PageSet, or a callable that says which of
      the pages it is given do: `lambda pages: nonzero_pages(ram, within=pages)` reads none but
      those that were never sent. Memory that the host cannot read holds data: `memory.pages()`.
    * `destination`: the list that the destination was given.
    * `page_size` in bytes is for the sizes in the report's text.

    A page that is written after its last sending shows only if a pass took it from a dirty log:
    writes that no log reported leave no trace. Raises what `Journal.stale` raises, and FormatError,
    RangeError or TypeError for ranges that are none. A few operations on page sets: proportional to
    their nodes, not to pages.
    """
    if not isinstance(memory, GuestMemory):
        raise TypeError(f"memory must be GuestMemory, not {type(memory).__name__}")
    if operator.index(page_size) < 1:
        raise RangeError(f"a page of {page_size} bytes: the least is 1")
    shared = as_pageset(final)
    listed = None if destination is None else as_pageset(destination)
    stale = journal.stale(shared)
    plain, platform = journal.sent_shared, journal.sent_private
    ram = memory.pages()
    sent = plain | platform
    unsent = ram - sent
    holding = as_pageset(nonzero(unsent) if callable(nonzero) else nonzero)
    return Report(
        passes=journal.passes,
        failed_passes=journal.failed_passes,
        sent_pages=len(sent),
        page_size=page_size,
        never_sent=unsent & holding,
        private_sent_shared=(plain - shared) & ram,
        shared_sent_private=platform & shared & ram,
        stale=stale & ram,
        dropped=journal.dropped & ram,
        outside=sent - ram,
        wrong_list=None if listed is None else listed ^ shared,
    )
