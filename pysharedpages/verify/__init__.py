"""What a migration sent against what it should have sent, page by page.

For VMMs that suspect their own migration code. A `Journal` keeps how each page was sent last;
`verify` holds that against the list of shared pages at the stop and the pages that hold data.

    journal = Journal(shared=())  # every page private, as the guest boots
    journal.converted(events)  # what the guest asks for, each time before the tracker is told
    with journal.begin() as sending:  # for each pass, as soon as its list was read
        sending.harvested(dirty)
        sending.sent(shared=plain, private=encrypted)
    print(verify(journal, journal.shared, memory=memory, nonzero=holding))

A `Migration` is followed by a `Journal()`: `for r in journal.follow(migration.rounds()): ...`.
"""

from __future__ import annotations

from pysharedpages.verify.check import verify
from pysharedpages.verify.journal import Journal, Pass
from pysharedpages.verify.nonzero import nonzero_pages, nonzero_pages_of_file
from pysharedpages.verify.report import Finding, Report

__all__ = [
    "Finding",
    "Journal",
    "Pass",
    "Report",
    "nonzero_pages",
    "nonzero_pages_of_file",
    "verify",
]
