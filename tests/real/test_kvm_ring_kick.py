# tier: real
"""A ring and a vCPU that never leaves the guest by itself: it writes three pages and spins.

Intel's CPUs keep what they log to themselves until an exit (PML). Where guests are emulated, as in
a nested host without VMX, nothing does: there it cannot be shown that a harvest without a kick
misses writes, only that the kick is what makes the vCPU exit. `races` models the CPU that buffers,
and `kvmguest.races` puts that between a real ring and the VMM.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pysharedpages import DirtyLog, SharedPages
from pysharedpages.sources import KvmDirtyRing
from pysharedpages.testing import MicroVM
from pysharedpages.testing.steps import Loop, Write
from pysharedpages.testing.vcpu import State

REASON = MicroVM.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PML = Path("/sys/module/kvm_intel/parameters/pml")
PATIENCE = 60.0


@contextmanager
def spinning() -> Iterator[MicroVM]:
    """A machine whose vCPU has written pages 3 to 5, and is in the guest."""
    with MicroVM(64, [[Write(3, 3), Loop(())]], dirty="ring") as machine:
        machine.start()
        deadline = time.monotonic() + PATIENCE
        while not any(machine.space.read(5)):
            machine.raise_failure()
            assert time.monotonic() < deadline
        yield machine
        assert machine.vcpus[0].state is State.RUNNING


def taken(log: DirtyLog) -> list[list[int]]:
    with SharedPages() as pages, log.take() as harvest:
        ranges: list[list[int]] = pages.snapshot().merge(harvest).private.tolist()
        return ranges


def test_a_kick_makes_the_vcpu_exit_and_its_writes_are_found() -> None:
    with spinning() as machine:
        log = DirtyLog(machine.memory)
        exits = machine.vcpus[0].exits
        machine.dirty_source(log).collect(log)
        assert machine.vcpus[0].exits > exits
        assert taken(log) == [[3, 6]]


def test_without_a_kick_the_vcpu_stays_in_and_an_emulated_one_s_writes_are_found() -> None:
    if PML.exists() and PML.read_text().strip() == "Y":
        pytest.skip("this host's CPUs buffer what they log (PML): either answer is right")
    with spinning() as machine:
        log = DirtyLog(machine.memory)
        exits = machine.vcpus[0].exits
        with KvmDirtyRing(machine.fd, machine.vcpu_fds, machine.memory, kick=lambda: None) as ring:
            ring.collect(log)
        assert machine.vcpus[0].exits == exits
        assert taken(log) == [[3, 6]]
