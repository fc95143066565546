# tier: unit
"""Migration, round by round and by hand: what each sends, and what each ending of it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from migration_support import NPAGES, Host, Told, sent

from pysharedpages import (
    ClosedError,
    DirtyLog,
    GuestMemory,
    SharedPages,
)
from pysharedpages.migration import (
    Migration,
    Round,
    RoundRecord,
)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    with host.pages:
        yield host


def test_rounds_send_what_was_written_or_converted_since(host: Host) -> None:
    host.write(3, 4, 9)
    host.pages.share(4)
    assert host.one() == ([[4, 5]], [[3, 4], [9, 10]])
    assert host.one() == ([], [])
    host.pages.share(20)
    host.pages.unshare(20)
    host.write(4)
    assert host.one() == ([[4, 5]], [[20, 21]])
    assert [record.number for record in host.migration.history] == [1, 2, 3]
    assert [record.private_pages for record in host.migration.history] == [2, 0, 1]
    assert [record.shared_pages for record in host.migration.history] == [1, 0, 1]
    assert [record.converted_pages for record in host.migration.history] == [1, 0, 1]


@pytest.mark.parametrize("sources", [[], [Told(False)], [Told(), Told(False)]])
def test_first_round_sends_all_that_no_source_vouches_for(sources: list[Told]) -> None:
    with SharedPages(NPAGES) as pages:
        log = DirtyLog(GuestMemory([(0, 8, 8), (1, 32, 8)]))
        migration = Migration(pages, log, sources)
        pages.share(9)
        pages.share(20)  # MMIO
        first, second = (sent(r) for r in migration.rounds(2))
        assert first == ([[9, 10]], [[8, 9], [10, 16], [32, 40]])
        assert second == ([], [])


def test_page_converted_in_flight_comes_again(host: Host) -> None:
    host.write(5)
    for round_ in host.migration.rounds(1):
        assert sent(round_) == ([], [[5, 6]])
        host.pages.share(5)
    assert host.one() == ([[5, 6]], [])


@pytest.mark.parametrize("end", ["exception", "break", "abort", "drop"])
def test_round_that_does_not_arrive_comes_again(host: Host, end: str) -> None:
    host.write(5)
    host.pages.share(7)
    try:
        for round_ in host.migration.rounds():
            host.write(6)
            host.pages.unshare(7)
            if end == "exception":
                raise ConnectionError
            if end == "break":
                break
            if end == "drop":
                del round_
                break
            round_.abort()
            break
    except ConnectionError:
        pass
    assert host.migration.history == ()
    assert host.one() == ([], [[5, 8]])


def test_body_may_abort_and_go_on(host: Host) -> None:
    host.write(5)
    seen = []
    for round_ in host.migration.rounds(3):
        seen.append(sent(round_))
        if len(seen) == 1:
            round_.abort()
    assert seen == [([], [[5, 6]]), ([], [[5, 6]]), ([], [])]
    assert [record.number for record in host.migration.history] == [2, 3]


def test_committed_round_stays_committed_whatever_follows(host: Host) -> None:
    host.write(5)
    with pytest.raises(ConnectionError):
        for round_ in host.migration.rounds():
            round_.commit()
            raise ConnectionError
    for round_ in host.migration.rounds():
        assert sent(round_) == ([], [])
        round_.commit()
        break
    assert len(host.migration.history) == 2


def test_round_ends_once(host: Host) -> None:
    for end in (Round.commit, Round.abort):
        for round_ in host.migration.rounds(1):
            assert round_.is_open
            end(round_)
            for again in (round_.commit, round_.abort, round_.__enter__):
                with pytest.raises(ClosedError, match=f"round {round_.number} was already"):
                    again()
            assert (round_.is_open, round_.is_committed) == (False, end is Round.commit)


def test_round_may_be_entered_in_the_body_again(host: Host) -> None:
    host.write(5)
    for round_ in host.migration.rounds(1):
        with round_ as same:
            assert same is round_
        assert round_.is_committed
    host.write(6)
    with pytest.raises(ConnectionError):
        for round_ in host.migration.rounds(1):
            with round_:
                raise ConnectionError
    assert host.one() == ([], [[6, 7]])


def test_newer_round_aborts_one_that_a_kept_loop_left_open(host: Host) -> None:
    host.write(5)
    loop = host.migration.rounds()
    round_ = next(loop)
    assert [sent(r) for r in host.migration.final()] == [([], [[5, 6]])]
    assert not round_.is_open
    with pytest.raises(ClosedError, match="round 1 was ended when round 2 began"):
        next(loop)
    assert [record.number for record in host.migration.history] == [2, 3]


@pytest.mark.parametrize("outer", [Migration.rounds, Migration.final])
def test_loops_within_loops_end_the_outer_one(
    host: Host, outer: Callable[[Migration], Iterator[Round]]
) -> None:
    host.write(5)
    inner = []
    with pytest.raises(ClosedError, match="round 1 was ended"):
        for _ in outer(host.migration):
            inner = [sent(round_) for round_ in host.migration.rounds(2)]
    assert inner == [([], [[5, 6]]), ([], [])]


def test_rounds_can_be_asked_for_again_and_again(host: Host) -> None:
    for gfn in (3, 4, 5):
        host.write(gfn)
        assert [sent(r) for r in host.migration.rounds(1)] == [([], [[gfn, gfn + 1]])]
    assert [sent(r) for r in host.migration.rounds(0)] == []


def test_until_is_asked_of_rounds_that_arrived(host: Host) -> None:
    asked = []

    def until(round_: Round) -> bool:
        asked.append(round_.number)
        return round_.number >= 3

    for round_ in host.migration.rounds(until=until):
        if round_.number in (1, 3):
            round_.abort()
    assert asked == [2, 4]
    with pytest.raises(ZeroDivisionError):
        for _ in host.migration.rounds(until=lambda _: 1 // 0 > 0):
            host.write(9)
    assert len(host.migration.history) == 3
    assert host.one() == ([], [[9, 10]])


def test_rerouted_pages_came_on_the_other_path(host: Host) -> None:
    host.write(1, 2, 3, 4)
    host.pages.share(4)
    for round_ in host.migration.rounds(1):
        assert not round_.rerouted
    host.pages.share(1)  # another path
    host.pages.share(2)  # there and back: the same
    host.pages.unshare(2)
    host.pages.unshare(4)
    host.pages.share(5)  # never sent
    for round_ in host.migration.rounds(1):
        assert sent(round_) == ([[1, 2], [5, 6]], [[2, 3], [4, 5]])
        assert list(round_.rerouted) == [1, 4]
    assert host.migration.history[-1].rerouted_pages == 2
    host.write(1, 2, 3, 4, 5)
    for round_ in host.migration.rounds(1):
        assert not round_.rerouted


def test_rerouted_pages_may_have_come_by_aborted_rounds(host: Host) -> None:
    host.write(1, 2, 3)
    for round_ in host.migration.rounds(1):
        round_.abort()  # 1, 2, 3 private
    host.pages.share(1)
    host.pages.share(2)
    for round_ in host.migration.rounds(1):
        assert list(round_.rerouted) == [1, 2]
        round_.abort()  # 1, 2 either
    host.pages.unshare(2)
    for round_ in host.migration.rounds(1):
        assert sent(round_) == ([[1, 2]], [[2, 4]])
        assert list(round_.rerouted) == [1, 2]
    for round_ in host.migration.rounds(1):
        assert not round_.rerouted
    host.pages.unshare(1)
    host.pages.share(2)
    for round_ in host.migration.rounds(1):
        assert list(round_.rerouted) == [1, 2]


def test_rerouted_is_known_where_all_memory_was_sent_at_first() -> None:
    host = Host(complete=False)
    with host.pages:
        assert host.one() == ([], [[0, 64]])
        host.pages.share(63)
        for round_ in host.migration.rounds(1):
            assert list(round_.rerouted) == [63]


def test_dirty_pages_are_counted(host: Host) -> None:
    host.write(1, 2)
    host.pages.share(2, 4)
    for round_ in host.migration.rounds(1):
        assert (round_.dirty_pages, round_.pages) == (2, 5)
    with pytest.raises(ClosedError):
        _ = round_.dirty_pages


def test_instants_are_of_the_migration_s_clock() -> None:
    ticks = iter(range(100))
    host = Host(clock=lambda: float(next(ticks)))
    with host.pages:
        host.write(1)
        host.one()
        host.one()
        assert host.migration.history[0] == RoundRecord(1, False, 0, 1, 2, 3, 4, 0, 1, 0, 0)
        assert host.migration.history[1] == RoundRecord(2, False, 5, 6, 7, 8, 9, 0, 0, 0, 0)


def test_what_is_handed_out_may_be_closed_but_not_changed(host: Host) -> None:
    host.write(1)
    host.pages.share(2)
    for round_ in host.migration.rounds(3):
        for ranges in (round_.shared, round_.private):
            with pytest.raises(ValueError, match="read-only"):
                ranges <<= 12
        with round_.snapshot as snapshot:
            assert list(snapshot) == [2]
        with host.migration.snapshot:
            pass
    kept = host.migration.snapshot
    host.pages.share(3)
    host.one()
    host.migration.close()
    assert list(kept) == [2]


def test_close_gives_back_what_is_out_and_what_was_sent(host: Host) -> None:
    host.write(1)
    host.one()
    host.write(2)
    loop = host.migration.rounds()
    round_ = next(loop)
    host.migration.close()
    host.migration.close()
    assert not round_.is_open
    assert len(host.log.take()) == 2
    for use in (
        host.migration.rounds,
        host.migration.final,
        host.migration.__enter__,
        lambda: next(loop),
        lambda: host.migration.snapshot,
    ):
        with pytest.raises(ClosedError, match="migration is closed"):
            use()
    assert len(host.migration.history) == 1


def test_another_migration_sends_to_its_own_destination_what_the_first_had_sent(host: Host) -> None:
    host.write(1, 5)
    with host.migration:
        host.one()
        host.write(2)
        host.one()
    with Migration(host.pages, host.log, [host.source]) as second:
        assert [sent(r) for r in second.final()] == [([], [[1, 3], [5, 6]])]


def test_nothing_is_held_that_is_not_needed(host: Host) -> None:
    def versions() -> int:
        return host.pages.stats()["versions"]

    gfns = iter(range(64))
    host.pages.share(next(gfns))
    before = versions()
    for round_ in host.migration.rounds(5):
        host.pages.share(next(gfns))
        if round_.number % 2:
            round_.abort()
    del round_
    assert versions() == before == 2
    for round_ in host.migration.rounds(1):
        host.pages.share(next(gfns))
        round_.commit()
        assert versions() == before  # the round's and the newest
    del round_
    host.migration.close()
    assert versions() == 1


def test_repr_says_where_it_stands(host: Host) -> None:
    host.write(3)
    assert repr(host.migration) == "<Migration, under way: 0 rounds arrived>"
    for round_ in host.migration.final():
        assert repr(round_) == "<final round 1, open: 0 shared and 1 private pages>"
    assert repr(host.migration) == "<Migration, finished: 2 rounds arrived>"
    host.migration.close()
    assert repr(host.migration) == "<Migration, closed: 2 rounds arrived>"
