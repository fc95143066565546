"""The vCPUs of the stand-in: threads that take the workload's steps until told to stop.

The pages are dealt to the vCPUs in contiguous parts, so each page has one owner. A stop is
acknowledged at a step boundary: the thread ends, and `stop` returns after it did, so nothing
is converted or written from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from random import Random
from typing import Final

from pysharedpages.softguest.guest import Guest
from pysharedpages.softguest.workload import Step, Workload

__all__ = ["VCPUS", "Vcpus"]

VCPUS: Final = 2
# A vCPU rests 4 ms after 16 steps, some 3,000 steps a second: a guest that writes faster than
# its pages travel never converges, and the host's own work would wait for the interpreter.
_BURST_STEPS: Final = 16
_REST_SECONDS: Final = 0.004
_POLL_SECONDS: Final = 0.002


class Vcpus:
    """All vCPUs of one guest, over the indices `[0, npages)`. One thread drives this object."""

    def __init__(self, guest: Guest, workload: Workload, npages: int, seed: int) -> None:
        share = -(-npages // VCPUS)
        indices = range(npages)
        self._vcpus = [
            _Vcpu(guest, workload, indices[first : first + share], Random(f"{seed}/vcpu{number}"))
            for number, first in enumerate(range(0, npages, share))
        ]

    def start(self) -> None:
        """Let all of them boot and run."""
        for vcpu in self._vcpus:
            vcpu.thread.start()

    def booting(self) -> Iterator[int]:
        """Wait until all have booted; yields now and then how many pages were filled since."""
        before = 0
        booted = False
        while not booted:
            booted = all(vcpu.booted.wait(_POLL_SECONDS) or vcpu.ended for vcpu in self._vcpus)
            now = sum(vcpu.filled for vcpu in self._vcpus)
            yield now - before
            before = now
        self._raise_failure()

    def run_for(self, nsteps: int) -> None:
        """Return when the guest, as a whole, has taken `nsteps` more steps or has ended."""
        goal = self._steps() + nsteps
        while self._steps() < goal and not all(vcpu.ended for vcpu in self._vcpus):
            time.sleep(_POLL_SECONDS)
        self._raise_failure()

    def stop(self) -> None:
        """Stop all at a step boundary, once or again; what failed in one is raised here."""
        for vcpu in self._vcpus:
            vcpu.stopping.set()
        for vcpu in self._vcpus:
            if vcpu.thread.ident is not None:
                vcpu.thread.join()
        self._raise_failure()

    def _steps(self) -> int:
        return sum(vcpu.steps for vcpu in self._vcpus)

    def _raise_failure(self) -> None:
        for vcpu in self._vcpus:
            failure, vcpu.failure = vcpu.failure, None
            if failure is not None:
                raise failure


class _Vcpu:
    """One thread. It alone writes `filled`, `steps`, `ended` and `failure`."""

    def __init__(self, guest: Guest, workload: Workload, owned: range, rng: Random) -> None:
        self.filled = 0
        self.steps = 0
        self.ended = False
        self.failure: BaseException | None = None
        self.booted = threading.Event()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._live, name="vcpu", daemon=True)
        self._guest = guest
        self._workload = workload
        self._owned = owned
        self._rng = rng

    def _live(self) -> None:
        try:
            self._boot()
            self._run()
        except BaseException as failure:
            self.failure = failure
        finally:
            self.ended = True

    def _boot(self) -> None:
        for index in self._owned:
            if self.stopping.is_set():
                return
            self._guest.take(Step(index, index + 1))
            self.filled += 1
        for run in self._workload.shared_at_boot(self._owned, self._rng):
            self._guest.take(Step(run.start, run.stop, (True,)))
        self.booted.set()

    def _run(self) -> None:
        for step in self._workload.steps(self._owned, self._rng):
            if self.stopping.is_set():
                return
            self._guest.take(step)
            self.steps += 1
            if self.steps % _BURST_STEPS == 0:
                self.stopping.wait(_REST_SECONDS)
