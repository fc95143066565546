# tier: unit
"""Samples of a migration: what they count, and that nothing is lost by taking them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from pysharedpages import ClosedError, DirtyLog, GuestMemory, Harvest, PageSet, SharedPages
from pysharedpages.migration import Migration, Round, Sample

NPAGES = 1000


class Source:
    """Reports the pages that the test wrote."""

    complete = False

    def __init__(self) -> None:
        self.written: set[int] = set()

    def collect(self, log: DirtyLog) -> None:
        """Adds what was written, and re-arms."""
        log.add_pages(sorted(self.written))
        self.written.clear()


class Guest:
    """A tracker, a source and a clock that the test moves, under a migration."""

    def __init__(self) -> None:
        self.pages = SharedPages(NPAGES)
        self.source = Source()
        self.now = 0.0
        log = DirtyLog(GuestMemory([(0, 0, NPAGES)]))
        self.migration = Migration(self.pages, log, [self.source], clock=lambda: self.now)

    def write(self, *gfns: int) -> None:
        """The guest's vCPUs write to pages."""
        self.source.written.update(gfns)


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A guest whose first round, of all memory, has arrived."""
    guest = Guest()
    for _ in guest.migration.rounds(1):
        pass
    yield guest
    guest.pages.close()


def sent(round_: Round) -> PageSet:
    """All pages of a round."""
    return PageSet.from_ranges(round_.shared) | PageSet.from_ranges(round_.private)


def next_round(guest: Guest) -> list[int]:
    """What the next round sends."""
    found = PageSet()
    for round_ in guest.migration.rounds(1):
        found |= sent(round_)
    return list(found)


def test_one_that_another_has_ended_does_not_end_that(guest: Guest) -> None:
    older, newer = guest.migration.sample(), guest.migration.sample()
    older.__enter__()
    guest.write(1)
    newer.__enter__()
    guest.write(2)
    older.__exit__(None, None, None)
    guest.write(3)
    newer.__exit__(None, None, None)
    assert [each.private_pages for each in guest.migration.samples] == [2]
    assert next_round(guest) == [1, 2, 3]


def test_interrupt_while_pages_go_back_loses_none(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Harvest) -> None:
        raise KeyboardInterrupt

    guest.write(1)
    sample = guest.migration.sample()
    sample.__enter__()
    guest.write(2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as kept:
        patch.setattr(Harvest, "abort", interrupted)
        sample.__exit__(None, None, None)
    assert next_round(guest) == [1, 2]  # while the traceback holds all that its frames do
    del kept


def test_it_counts_what_gets_dirty_while_the_body_runs(guest: Guest) -> None:
    guest.write(1, 2, 3)
    guest.pages.share(100, 10)
    guest.now = 5.0
    with guest.migration.sample():
        guest.write(2, 50)
        guest.pages.share(200, 4)
        guest.pages.unshare(100, 1)
        guest.write(200)
        guest.now = 5.25
    assert guest.migration.samples == (Sample(1, 0.25, 4, 3),)


def test_nothing_is_taken_from_the_next_round(guest: Guest) -> None:
    guest.write(1, 2, 3)
    with guest.migration.sample():
        guest.write(3, 4)
        guest.pages.share(9)
    with guest.migration.sample():
        guest.write(5)
    guest.write(6)
    assert next_round(guest) == [1, 2, 3, 4, 5, 6, 9]
    assert next_round(guest) == []


def test_pages_that_others_add_to_the_log_are_counted(guest: Guest) -> None:
    guest.migration.log.add_pages([7])
    with guest.migration.sample():
        guest.migration.log.add_pages([8, 9])
    assert [each.private_pages for each in guest.migration.samples] == [2]
    assert next_round(guest) == [7, 8, 9]


def test_a_body_that_fails_loses_nothing(guest: Guest) -> None:
    guest.write(1)
    with pytest.raises(OSError, match="broken pipe"), guest.migration.sample():
        guest.write(2)
        raise OSError("broken pipe")
    assert guest.migration.samples == ()
    assert next_round(guest) == [1, 2]


def test_a_round_that_begins_within_ends_the_sample(guest: Guest) -> None:
    guest.write(1)
    with guest.migration.sample():
        guest.write(2)
        assert next_round(guest) == [1, 2]
        guest.write(3)
    assert guest.migration.samples == ()
    assert next_round(guest) == [3]


def test_final_rounds_within_a_sample_lose_nothing(guest: Guest) -> None:
    guest.write(1, 2)
    arrived = PageSet()
    with guest.migration.sample():
        for round_ in guest.migration.final():
            arrived |= sent(round_)
    assert list(arrived) == [1, 2]


def test_a_sample_within_a_sample_ends_the_outer_one(guest: Guest) -> None:
    guest.write(1)
    with guest.migration.sample():
        guest.write(2)
        with guest.migration.sample():
            guest.write(3)
    assert [each.private_pages for each in guest.migration.samples] == [1]
    assert next_round(guest) == [1, 2, 3]


def test_a_source_that_fails_at_the_end_loses_nothing(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.write(1)
    with pytest.raises(OSError, match="no vm"), guest.migration.sample():
        guest.write(2)
        monkeypatch.setattr(guest.source, "collect", _no_vm)
    monkeypatch.undo()
    assert guest.migration.samples == ()
    assert next_round(guest) == [1, 2]


def _no_vm(log: DirtyLog) -> None:
    raise OSError("no vm")


def test_a_closed_migration_takes_none(guest: Guest) -> None:
    with guest.migration.sample():
        guest.write(7)
        guest.migration.close()
    guest.write(8)
    with pytest.raises(ClosedError, match="the migration is closed"), guest.migration.sample():
        pass
    assert guest.migration.samples == ()
    assert guest.source.written == {7, 8}


def test_rounds_aborted_while_sampled_come_again(guest: Guest) -> None:
    guest.write(1, 2)
    with pytest.raises(OSError, match="gone"):
        for _ in guest.migration.rounds(1):
            with guest.migration.sample():
                guest.write(2, 3)
            raise OSError("gone")
    assert next_round(guest) == [1, 2, 3]


def test_every_page_arrives_whatever_is_sampled(rng: np.random.Generator, scale: float) -> None:
    for _ in range(round(20 * scale) + 5):
        guest = Guest()
        pending = set(range(NPAGES))
        for _ in range(8):
            for round_ in guest.migration.rounds(1):
                assert set(sent(round_)) == pending
                pending = set()
                for _ in range(int(rng.integers(0, 4))):
                    gfns = rng.integers(0, NPAGES, 5).tolist()
                    if rng.integers(2):
                        with guest.migration.sample():
                            guest.write(*gfns)
                    else:
                        guest.write(*gfns)
                    pending.update(gfns)
        guest.pages.close()


def test_conversions_from_other_threads_are_counted_once_or_come_later(guest: Guest) -> None:
    stop = threading.Event()

    def convert() -> None:
        gfn = 0
        while not stop.is_set():
            gfn = (gfn + 1) % NPAGES
            guest.pages.convert(gfn, 1, gfn not in guest.pages)

    vcpu = threading.Thread(target=convert)
    vcpu.start()
    try:
        for _ in range(20):
            with guest.migration.sample():
                before = guest.pages.epoch
                guest.pages.wait(before, timeout=30)
    finally:
        stop.set()
        vcpu.join()
    counts = [each.shared_pages + each.private_pages for each in guest.migration.samples]
    assert len(counts) == 20
    assert all(1 <= count <= NPAGES for count in counts)
