# tier: unit
"""Slots that come and go while a guest is migrated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from migration_support import Host, Told, sent

from pysharedpages import ClosedError, DirtyLog, GuestMemory, SharedPages
from pysharedpages.migration import Migration

SMALL = GuestMemory([(0, 0, 64)])
LARGE = GuestMemory([(0, 0, 64), (1, 128, 8)])


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    with host.pages:
        yield host


def test_new_slot_s_pages_are_dirty_and_others_are_not(host: Host) -> None:
    host.write(3)
    assert host.one() == ([], [[3, 4]])
    host.pages.share(130)
    host.migration.set_memory(LARGE)
    assert host.migration.memory is host.log.memory is LARGE
    assert host.one() == ([[130, 131]], [[128, 130], [131, 136]])
    assert host.one() == ([], [])


def test_what_is_no_longer_memory_is_dropped(host: Host) -> None:
    host.migration.set_memory(LARGE)
    host.write(3)
    for round_ in host.migration.rounds(1):
        assert sent(round_) == ([], [[3, 4], [128, 136]])
        round_.abort()
    host.migration.set_memory(SMALL)
    host.pages.share(128)
    assert host.one() == ([], [[3, 4]])


@pytest.mark.parametrize("arrives", [False, True])
def test_open_round_may_end_either_way_when_slots_go(host: Host, arrives: bool) -> None:
    host.migration.set_memory(LARGE)
    host.write(3)
    for round_ in host.migration.rounds(1):
        host.migration.set_memory(SMALL)
        if not arrives:
            round_.abort()
    assert host.one() == (([], []) if arrives else ([], [[3, 4]]))


@pytest.mark.parametrize("arrives", [False, True])
def test_open_round_may_end_either_way_when_slots_come(host: Host, arrives: bool) -> None:
    host.write(3)
    for round_ in host.migration.rounds(1):
        host.migration.set_memory(LARGE)
        if not arrives:
            round_.abort()
    assert host.one() == ([], [[128, 136]] if arrives else [[3, 4], [128, 136]])


def test_page_of_a_slot_that_went_and_came_lies_nowhere(host: Host) -> None:
    host.migration.set_memory(LARGE)
    host.write(3)
    host.one()
    for round_ in host.migration.rounds(1):
        host.write(130)
        round_.abort()
    host.migration.set_memory(SMALL)
    host.migration.set_memory(LARGE)
    host.pages.share(3)
    host.pages.share(130)
    for round_ in host.migration.rounds(1):
        assert sent(round_) == ([[3, 4], [130, 131]], [[128, 130], [131, 136]])
        assert list(round_.rerouted) == [3]


def test_page_whose_slot_went_and_came_amid_a_round_lies_nowhere(host: Host) -> None:
    host.migration.set_memory(LARGE)
    host.one()
    for _ in host.migration.rounds(1):
        host.migration.set_memory(SMALL)
        host.migration.set_memory(LARGE)
    host.pages.share(130)
    for round_ in host.migration.rounds(1):
        assert sent(round_) == ([[130, 131]], [[128, 130], [131, 136]])
        assert not round_.rerouted


def test_page_that_is_in_another_slot_now_may_still_lie_there(host: Host) -> None:
    host.write(3)
    host.one()
    host.migration.set_memory(GuestMemory([(0, 0, 32)]))  # another slot of that number
    host.pages.share(3)
    for round_ in host.migration.rounds(1):
        assert sent(round_) == ([[3, 4]], [[0, 3], [4, 32]])
        assert list(round_.rerouted) == [3]


def test_log_s_own_slots_are_noticed(host: Host) -> None:
    host.write(3)
    host.one()
    host.log.set_memory(GuestMemory([(1, 32, 32)]))
    host.log.set_memory(SMALL)
    host.pages.share(3)
    assert host.one()[0] == [[3, 4]]
    host.log.set_memory(LARGE)
    assert host.one() == ([], [[128, 136]])


def test_final_is_no_longer_the_last_when_slots_come(host: Host) -> None:
    for _ in host.migration.final():
        pass
    before = host.migration.is_finished
    host.migration.set_memory(LARGE)
    assert (before, host.migration.is_finished) == (True, False)
    assert [sent(r) for r in host.migration.final()] == [([], [[128, 136]])]


class Moving(Told):
    """A source that wants to know of slots, and may refuse them."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: GuestMemory | None = None
        self.refuses = False

    def set_memory(self, memory: GuestMemory) -> None:
        if self.refuses:
            raise OSError("KVM has no such slot")
        self.memory = memory


def test_sources_are_told_and_may_refuse() -> None:
    with SharedPages(256) as pages:
        log, one, two = DirtyLog(SMALL), Moving(), Moving()
        migration = Migration(pages, log, [one, Told(), two])
        two.refuses = True
        with pytest.raises(OSError, match="no such slot"):
            migration.set_memory(LARGE)
        assert log.memory is SMALL
        assert [sent(r) for r in migration.rounds(1)] == [([], [])]
        two.refuses = False
        migration.set_memory(LARGE)
        assert one.memory is two.memory is log.memory is LARGE
        assert [sent(r) for r in migration.rounds(1)] == [([], [[128, 136]])]


def test_sources_that_leave_are_collected_from_once_more() -> None:
    with SharedPages(256) as pages:
        log, stays, leaves, joins = DirtyLog(LARGE), Moving(), Moving(), Moving()
        migration = Migration(pages, log, [stays, leaves])
        stays.gfns, leaves.gfns, joins.gfns = [1], [2, 129], [3]
        migration.set_memory(SMALL, [stays, joins])
        assert (leaves.gfns, leaves.memory, stays.gfns) == ([], None, [1])
        assert (stays.memory, joins.memory) == (SMALL, None)
        assert [sent(r) for r in migration.rounds(1)] == [([], [[1, 4]])]
        leaves.gfns = [5]
        assert [sent(r) for r in migration.rounds(1)] == [([], [])]


@pytest.mark.parametrize("joins_later", [False, True])
def test_next_migration_gets_what_a_complete_source_reported_to_this_one(joins_later: bool) -> None:
    with SharedPages(64) as pages:
        log, vouches, other = DirtyLog(SMALL), Told(), Told(complete=False)
        vouches.gfns = [1, 5]
        sources = [other] if joins_later else [vouches, other]
        with Migration(pages, log, sources) as migration:
            if joins_later:
                migration.set_memory(SMALL, [vouches])
            for _ in migration.final():
                pass
        next_one = Migration(pages, log, [vouches])
        assert [sent(r) for r in next_one.final()] == [([], [[0, 64]])]


def test_bad_memory_changes_nothing(host: Host) -> None:
    for memory, sources in (([(0, 0, 8)], None), (LARGE, [object()]), (LARGE, Told())):
        with pytest.raises(TypeError):
            host.migration.set_memory(memory, sources)  # type: ignore[arg-type]
    assert len(host.migration.memory) == 1
    assert host.one() == ([], [])
    host.migration.close()
    with pytest.raises(ClosedError):
        host.migration.set_memory(LARGE)
