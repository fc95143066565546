"""One migration of one software guest, from its first page to the verdict."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from pysharedpages._core import SharedPages
from pysharedpages.dirty import DirtyLog, GuestMemory
from pysharedpages.errors import SharedPagesError
from pysharedpages.migration import DirtySource
from pysharedpages.softguest.cipher import PageCipher
from pysharedpages.softguest.comparison import View, compare
from pysharedpages.softguest.guest import Guest
from pysharedpages.softguest.host import DestinationHost, Link, SourceHost
from pysharedpages.softguest.layout import Layout
from pysharedpages.softguest.orders import ROUNDS
from pysharedpages.softguest.report import RESERVED_PAGES, Report, SilentObserver
from pysharedpages.softguest.rounds import Observer, Row
from pysharedpages.softguest.scenario import Scenario
from pysharedpages.softguest.vcpu import Vcpus
from pysharedpages.softguest.workload import WORKLOADS, Step
from pysharedpages.softguest.writelog import WriteLog
from pysharedpages.sources import ProcessMemory
from pysharedpages.testing.space import PAGE_SIZE, AddressSpace, UnsupportedHostError

__all__ = ["migrate"]

# A kernel slot takes 2^31 - 1 pages at most; a larger guest has several.
_SLOT_PAGES: Final = 1 << 30
# What a guest does at least between two harvests: without it, a small guest's rounds are over
# before the guest did anything.
_STEPS_A_ROUND: Final = 128


LinkFactory = Callable[[SourceHost, DestinationHost], Link]


def migrate(
    scenario: Scenario,
    observer: Observer | None = None,
    *,
    link: LinkFactory = Link,
    because: str | None = None,
) -> Report:
    """Boot the guest, migrate it while it runs, stop it, and compare the two hosts.

    `because` says why no better guest than this was taken; the report tells. Guest threads have
    ended when this returns or raises. Raises `UnsupportedHostError` where the host cannot map the
    memory or lacks the source asked for.
    """
    observer = observer or SilentObserver()
    with ExitStack() as stack:
        source, reason = _choose_source(scenario.source)
        memory = [stack.enter_context(AddressSpace(scenario.memory_pages)) for _ in range(2)]
        keys = [PageCipher.derived(scenario.seed, name) for name in ("source", "destination")]
        here, there = (View(*host) for host in zip(memory, keys, strict=True))
        transport = PageCipher.derived(scenario.seed, "transport")
        pages, arrived = (
            stack.enter_context(SharedPages(scenario.memory_pages, engine=scenario.engine))
            for _ in range(2)
        )
        writes = _open_source(source, here.space, stack)
        guest = Guest(
            Layout(scenario.memory_pages, scenario.resident_pages),
            here.space,
            keys[0],
            pages,
            seed=scenario.seed,
            stored=writes.stored if isinstance(writes, WriteLog) else None,
        )
        destination = DestinationHost(there.space, there.cipher, transport, arrived)
        wire = link(SourceHost(here.space, here.cipher, transport), destination)
        rounds = _migrate(scenario, guest, pages, writes, wire, observer)
        observer.phase("compare", scenario.resident_pages)
        comparison = compare(guest, (here, there), destination.get_list(), observer.advance)
    if because is not None:
        reason = f"{reason}; {because}"
    return Report(scenario, source, reason, rounds, comparison)


def _migrate(
    scenario: Scenario,
    guest: Guest,
    pages: SharedPages,
    writes: DirtySource,
    link: Link,
    observer: Observer,
) -> list[Row]:
    ordinary = scenario.resident_pages - RESERVED_PAGES
    # The reserved pages are the caller's own: it acts as one more vCPU, at an exact instant.
    reserve = [Step(index, index + 1) for index in range(ordinary, scenario.resident_pages)]
    vcpus = Vcpus(guest, WORKLOADS[scenario.workload], ordinary, scenario.seed)
    observer.phase("boot", ordinary)
    try:
        for step in reserve:
            guest.take(step)
        vcpus.start()
        for npages in vcpus.booting():
            observer.advance(npages)

        def share_reserve() -> None:
            while reserve:
                guest.take(reserve.pop()._replace(types=(True,)))

        log = DirtyLog(_slots(scenario.memory_pages))
        if not writes.complete:
            log.add_ranges(guest.layout.ranges())
        rounds = ROUNDS[scenario.order](
            pages, log, writes, link, between=share_reserve, observer=observer
        )
        done = []
        for _ in range(scenario.rounds):
            vcpus.run_for(_STEPS_A_ROUND)
            done += rounds.live()
        vcpus.run_for(_STEPS_A_ROUND)
        done += rounds.final(vcpus.stop)
        return done
    finally:
        vcpus.stop()


def _choose_source(asked: str | None) -> tuple[str, str]:
    """The source to use, and why."""
    if asked == "model":
        return "model", "asked for"
    missing = ProcessMemory.available()
    if missing is None and mmap.PAGESIZE != PAGE_SIZE:
        missing = f"this host's pages are {mmap.PAGESIZE} bytes, the guest's {PAGE_SIZE}"
    if missing is None:
        return "process", "asked for" if asked else "this host tracks the writes of a process"
    if asked == "process":
        raise UnsupportedHostError(f"--source process: {missing}")
    return "model", missing


def _open_source(name: str, space: AddressSpace, stack: ExitStack) -> WriteLog | ProcessMemory:
    if name == "model":
        return WriteLog()
    try:
        return stack.enter_context(ProcessMemory.over(space.buffer))
    except SharedPagesError as error:
        raise UnsupportedHostError(f"this host cannot track the guest's memory: {error}") from error


def _slots(npages: int) -> GuestMemory:
    """All of the memory, in as few slots as a kernel would take."""
    starts = range(0, npages, _SLOT_PAGES)
    return GuestMemory(
        [(slot, gfn, min(_SLOT_PAGES, npages - gfn)) for slot, gfn in enumerate(starts)]
    )
