"""One migration of one KVM guest to a second VM, from its first instruction to the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from pysharedpages._core import SharedPages
from pysharedpages.dirty import DirtyLog
from pysharedpages.errors import SharedPagesError
from pysharedpages.kvmguest.cipher import WordCipher
from pysharedpages.kvmguest.ledger import Ledger, LedgerView
from pysharedpages.kvmguest.program import RESERVE_VCPU, WORKERS, WRITE_PAGES, programs
from pysharedpages.softguest.cipher import PageCipher
from pysharedpages.softguest.comparison import View, compare
from pysharedpages.softguest.host import DestinationHost, Link, SourceHost
from pysharedpages.softguest.orders import ROUNDS
from pysharedpages.softguest.report import Report, Resumption, SilentObserver
from pysharedpages.softguest.rounds import Observer, Row
from pysharedpages.softguest.scenario import LOGS, Scenario
from pysharedpages.testing import AddressSpace, MicroVM, UnsupportedHostError

__all__ = ["migrate"]

# What the guest does at least between two harvests, and on the destination.
_STEPS_A_ROUND: Final = 128
_POLL_SECONDS: Final = 0.002
_PATIENCE_SECONDS: Final = 120.0


def migrate(
    scenario: Scenario,
    observer: Observer | None = None,
    *,
    link: Callable[[SourceHost, DestinationHost], Link] = Link,
    proceed: Callable[[int], bool] | None = None,
) -> Report:
    """Boot the guest, migrate it while it runs, stop it, compare the hosts, let it go on there.

    `proceed(rounds done)` says whether to do another round with the guest running, if not
    `scenario.rounds` is to. vCPUs have ended when this returns or raises. Raises
    `UnsupportedHostError` where the host has no KVM that can, `RangeError` for a memory that has
    no room for the guest's ledger.
    """
    observer = observer or SilentObserver()
    more = proceed or (lambda done: done < scenario.rounds)
    reason = MicroVM.available()
    if reason is not None:
        raise UnsupportedHostError(reason)
    with ExitStack() as stack:
        log_kind = scenario.log or LOGS[0]
        ledger = Ledger(scenario.memory_pages, scenario.resident_pages)
        ciphers = [WordCipher.derived(scenario.seed, name) for name in ("source", "destination")]
        spaces = [stack.enter_context(AddressSpace(scenario.memory_pages)) for _ in ciphers]
        views = [View(*host) for host in zip(spaces, ciphers, strict=True)]
        lists = [
            stack.enter_context(SharedPages(scenario.memory_pages, engine=scenario.engine))
            for _ in views
        ]
        code = programs(scenario, ledger)
        here, there = (
            stack.enter_context(
                MicroVM(
                    scenario.memory_pages,
                    code,
                    pages=pages,
                    dirty=dirty,
                    ring_entries=_ring_entries(scenario.resident_pages),
                    key=cipher.key,
                    space=space,
                )
            )
            for pages, dirty, cipher, space in zip(
                lists, (log_kind, None), ciphers, spaces, strict=True
            )
        )
        transport = PageCipher.derived(scenario.seed, "transport")
        destination = DestinationHost(spaces[1], ciphers[1], transport, lists[1])
        wire = link(SourceHost(spaces[0], ciphers[0], transport), destination)
        rounds = _migrate(scenario, here, lists[0], wire, observer, more)
        observer.phase("compare", scenario.resident_pages + ledger.npages)
        guest = LedgerView(ledger, spaces[0])
        comparison = compare(guest, views, destination.get_list(), observer.advance)
        resumption = None
        if comparison.is_equal:
            resumption = _resume(here, there, ledger, views[1], destination, observer)
    why = "asked for" if scenario.source or scenario.log else "this host's /dev/kvm runs guests"
    return Report(scenario, "kvm", why, rounds, comparison, log_kind, resumption)


def _migrate(
    scenario: Scenario,
    machine: MicroVM,
    pages: SharedPages,
    link: Link,
    observer: Observer,
    more: Callable[[int], bool],
) -> list[Row]:
    log = DirtyLog(machine.memory)
    # The log is in force before the guest's first instruction, and this VMM writes none of the
    # guest's memory: what KVM reports first is all there is.
    source = machine.dirty_source(log)
    reserve = machine.vcpus[RESERVE_VCPU]

    def share_reserve() -> None:
        if reserve.breakpoint is not None:
            reserve.pass_breakpoint()
            reserve.wait_until_still(_PATIENCE_SECONDS)
            machine.raise_failure()

    rounds = ROUNDS[scenario.order](
        pages, log, source, link, between=share_reserve, observer=observer
    )
    _boot(scenario, machine, observer)
    for vcpu in machine.vcpus[:WORKERS]:
        vcpu.pass_breakpoint()
    done: list[Row] = []
    while more(len(done)):
        _run_for(machine, _STEPS_A_ROUND)
        done += rounds.live()
    _run_for(machine, _STEPS_A_ROUND)
    done += rounds.final(machine.stop)
    return done


def _boot(scenario: Scenario, machine: MicroVM, observer: Observer) -> None:
    observer.phase("boot", scenario.resident_pages)
    machine.start()
    before = 0
    booted = False
    while not booted:
        booted = machine.wait_until_still(_POLL_SECONDS)
        now = min(_checkpoints(machine) * WRITE_PAGES, scenario.resident_pages)
        observer.advance(now - before)
        before = now


def _run_for(machine: MicroVM, nsteps: int) -> None:
    """Return when the guest, as a whole, has taken `nsteps` more steps."""
    goal = _checkpoints(machine) + nsteps
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _checkpoints(machine) < goal:
        machine.raise_failure()
        if time.monotonic() > deadline:
            raise SharedPagesError(f"the guest took {_PATIENCE_SECONDS:.0f} s for {nsteps} steps")
        time.sleep(_POLL_SECONDS)


def _checkpoints(machine: MicroVM) -> int:
    return sum(vcpu.checkpoints for vcpu in machine.vcpus[:WORKERS])


def _resume(
    here: MicroVM,
    there: MicroVM,
    ledger: Ledger,
    view: View,
    destination: DestinationHost,
    observer: Observer,
) -> Resumption:
    """Let the guest go on where it went, and judge its memory there by its own ledger."""
    arrived = there.vcpus[:WORKERS]
    for old, new in zip(here.vcpus, arrived, strict=False):
        new.load(old.registers())
        new.start()
    _run_for(there, _STEPS_A_ROUND)
    for vcpu in arrived:
        vcpu.ask_to_stop()
    if not all(vcpu.wait_until_still(_PATIENCE_SECONDS) for vcpu in arrived):
        raise SharedPagesError("a vCPU did not stop on the destination")
    there.raise_failure()
    guest = LedgerView(ledger, view.space)
    observer.phase("resumed", len(guest.touched()))
    comparison = compare(guest, [view], destination.get_list(), observer.advance)
    return Resumption(_checkpoints(there), comparison)


def _ring_entries(resident_pages: int) -> int:
    """Room for a sixteenth of the pages in each ring, so that some fill while the guest boots."""
    entries = 1024
    while entries < resident_pages // 16 and entries < 65536:
        entries *= 2
    return entries
