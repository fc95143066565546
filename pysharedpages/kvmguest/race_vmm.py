"""The VMM of a race on a real KVM: what a policy of `races` is given, with nothing modelled.

The tracker hears of conversions by exits, writes are found by KVM's own dirty log or rings, and a
page that is sent lies in another VM's memory, under another key, when `send` goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet, SharedPages, Snapshot
from pysharedpages.dirty import DirtyLog, Harvest
from pysharedpages.kvmguest.race_guest import RaceGuest
from pysharedpages.migration import DirtySource
from pysharedpages.races.scenario import Log
from pysharedpages.races.vmm import Action, HookedSource, HookedTracker, Verb, Vmm
from pysharedpages.sources import KvmDirtyRing
from pysharedpages.testing import MicroVM

__all__ = ["RealVmm"]


class RealVmm(Vmm):
    """The VMM of `guest`, which it boots. `at` is told each action before it is done, `found` what
    pages a harvest found dirty, or a list shared.
    """

    def __init__(
        self,
        guest: RaceGuest,
        at: Callable[[Action], None],
        found: Callable[[tuple[int, ...]], None],
    ) -> None:
        # All of what `Vmm` would make is a model; here it is there already.
        machine = guest.hosts.here.machine
        self._guest = guest
        self._at = at
        self._left = guest.scenario.rounds
        self.round = 0
        self.pages = guest.hosts.here.pages
        self.log = DirtyLog(machine.memory)
        self._found = found
        self._own: list[int] = []
        self._unkicked = None
        source: DirtySource
        if guest.scenario.log is Log.UNKICKED_RING:
            source = self._unkicked = _UnkickedRing(machine)
        else:
            source = machine.dirty_source(self.log)
        self.tracker = _Tracker(self)
        self.source = _Source(self, source, self._own)
        guest.boot()
        # As if KVM's log had been turned on just now: what the guest wrote before is not in it.
        self.on_exit()
        source.collect(self.log)
        self.log.take().commit()

    def found(self, pages: PageSet) -> None:
        """A harvest found these dirty, or a list shared."""
        self._found(self._known(pages))

    def add(self, page: int) -> None:
        """Have the next harvest find a page that the VMM knows to be dirty."""
        self._own.append(self._guest.gfn_of(page))

    def on_exit(self) -> None:
        """A vCPU has left the guest for more than a breakpoint."""
        if self._unkicked is not None:
            self._unkicked.on_exit()

    def send(self, shared: NDArray[np.uint64], private: NDArray[np.uint64]) -> None:
        """Send ranges page by page, plain and through the platform; then all has arrived."""
        link = self._guest.hosts.link
        for is_shared, ranges, send in (
            (True, shared, link.send_shared),
            (False, private, link.send_private),
        ):
            for gfn in PageSet.from_ranges(ranges):
                page = self._guest.page_at(gfn)
                if page is not None:
                    self.do(Verb.SEND, page, is_shared)
                send(gfn)
        self.do(Verb.COMMIT)

    def resume(self, listed: PageSet) -> None:
        """Give the destination its list, and let the guest go on there."""
        self._guest.hosts.destination.set_list(listed.ranges())
        self._guest.move()
        self._at(Action(Verb.RESUME, self.round, listed=self._known(listed)))

    def _known(self, pages: PageSet) -> tuple[int, ...]:
        numbers = map(self._guest.page_at, pages)
        return tuple(number for number in numbers if number is not None)


class _Tracker(HookedTracker):
    """The tracker, with the guest able to run before the list is read."""

    def __init__(self, vmm: RealVmm) -> None:
        super().__init__(vmm)
        self._told = vmm.found

    def snapshot(self) -> Snapshot:
        """The list, L."""
        snapshot = super().snapshot()
        self._told(snapshot)
        return snapshot


class _Source(HookedSource):
    """KVM's dirty pages and the VMM's `own`, with the guest able to run before a collection."""

    def __init__(self, vmm: RealVmm, source: DirtySource, own: list[int]) -> None:
        super().__init__(vmm)
        self._own = own
        self._told = vmm.found
        self._real = source

    def collect(self, log: DirtyLog, /) -> None:
        """The harvest, D."""
        self._vmm.do(Verb.HARVEST)
        earlier = log.take()
        self._real.collect(log)
        log.add_pages(self._own)
        self._own.clear()
        found = log.take()
        self._told(_pages_of(found))
        found.abort()
        earlier.abort()


class _UnkickedRing:
    """The rings of vCPUs that nobody kicks, on a host whose CPUs buffer entries (Intel: PML).

    This host's KVM need not be one: entries are taken out of its rings when a CPU would put them
    there, at an exit. An exit of one vCPU is taken for one of all.
    """

    complete: Final = False

    def __init__(self, machine: MicroVM) -> None:
        self._out = DirtyLog(machine.memory)
        self._ring = KvmDirtyRing(machine.fd, machine.vcpu_fds, machine.memory, kick=lambda: None)

    def on_exit(self) -> None:
        """What was written is there for the next harvest."""
        self._ring.collect(self._out)

    def collect(self, log: DirtyLog, /) -> None:
        """Nothing is there but what came with an exit."""
        with self._out.take() as harvest:
            log.add_ranges(_pages_of(harvest).ranges())


def _pages_of(harvest: Harvest) -> PageSet:
    with SharedPages() as nothing:
        return PageSet.from_ranges(nothing.snapshot().merge(harvest).private)
