# tier: unit
"""A journal's own duties: what it refuses, threads, interruptions, memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model import canonical, events, names

from pysharedpages import (
    ClosedError,
    FormatError,
    GuestMemory,
    PageSet,
    RangeError,
    SharedPages,
    SharedPagesError,
)
from pysharedpages.verify import Journal, Report, verify

# 16 pages of RAM; gfns 16 to 31 are MMIO, 32 to 47 RAM again.
MEMORY = GuestMemory([(0, 0, 16), (1, 32, 16)])
ALL = MEMORY.pages().ranges()


def judge(journal: Journal, final: Any = None, **other: Any) -> Report:
    """The report for a guest all of whose RAM holds data."""
    other.setdefault("nonzero", MEMORY.pages())
    return verify(journal, journal.shared if final is None else final, memory=MEMORY, **other)


def clean_journal() -> Journal:
    """All of RAM sent in one pass, page 3 shared."""
    journal = Journal(shared=[(3, 4)])
    journal.sent(shared=[(3, 4)], private=[(0, 3), (4, 16), (32, 48)])
    return journal


BAD_EVENTS = [
    pytest.param([(0, 1, True), (2**52 - 1, 2, True)], RangeError, id="past the last page"),
    pytest.param([(0, 1, True), (2**64 - 1, 2, True)], RangeError, id="wraps"),
    pytest.param([(0, 1, True), (1, 2**64 - 1, False)], RangeError, id="too many"),
    pytest.param([(0, 1, True), (1, 1, 2)], RangeError, id="neither shared nor private"),
    pytest.param(np.zeros(3), TypeError, id="no events"),
]


@pytest.mark.parametrize(("given", "error"), BAD_EVENTS)
def test_a_bad_event_changes_nothing(given: Any, error: type[Exception]) -> None:
    journal = clean_journal()
    with pytest.raises(error):
        journal.converted(given)
    assert canonical(journal.shared.ranges()) == [(3, 4)]
    assert judge(journal).is_clean


def test_an_interrupted_replay_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = clean_journal()
    pass_ = journal.begin()
    pass_.sent(private=[(0, 3)])

    def interrupted(_: object) -> PageSet:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pysharedpages.verify.journal.np.concatenate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.converted([(0, 9, True), (3, 1, False)])
    pass_.commit()
    assert canonical(journal.shared.ranges()) == [(3, 4)]
    assert judge(journal).is_clean


def test_more_events_than_are_replayed_at_once() -> None:
    journal = clean_journal()
    table = events(*[(gfn % 2, 1, bool(gfn // 2 % 2 == 0)) for gfn in range(70_000)], (5, 1, True))
    journal.converted(table)
    journal.converted(table[:0])
    assert canonical(journal.stale(PageSet()).ranges()) == [(0, 2), (5, 6)]
    assert canonical(journal.shared.ranges()) == [(3, 4), (5, 6)]


REFUSALS: list[tuple[Callable[[Journal], None], type[Exception]]] = [
    (lambda journal: journal.sent(shared=[(0, 5)], private=[(4, 9)]), RangeError),
    (lambda journal: journal.sent(shared=[(5, 4)]), RangeError),
    (lambda journal: journal.sent(private=[1, 2, 3]), FormatError),
    (lambda journal: journal.sent(dirty=["x"]), TypeError),
    (lambda journal: journal.sent(snapshot=SharedPages().snapshot()), TypeError),
]


@pytest.mark.parametrize(("call", "error"), REFUSALS)
def test_a_pass_that_is_none_changes_nothing(
    call: Callable[[Journal], None], error: type[Exception]
) -> None:
    journal = clean_journal()
    with pytest.raises(error):
        call(journal)
    assert (journal.passes, journal.failed_passes) == (1, 0)
    assert judge(journal).is_clean


def test_a_journal_of_snapshots_wants_them_all() -> None:
    pages, journal = SharedPages(64), Journal()
    with pytest.raises(TypeError):
        journal.sent(private=ALL)
    with pytest.raises(TypeError):
        journal.converted([(0, 1, True)])
    with pytest.raises(TypeError):
        journal.shared  # noqa: B018
    old = pages.snapshot()
    pages.share(0)
    journal.sent(private=ALL, snapshot=pages.snapshot())
    with pytest.raises(ValueError, match="tracker"):
        journal.begin(SharedPages().snapshot())
    with pytest.raises(TypeError, match="Snapshot"):
        judge(journal, PageSet())
    with pytest.raises(RangeError) as caught:
        judge(journal, old)
    names(caught.value, [0], [1])
    with pytest.raises(ValueError, match="tracker"):
        judge(journal, SharedPages(initial="shared").snapshot())
    pages.share(1)
    closed = pages.snapshot()
    closed.close()
    with pytest.raises(ClosedError):
        journal.begin(closed)
    assert (journal.passes, journal.failed_passes) == (1, 0)


def test_a_pass_ends_once() -> None:
    journal = Journal(shared=())
    first = journal.begin()
    second = journal.begin()
    for call in (
        first.commit,
        first.abort,
        first.sent,
        first.__enter__,
        lambda: first.harvested(()),
    ):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(SharedPagesError, match="pass 2 is open"):
        judge(journal)
    second.commit()
    with pytest.raises(ClosedError):
        second.abort()
    assert (journal.passes, journal.failed_passes) == (2, 1)


def test_vcpus_and_senders_tell_at_once() -> None:
    journal = Journal(shared=())
    journal.sent(private=[(0, 8000)])

    def vcpu(first: int) -> None:
        for gfn in range(first, 8000, 8):
            journal.converted([(gfn, 1, True), (gfn, 1, False)])

    def sender(first: int) -> None:
        for gfn in range(first, 8000, 8):
            pass_.sent(private=[(gfn, gfn + 1)])

    pass_ = journal.begin()
    tasks = [(vcpu, first) for first in range(4)] + [(sender, first) for first in range(2, 6)]
    threads = [threading.Thread(target=task, args=(first,)) for task, first in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pass_.commit()
    stale = [gfn for gfn in range(8000) if gfn % 8 < 4]
    assert journal.stale(PageSet()).pages().tolist() == stale
    assert len(journal.sent_private) == 8000


def test_memory_does_not_grow_with_passes() -> None:
    journal = Journal(shared=())
    for number in range(3000):
        journal.converted([(number % 16, 1, bool(number % 2))])
        journal.sent(private=ALL, dirty=ALL)
    assert journal.nbytes < 16384
    assert journal.passes == 3000
