# tier: unit
"""Journal, verify and Report: every finding by hand, and what they refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from model import Ranges, canonical, names

from pysharedpages import (
    GuestMemory,
    PageSet,
    RangeError,
    SharedPages,
)
from pysharedpages.verify import Journal, Report, verify

# 16 pages of RAM; gfns 16 to 31 are MMIO, 32 to 47 RAM again.
MEMORY = GuestMemory([(0, 0, 16), (1, 32, 16)])
ALL = MEMORY.pages().ranges()


def judge(journal: Journal, final: Any = None, **other: Any) -> Report:
    """The report for a guest all of whose RAM holds data."""
    other.setdefault("nonzero", MEMORY.pages())
    return verify(journal, journal.shared if final is None else final, memory=MEMORY, **other)


def found(report: Report) -> dict[str, Ranges]:
    """What was found, as pairs by name."""
    return {finding.name: canonical(finding.pages.ranges()) for finding in report.findings}


def clean_journal() -> Journal:
    """All of RAM sent in one pass, page 3 shared."""
    journal = Journal(shared=[(3, 4)])
    journal.sent(shared=[(3, 4)], private=[(0, 3), (4, 16), (32, 48)])
    return journal


def test_a_right_migration_is_clean() -> None:
    report = judge(clean_journal(), destination=[(3, 4)])
    assert report.is_clean and not report.findings and not report.pages
    assert (report.passes, report.failed_passes, report.sent_pages) == (1, 0, 32)
    assert str(report) == "clean: 1 pass, 0 failed; 32 pages (128KiB) sent"


def test_what_holds_data_and_was_never_sent() -> None:
    journal = Journal(shared=())
    journal.sent(private=[(0, 10), (32, 48)])
    assert found(judge(journal)) == {"never_sent": [(10, 16)]}
    assert found(judge(journal, nonzero=[(0, 1), (11, 13), (15, 40)])) == {
        "never_sent": [(11, 13), (15, 16)]
    }
    assert judge(journal, nonzero=PageSet()).is_clean


def test_only_pages_that_were_not_sent_are_looked_at() -> None:
    journal = Journal(shared=())
    journal.sent(private=[(0, 10)])
    asked = []

    def reader(pages: PageSet) -> PageSet:
        asked.append(canonical(pages.ranges()))
        return PageSet.from_ranges([(2, 12), (17, 18)])

    assert found(judge(journal, nonzero=reader)) == {"never_sent": [(10, 12)]}
    assert asked == [[(10, 16), (32, 48)]]
    assert found(judge(journal, nonzero=lambda _: [(11, 14)])) == {"never_sent": [(11, 14)]}


def test_the_last_path_is_the_one_that_counts() -> None:
    journal = Journal(shared=[(3, 6)])
    journal.sent(shared=[(0, 6)], private=[(6, 16), (32, 48)])
    assert found(judge(journal)) == {"private_sent_shared": [(0, 3)]}
    journal.sent(private=[(0, 4)])
    report = judge(journal)
    assert found(report) == {"shared_sent_private": [(3, 4)]}
    journal.sent(shared=[(3, 4), (40, 41)])
    report = judge(journal)
    assert found(report) == {"private_sent_shared": [(40, 41)]}
    assert canonical(report.wrong_path.ranges()) == [(40, 41)]


def test_a_page_on_both_paths_of_one_pass_came_on_the_later() -> None:
    journal = Journal(shared=())
    with journal.begin() as pass_:
        pass_.sent(private=ALL)
        pass_.sent(shared=[(5, 7)])
        pass_.sent(private=[(6, 7)])
    assert found(judge(journal)) == {"private_sent_shared": [(5, 6)]}
    assert canonical(journal.sent_shared.ranges()) == [(5, 6)]
    assert canonical(journal.sent_private.ranges()) == [(0, 5), (6, 16), (32, 48)]


def test_what_was_converted_after_it_was_sent_is_stale() -> None:
    journal = clean_journal()
    journal.converted([(2, 4, True), (8, 2, True), (9, 1, False)])  # page 3 is shared already
    report = judge(journal)
    assert canonical(report.stale.ranges()) == [(2, 3), (4, 6), (8, 10)]
    assert canonical(report.shared_sent_private.ranges()) == [(2, 3), (4, 6), (8, 9)]
    journal.sent(shared=[(2, 3), (4, 6), (8, 9)])
    assert found(judge(journal)) == {"stale": [(9, 10)]}
    journal.sent(private=[(9, 10)])
    assert judge(journal).is_clean


def test_what_is_converted_in_flight_is_newer_than_its_sending() -> None:
    journal = clean_journal()
    with journal.begin() as pass_:
        journal.converted([(0, 2, True), (1, 1, False)])
        pass_.sent(private=[(0, 2)], shared=[(3, 4)])
        journal.converted([(3, 1, False), (3, 1, True)])
    assert found(judge(journal)) == {"stale": [(0, 2), (3, 4)], "shared_sent_private": [(0, 1)]}


def test_a_failed_pass_may_have_sent_and_has_not() -> None:
    journal = clean_journal()
    pass_ = journal.begin()
    pass_.harvested([(0, 1)])
    pass_.sent(private=[(5, 7)], shared=[(7, 8)])
    pass_.abort()
    report = judge(journal)
    assert found(report) == {"dropped": [(0, 1), (5, 8)]}
    assert (report.passes, report.failed_passes) == (2, 1)
    with pytest.raises(OSError), journal.begin() as pass_:
        pass_.sent(private=[(9, 10)])
        raise OSError
    journal.sent(private=[(0, 7)])
    assert found(judge(journal)) == {
        "dropped": [(7, 8), (9, 10)],
        "shared_sent_private": [(3, 4)],
    }


def test_a_page_of_failed_passes_alone_was_never_sent() -> None:
    journal = Journal(shared=())
    journal.begin().sent(private=ALL)
    journal.sent(private=[(0, 16)])
    assert found(judge(journal)) == {"never_sent": [(32, 48)], "dropped": [(32, 48)]}
    assert (journal.passes, journal.failed_passes) == (2, 1)


def test_a_pass_has_to_send_what_it_harvested() -> None:
    journal = clean_journal()
    journal.sent(private=[(0, 2)], dirty=[(0, 3), (16, 20)])
    assert found(judge(journal)) == {"dropped": [(2, 3)]}
    journal.sent(dirty=PageSet.from_ranges([(4, 5)]))
    assert canonical(journal.dropped.ranges()) == [(2, 3), (4, 5), (16, 20)]
    journal.sent(private=[(2, 5)], shared=())
    assert found(judge(journal)) == {"shared_sent_private": [(3, 4)]}


def test_mmio_is_not_to_be_sent_and_its_path_does_not_matter() -> None:
    journal = clean_journal()
    journal.sent(shared=[(15, 18)], private=[(20, 21)])
    journal.converted([(17, 4, True), (15, 1, True)])
    assert found(judge(journal)) == {"outside": [(16, 18), (20, 21)], "stale": [(15, 16)]}


def test_the_destinations_list_is_held_against_the_final_one() -> None:
    journal = clean_journal()
    journal.converted([(20, 2, True)])
    assert found(judge(journal, destination=[(2, 4)])) == {"wrong_list": [(2, 3), (20, 22)]}
    assert judge(journal, destination=[(3, 4), (20, 22)]).is_clean
    report = judge(journal)
    assert report.is_clean and report.wrong_list is None
    assert str(report).endswith("; the destination's list was not looked at")


def test_what_was_sent_of_a_slot_that_is_gone_does_not_count() -> None:
    journal = clean_journal()
    journal.sent(shared=[(16, 18)], dirty=[(20, 21)])
    pass_ = journal.begin()
    pass_.harvested([(22, 23)])
    pass_.sent(private=[(17, 19)], shared=[(19, 20)])
    journal.forget([(15, 33)])
    pass_.sent(private=[(32, 33)])
    pass_.commit()
    assert found(judge(journal)) == {"never_sent": [(15, 16)]}
    assert not journal.dropped


def test_conversions_out_of_snapshots() -> None:
    pages = SharedPages(64)
    journal = Journal()
    journal.sent(private=ALL, snapshot=pages.snapshot())
    pages.share(4, 4)
    pages.unshare(6, 2)  # there and back
    pass_ = journal.begin(pages.snapshot())
    pass_.sent(shared=[(4, 6)])
    pages.share(5, 8)  # 5 is shared; 6 to 12 are not
    pass_.commit()
    final = pages.snapshot()
    assert found(judge(journal, final)) == {
        "stale": [(6, 13)],
        "shared_sent_private": [(6, 13)],
    }
    assert canonical(journal.stale(final).ranges()) == [(6, 13)]
    journal.sent(shared=[(4, 13)], snapshot=final)
    assert judge(journal, pages.snapshot()).is_clean


def test_snapshots_may_be_closed_once_their_pass_has_begun() -> None:
    pages = SharedPages(64)
    journal = Journal()
    for start in (0, 1, 2):
        with pages.snapshot() as snapshot:
            journal.sent(private=ALL, snapshot=snapshot)
        pages.share(start)
        pages.unshare(start)
    assert found(judge(journal, pages.snapshot())) == {"stale": [(2, 3)]}


def test_a_pass_by_an_older_list_is_as_old_as_that() -> None:
    pages = SharedPages(64)
    journal = Journal()
    first = pages.snapshot()
    pages.share(1, 2)
    journal.sent(private=[(3, 16), (32, 48)], shared=[(1, 3)], snapshot=pages.snapshot())
    journal.sent(private=[(0, 2)], snapshot=first)
    assert found(judge(journal, pages.snapshot())) == {
        "stale": [(1, 2)],
        "shared_sent_private": [(1, 2)],
    }


def test_a_failed_pass_moves_no_list() -> None:
    pages = SharedPages(64)
    journal = Journal()
    journal.sent(private=ALL, snapshot=pages.snapshot())
    pages.share(1)
    pages.unshare(1)
    pass_ = journal.begin(pages.snapshot())
    pass_.sent(private=[(1, 2)])
    pass_.abort()
    assert found(judge(journal, pages.snapshot())) == {"stale": [(1, 2)], "dropped": [(1, 2)]}


def test_the_report_as_text_and_as_plain_types() -> None:
    journal = Journal(shared=())
    journal.sent(private=[(gfn, gfn + 1) for gfn in range(0, 16, 2)])
    journal.converted([(0, 1, True)])
    report = judge(journal, destination=())
    assert str(report).splitlines() == [
        "4 findings: 1 pass, 0 failed; 8 pages (32KiB) sent",
        "holding data, never sent: 24 pages (96KiB)"
        " [0x1, 0x2) [0x3, 0x4) [0x5, 0x6) [0x7, 0x8) and 5 ranges more",
        "    the guest finds zeros there, or garbage. R0: a dirty log starts empty, so the first"
        " pass sends all of memory unless every source is complete",
        "shared at the stop, last sent through the platform: 1 page (4KiB) [0x0, 0x1)",
        "    they lie under the destination's key: garbage. R2: harvest, then list; read the last"
        " list after the vCPUs have stopped",
        "converted after the list that they were last sent by: 1 page (4KiB) [0x0, 0x1)",
        "    the guest finds what it held before, or what the platform made of it. R4: what was"
        " converted since the last pass that arrived is sent again, also while in flight, and also"
        " if it flipped twice: merge(dirty, since=previous)",
        "shared at the stop or in the destination's list, not both: 1 page (4KiB) [0x0, 0x1)",
        "    the destination takes them for what they are not, and its next migration sends them"
        " so. set_list() the list that was read after the vCPUs had stopped, all of it",
    ]
    one = {"pages": 1, "ranges": 1, "first": [[0, 1]]}
    none: dict[str, Any] = {"pages": 0, "ranges": 0, "first": []}
    unsent = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16], [32, 48]]
    assert json.loads(json.dumps(report.as_dict())) == {
        "schema": "pysharedpages.verify/1",
        "clean": False,
        "passes": 1,
        "failed_passes": 0,
        "sent_pages": 8,
        "page_size": 4096,
        "findings": {
            "never_sent": {"pages": 24, "ranges": 9, "first": unsent},
            "private_sent_shared": none,
            "shared_sent_private": one,
            "stale": one,
            "dropped": none,
            "outside": none,
            "wrong_list": one,
        },
    }
    assert canonical(report.pages.ranges()) == [(0, 2), *[tuple(pair) for pair in unsent[1:]]]


def test_sizes_are_of_the_guests_pages() -> None:
    journal = clean_journal()
    assert "32 pages (64MiB)" in str(judge(journal, page_size=2 << 20))
    with pytest.raises(RangeError) as caught:
        judge(journal, page_size=0)
    names(caught.value, [0], [1])


def test_memory_is_guest_memory() -> None:
    with pytest.raises(TypeError, match="GuestMemory, not list"):
        verify(clean_journal(), (), memory=[(0, 0, 16)], nonzero=())  # type: ignore[arg-type]


def test_a_hundred_thousand_ranges_are_reported_in_a_few_lines() -> None:
    journal = Journal(shared=())
    journal.sent(shared=np.arange(200_000, dtype=np.uint64).reshape(-1, 2) * 2)
    report = verify(journal, (), memory=GuestMemory([(0, 0, 1 << 20)]), nonzero=PageSet())
    assert len(str(report)) < 1000
    assert len(json.dumps(report.as_dict())) < 4000
