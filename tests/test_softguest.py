# tier: unit
"""The software guest: sound itself, and every way of breaking its migration shows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory, SharedPages
from pysharedpages.softguest.cipher import PageCipher
from pysharedpages.softguest.comparison import Comparison
from pysharedpages.softguest.guest import Guest
from pysharedpages.softguest.host import Link
from pysharedpages.softguest.layout import Layout
from pysharedpages.softguest.migration import migrate
from pysharedpages.softguest.rounds import Rounds
from pysharedpages.softguest.scenario import Scenario
from pysharedpages.softguest.workload import WORKLOADS, Step, Workload
from pysharedpages.softguest.writelog import WriteLog
from pysharedpages.testing.space import PAGE_SIZE, AddressSpace

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
PLAIN = Scenario(
    memory_pages=262_144,
    resident_pages=1024,
    order="dirty-then-list",
    workload="boot",
    engine="auto",
    seed=SEED,
    rounds=2,
    source="model",
)
QUIET = replace(PLAIN, workload="quiet")
# In the layout of these guests: a page the quiet guest keeps private, and one of those that are
# shared in the first round and then left alone.
PRIVATE_GFN = 0
RESERVED_GFN = Layout(262_144, 1024).gfn(1023)


def living_vcpus() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "vcpu"]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workload that writes one page and converts nothing."""

    def nothing_shared(_owned: range, _rng: Random) -> Iterator[range]:
        return iter(())

    def one_page(owned: range, _rng: Random) -> Iterator[Step]:
        while True:
            yield Step(owned[-1], owned[-1] + 1)

    quiet = Workload("one page is written", nothing_shared, one_page)
    monkeypatch.setitem(WORKLOADS, "quiet", quiet)


def test_comparing_nothing_proves_nothing() -> None:
    report = migrate(PLAIN)
    assert report.verdict == "intact"
    assert replace(report, comparison=Comparison(0, [], True)).verdict == "unproven"


@pytest.mark.usefixtures("quiet")
def test_guest_that_converts_nothing_proves_nothing() -> None:
    report = migrate(QUIET)
    assert (report.verdict, report.converted_meanwhile) == ("unproven", 0)
    assert report.comparison.differing == []


def test_failing_vcpu_fails_the_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(owned: range, _rng: Random) -> Iterator[Step]:
        yield Step(owned[0], owned[0] + 1)
        raise ZeroDivisionError("a broken workload")

    workload = WORKLOADS["boot"]._replace(steps=broken)
    monkeypatch.setitem(WORKLOADS, "boot", workload)
    with pytest.raises(ZeroDivisionError, match="a broken workload"):
        migrate(PLAIN)
    assert living_vcpus() == []


class DropsOnePage(Link):
    """Never sends one private page."""

    def send_private(self, gfn: int) -> None:
        if gfn != PRIVATE_GFN:
            super().send_private(gfn)


class SendsPrivateAsShared(Link):
    """Sends one private page as its bytes lie in memory."""

    def send_private(self, gfn: int) -> None:
        (self.send_shared if gfn == PRIVATE_GFN else super().send_private)(gfn)


class SendsSharedAsPrivate(Link):
    """Sends one shared page through the platform."""

    def send_shared(self, gfn: int) -> None:
        (self.send_private if gfn == RESERVED_GFN else super().send_shared)(gfn)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("link", "gfn"),
    [
        (DropsOnePage, PRIVATE_GFN),
        (SendsPrivateAsShared, PRIVATE_GFN),
        (SendsSharedAsPrivate, RESERVED_GFN),
    ],
)
def test_one_page_sent_wrong_is_found(link: type[Link], gfn: int) -> None:
    report = migrate(QUIET, link=link)
    assert (report.verdict, report.comparison.differing) == ("corrupt", [gfn])


class KeepsTheFirstCopy(Link):
    """Sends no page twice: later writes never arrive."""

    def __init__(self, *hosts: Any) -> None:
        super().__init__(*hosts)
        self._sent: set[int] = set()

    def send_private(self, gfn: int) -> None:
        if gfn not in self._sent:
            self._sent.add(gfn)
            super().send_private(gfn)


@pytest.mark.usefixtures("quiet")
def test_old_copy_is_found() -> None:
    layout = Layout(262_144, 1024)
    report = migrate(QUIET, link=KeepsTheFirstCopy)
    assert report.comparison.differing == [layout.gfn(479), layout.gfn(959)]


class LosesTheList(Link):
    """Sends every page right and an empty list."""

    def send_list(self, ranges: NDArray[np.uint64]) -> None:
        super().send_list(ranges[:0])


def test_wrong_list_is_found() -> None:
    report = migrate(PLAIN, link=LosesTheList)
    assert (report.verdict, report.comparison.differing) == ("corrupt", [])
    assert report.comparison.list_equal is False


class ForgetfulLog(WriteLog):
    """A dirty log that was switched on late: what was written before is not in it."""

    forgot = False

    def collect(self, log: DirtyLog) -> None:
        if not self.forgot:
            super().collect(DirtyLog(GuestMemory([(0, 0, 262_144)])))
        self.forgot = True
        super().collect(log)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("vouches", [True, False])
def test_first_round_sends_all_that_no_source_vouches_for(
    monkeypatch: pytest.MonkeyPatch, vouches: bool
) -> None:
    monkeypatch.setattr(ForgetfulLog, "complete", vouches)
    monkeypatch.setattr("pysharedpages.softguest.migration.WriteLog", ForgetfulLog)
    report = migrate(QUIET)
    assert len(report.comparison.differing) == (958 if vouches else 0)
    assert report.comparison.list_equal is True
    assert (report.rounds[0].dirty == 1024) is not vouches


class Unheard:
    """An observer that keeps nothing."""

    def phase(self, name: str, npages: int) -> None:
        """Drop it."""

    def advance(self, npages: int) -> None:
        """Drop it."""


class Recorder(Link):
    """Notes what would be sent; while `broken`, fails at the first page."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.broken = False

    def send_shared(self, gfn: int) -> None:
        self._note("shared", gfn)

    def send_private(self, gfn: int) -> None:
        self._note("private", gfn)

    def send_list(self, ranges: NDArray[np.uint64]) -> None:
        self.list = ranges.tolist()

    def _note(self, path: str, gfn: int) -> None:
        if self.broken:
            raise ConnectionError("the link is down")
        self.sent.append((path, gfn))


def rounds_of(
    pages: SharedPages, writes: WriteLog, link: Link, between: Callable[[], None]
) -> Rounds:
    log = DirtyLog(GuestMemory([(0, 0, 1024)]))
    return Rounds(pages, log, writes, link, between=between, observer=Unheard())


def share(pages: SharedPages) -> None:
    pages.share(7)


def test_pages_converted_after_the_harvest_travel_by_the_new_list() -> None:
    with SharedPages(1024) as pages:
        link, writes = Recorder(), WriteLog()
        rounds = rounds_of(pages, writes, link, lambda: share(pages))
        writes.stored(3)
        [first] = rounds.live()
        assert link.sent == [("shared", 7), ("private", 3)]
        assert (first.dirty, first.converted) == (1, 1)
        assert (first.sent_shared, first.sent_private) == (1, 1)
        [second] = rounds.live()
        assert (second.dirty, second.converted, len(link.sent)) == (0, 0, 2)


def test_guest_stops_before_the_final_harvest() -> None:
    with SharedPages(1024) as pages:
        happened: list[str] = []
        link, writes = Recorder(), WriteLog()
        rounds = rounds_of(pages, writes, link, lambda: happened.append("between"))
        rounds.live()

        def stop() -> None:
            writes.stored(5)
            pages.share(9)
            happened.append("stop")

        [last] = rounds.final(stop)
        assert happened == ["between", "stop"]
        assert (last.final, last.dirty, link.sent) == (
            True,
            1,
            [("shared", 9), ("private", 5)],
        )
        assert link.list == [[9, 10]]


def test_failed_round_comes_again() -> None:
    with SharedPages(1024) as pages:
        link, writes = Recorder(), WriteLog()
        rounds = rounds_of(pages, writes, link, lambda: None)
        writes.stored(3)
        pages.share(7)
        pages.unshare(7)
        link.broken = True
        with pytest.raises(ConnectionError):
            rounds.live()
        link.broken = False
        rounds.live()
        assert link.sent == [("private", 3), ("private", 7)]


def test_cipher_depends_on_key_and_gfn() -> None:
    page = bytes(range(256)) * 16
    here, there = (PageCipher.derived(SEED, name) for name in ("source", "destination"))
    private = here.encrypt(7, page)
    assert len(private) == PAGE_SIZE
    assert here.decrypt(7, private) == page
    garbage = {private, there.decrypt(7, private), here.decrypt(8, private), here.encrypt(8, page)}
    assert len(garbage) == 4
    assert page not in garbage


class Witness:
    """A tracker that notes what the guest's page and table hold when a conversion reaches it."""

    def __init__(self, space: AddressSpace) -> None:
        self.guest: Guest | None = None
        self.seen: list[tuple[bool, bool, bytes]] = []
        self._space = space

    def share(self, gfn: int, npages: int = 1) -> None:
        self._note(True, gfn)

    def unshare(self, gfn: int, npages: int = 1) -> None:
        self._note(False, gfn)

    def _note(self, shared: bool, gfn: int) -> None:
        assert self.guest is not None
        self.seen.append((shared, self.guest.is_shared(3), self._space.read(gfn)))


def test_guest_converts_before_it_writes() -> None:
    with AddressSpace(1024) as space:
        witness = Witness(space)
        cipher = PageCipher.derived(SEED, "source")
        guest = Guest(Layout(1024, 1024), space, cipher, witness, seed=SEED)  # type: ignore[arg-type]
        witness.guest = guest
        guest.take(Step(3, 4))
        before = space.read(3)
        guest.take(Step(3, 4, (True, False, True)))
        assert witness.seen == [(True, True, before), (False, False, before), (True, True, before)]
        assert space.read(3) == guest.written(3)
        assert cipher.decrypt(3, before) != guest.written(3)
        assert guest.shared_ranges().tolist() == [[3, 4]]


def test_layout_spreads_pages_over_the_memory() -> None:
    layout = Layout(262_144, 1024)
    gfns = layout.gfns(np.arange(1024))
    assert gfns.tolist() == [layout.gfn(index) for index in range(1024)]
    assert bool((np.diff(gfns.astype(np.int64)) > 0).all())
    assert gfns[:256].tolist() == list(range(256))
    assert 250_000 < int(gfns[-1]) < 262_144
    ranges = layout.ranges()
    assert len(ranges) == 33
    assert [gfn for start, stop in ranges.tolist() for gfn in range(start, stop)] == gfns.tolist()
