# tier: unit
"""How a migration ends, or does not: final passes, what forbids them, and bad arguments."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from migration_support import NPAGES, Host, Told, sent

from pysharedpages import (
    ClosedError,
    DirtyLog,
    GuestMemory,
    PageSet,
    RangeError,
    SharedPages,
    Snapshot,
)
from pysharedpages.migration import (
    Migration,
    MigrationForbiddenError,
    StillDirtyError,
)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    with host.pages:
        yield host


def test_final_ends_with_a_pass_that_finds_nothing(host: Host) -> None:
    host.write(5)
    host.pages.share(6)
    found = []
    for round_ in host.migration.final():
        assert (round_.is_final, host.migration.is_finished) == (True, False)
        found.append(sent(round_))
        if len(found) == 1:
            host.write(7)
    assert found == [([[6, 7]], [[5, 6]]), ([], [[7, 8]])]
    assert host.migration.is_finished
    assert [r.private_pages for r in host.migration.history if r.is_final] == [1, 1, 0]
    assert host.migration.snapshot.ranges().tolist() == [[6, 7]]
    assert [sent(r) for r in host.migration.final()] == [([], [])]
    assert host.migration.is_finished
    for _ in host.migration.rounds(1):
        assert not host.migration.is_finished


def test_list_after_final_has_what_is_no_memory() -> None:
    with SharedPages(NPAGES) as pages:
        migration = Migration(pages, DirtyLog(GuestMemory([(0, 0, 8)])), [Told()])
        for _ in migration.final():
            pages.share(32)
        assert migration.snapshot.ranges().tolist() == [[32, 33]]


def test_final_is_bounded_and_says_what_is_left(host: Host) -> None:
    host.pages.share(8)
    with pytest.raises(StillDirtyError, match="2 pages are dirty after 3 rounds") as caught:
        for _ in host.migration.final(3):
            host.write(5, 8)
    assert caught.value.left == PageSet.from_pages([5, 8])
    assert not host.migration.is_finished
    assert len(host.migration.history) == 3
    with host.log.take() as harvest:
        assert len(harvest) == 2
        harvest.abort()
    assert host.one() == ([[8, 9]], [[5, 6]])
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (copied.left, str(copied)) == (caught.value.left, str(caught.value))


def test_pages_that_a_bounded_final_did_not_hand_out_lie_nowhere(host: Host) -> None:
    with pytest.raises(StillDirtyError):
        for _ in host.migration.final(1):
            host.write(5)
    host.pages.share(5)
    for round_ in host.migration.rounds(1):
        assert sent(round_) == ([[5, 6]], [])
        assert not round_.rerouted


@pytest.mark.parametrize("allowed", [None, True])
def test_only_false_forbids(host: Host, allowed: bool | None) -> None:
    host.pages.migration_allowed = allowed
    assert [sent(r) for r in host.migration.final()] == [([], [])]


def test_final_is_refused_while_the_guest_forbids_it(host: Host) -> None:
    host.pages.migration_allowed = False
    with pytest.raises(MigrationForbiddenError, match="migration_allowed"):
        host.migration.final()
    host.write(5)
    assert [sent(r) for r in host.migration.final(force=True)] == [([], [[5, 6]])]
    assert host.migration.is_finished
    assert host.one() == ([], [])


def test_final_is_refused_at_any_pass(host: Host) -> None:
    host.write(5)
    done = 0
    with pytest.raises(MigrationForbiddenError):
        for _ in host.migration.final():
            done += 1
            host.write(5 + done)
            host.pages.migration_allowed = False
    assert (done, host.migration.is_finished) == (1, False)
    assert host.one() == ([], [[6, 7]])
    host.pages.migration_allowed = True
    late = host.migration.final()
    host.pages.migration_allowed = False
    with pytest.raises(MigrationForbiddenError):
        next(late)
    assert len(host.migration.history) == 2


class Blind:
    """No source: it does not say whether it is complete."""

    def collect(self, log: DirtyLog) -> None:
        """Adds nothing."""


def bad_arguments() -> dict[str, tuple[dict[str, Any], type[Exception]]]:
    return {
        "no tracker": ({"pages": object()}, TypeError),
        "a set": ({"pages": PageSet()}, TypeError),
        "no log": ({"log": GuestMemory([(0, 0, 8)])}, TypeError),
        "one source": ({"sources": Told()}, TypeError),
        "no source": ({"sources": [object()]}, TypeError),
        "half a source": ({"sources": [Blind()]}, TypeError),
        "0 threads": ({"threads": 0}, RangeError),
        "257 threads": ({"threads": 257}, RangeError),
        "-1 threads": ({"threads": -1}, RangeError),
        "threads as text": ({"threads": "2"}, TypeError),
        "no clock": ({"clock": 3.0}, TypeError),
    }


@pytest.mark.parametrize("what", bad_arguments())
def test_bad_arguments_change_nothing(what: str) -> None:
    wrong, error = bad_arguments()[what]
    with SharedPages(NPAGES) as pages:
        log = DirtyLog(GuestMemory([(0, 0, 8)]))
        with pytest.raises(error):
            Migration(**{"pages": pages, "log": log, "sources": [Told(False)], **wrong})
        assert len(log.take()) == 0


def test_closed_tracker_is_refused() -> None:
    pages, log = SharedPages(NPAGES), DirtyLog(GuestMemory([(0, 0, 8)]))
    pages.close()
    with pytest.raises(ClosedError):
        Migration(pages, log, [Told(False)])
    assert len(log.take()) == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda m: m.rounds(-1), RangeError),
        (lambda m: m.rounds("3"), TypeError),
        (lambda m: m.rounds(until=3), TypeError),
        (lambda m: m.final(0), RangeError),
        (lambda m: m.final(1.5), TypeError),
    ],
)
def test_bad_bounds_are_refused_at_once(
    host: Host, call: Callable[[Migration], object], error: type[Exception]
) -> None:
    host.write(3)
    with pytest.raises(error):
        call(host.migration)
    assert host.one() == ([], [[3, 4]])


def test_closed_tracker_loses_no_page(host: Host) -> None:
    host.write(3)
    host.pages.close()
    for rounds in (host.migration.rounds, host.migration.final):
        with pytest.raises(ClosedError):
            next(rounds())
    assert len(host.log.take()) == 1


def test_snapshot_is_a_copy(host: Host) -> None:
    snapshot = host.migration.snapshot
    assert isinstance(snapshot, Snapshot)
    assert copy.copy(snapshot) == snapshot
    snapshot.close()
    assert host.one() == ([], [])
