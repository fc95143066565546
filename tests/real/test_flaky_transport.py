# tier: real
"""Migrations over a transport that fails in three rounds of ten, of guests in real memory.

SP_TEST_SCALE=10 migrates 200 of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from random import Random

import pytest

from pysharedpages import DirtyLog, GuestMemory, SharedPages
from pysharedpages._core import Transfer
from pysharedpages.migration import Migration, Round
from pysharedpages.softguest.cipher import PageCipher
from pysharedpages.softguest.comparison import Comparison, View, compare
from pysharedpages.softguest.guest import Guest
from pysharedpages.softguest.host import DestinationHost, Link, SourceHost
from pysharedpages.softguest.layout import Layout
from pysharedpages.softguest.vcpu import Vcpus
from pysharedpages.softguest.workload import WORKLOADS
from pysharedpages.sources import ProcessMemory
from pysharedpages.testing import AddressSpace

REASON = ProcessMemory.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
FAILING = 0.3
MEMORY_PAGES, RESIDENT_PAGES = 1 << 20, 384
LIVE_ROUNDS, STEPS_A_ROUND = 3, 32


class LinkDownError(Exception):
    """The transport failed, and some of the round's pages have arrived."""


class FlakyLink(Link):
    """Fails in three rounds of ten: before any of its pages, or after all of them at the latest."""

    def __init__(self, source: SourceHost, destination: DestinationHost, rng: Random) -> None:
        super().__init__(source, destination)
        self._rng = rng
        self._left = -1
        self.failures = 0
        self.arrived_in_vain = 0

    def send(self, transfer: Transfer, sent: Callable[[int], None]) -> None:
        npages = transfer.shared_pages + transfer.private_pages
        fails = self._rng.random() < FAILING
        self._left = left = self._rng.randint(0, npages) if fails else -1
        try:
            super().send(transfer, sent)
            self._count()
        except LinkDownError:
            self.failures += 1
            self.arrived_in_vain += left
            raise

    def send_shared(self, gfn: int) -> None:
        self._count()
        super().send_shared(gfn)

    def send_private(self, gfn: int) -> None:
        self._count()
        super().send_private(gfn)

    def _count(self) -> None:
        if self._left == 0:
            raise LinkDownError
        self._left -= 1


def arrived(rounds: Iterator[Round], link: Link) -> bool:
    """Whether all of the rounds arrived; one that does not ends them."""
    try:
        for round_ in rounds:
            link.send(round_.transfer, lambda _: None)
    except LinkDownError:
        return False
    return True


def migrate(seed: int, kind: type[Migration] = Migration) -> tuple[Comparison, FlakyLink]:
    """Migrate a software guest that runs all the while, in `LIVE_ROUNDS` rounds and final ones."""
    rng = Random(f"{seed}/flaky")
    with (
        AddressSpace(MEMORY_PAGES) as here,
        AddressSpace(MEMORY_PAGES) as there,
        SharedPages(MEMORY_PAGES) as pages,
        SharedPages(MEMORY_PAGES) as list_there,
        ProcessMemory.over(here.buffer) as source,
    ):
        keys = [PageCipher.derived(seed, name) for name in ("source", "destination")]
        transport = PageCipher.derived(seed, "transport")
        guest = Guest(Layout(MEMORY_PAGES, RESIDENT_PAGES), here, keys[0], pages, seed=seed)
        workload = WORKLOADS[sorted(WORKLOADS)[seed % len(WORKLOADS)]]
        vcpus = Vcpus(guest, workload, RESIDENT_PAGES, seed)
        destination = DestinationHost(there, keys[1], transport, list_there)
        link = FlakyLink(SourceHost(here, keys[0], transport), destination, rng)
        migration = kind(pages, DirtyLog(GuestMemory([(0, 0, MEMORY_PAGES)])), [source])
        try:
            vcpus.start()
            for _ in vcpus.booting():
                pass
            done = 0
            while done < LIVE_ROUNDS:
                vcpus.run_for(STEPS_A_ROUND)
                done += arrived(migration.rounds(1), link)
        finally:
            vcpus.stop()
        while not arrived(migration.final(), link):
            pass
        link.send_list(migration.snapshot.ranges())
        hosts = [View(here, keys[0]), View(there, keys[1])]
        return compare(guest, hosts, destination.get_list(), lambda _: None), link


def test_no_page_is_lost_by_a_transport_that_fails_in_three_rounds_of_ten() -> None:
    failures = arrived_in_vain = 0
    for seed in range(SEED, SEED + max(5, round(20 * SCALE))):
        comparison, link = migrate(seed)
        assert comparison.pages_compared == RESIDENT_PAGES
        assert (comparison.differing, comparison.list_equal) == ([], True), f"seed {seed}"
        failures += link.failures
        arrived_in_vain += link.arrived_in_vain
    assert failures > 0
    assert arrived_in_vain > 0
    print(f"{failures} rounds failed, after {arrived_in_vain} of their pages had arrived")


def test_a_migration_that_takes_every_round_for_arrived_loses_pages() -> None:
    class Forgetful(Migration):
        def _settle(self, round_: Round, arrived: bool) -> None:
            super()._settle(round_, True)

    assert any(migrate(seed, Forgetful)[0].differing for seed in range(SEED, SEED + 10))
