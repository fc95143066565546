# tier: real
"""Slots of a real VM that come and go under its sources; the oracle is the pages written."""

from __future__ import annotations

import pytest

from pysharedpages import DirtyLog, GuestMemory, RangeError, SharedPages, SharedPagesError
from pysharedpages.abi.kvm import MemorySlot, numbers
from pysharedpages.sources import KvmDirtyLog, KvmDirtyRing, kvm_calls
from pysharedpages.testing import MicroVM
from pysharedpages.testing.steps import Breakpoint, Write
from pysharedpages.testing.vcpu import address_of

REASON = MicroVM.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

ALL = GuestMemory([(5, 0, 1000), (2, 4096, 7000), (9, 300_000, 1001)])
FEW = GuestMemory([(5, 0, 1000), (9, 300_000, 1001)])
SHORT = GuestMemory([(5, 0, 1000), (2, 4096, 3000), (9, 300_000, 1001)])
KINDS = ["get", "clear", "ring"]
PATIENCE = 60.0


def take(log: DirtyLog) -> list[int]:
    """The pages in a log, which is empty afterwards."""
    with SharedPages() as pages, log.take() as harvest:
        private = pages.snapshot().merge(harvest).private
        return [gfn for start, stop in private.tolist() for gfn in range(start, stop)]


def source_of(machine: MicroVM, kind: str) -> KvmDirtyLog | KvmDirtyRing:
    if kind == "ring":
        return KvmDirtyRing(machine.fd, machine.vcpu_fds, ALL, kick=machine.kick)
    return KvmDirtyLog(machine.fd, ALL, manual=kind == "clear")


def change(
    machine: MicroVM, log: DirtyLog, source: KvmDirtyLog | KvmDirtyRing, memory: GuestMemory
) -> None:
    """Slot 2 is deleted if it is there, and made anew if `memory` has it."""
    address = address_of(machine.space.buffer) + 4096 * 4096
    had, has = ({slot: npages for slot, _, npages in each} for each in (log.memory, memory))
    for npages in [*([0] if 2 in had else []), *([has[2]] if 2 in has else [])]:
        slot = MemorySlot(2, numbers.KVM_MEM_LOG_DIRTY_PAGES, 4096 * 4096, npages * 4096, address)
        kvm_calls.call(machine.fd, numbers.KVM_SET_USER_MEMORY_REGION, slot.encode())
    source.set_memory(memory)
    log.set_memory(memory)


@pytest.mark.parametrize("kind", KINDS)
def test_slots_come_and_go(kind: str) -> None:
    program = [
        *(Write(7), Write(4096 + 6999), Write(300_000), Breakpoint(0)),
        *(Write(8), Write(300_001), Breakpoint(1)),
        *(Write(9), Write(4096 + 2999), Write(4097), Breakpoint(2)),
    ]
    dirty = "ring" if kind == "ring" else "bitmap"
    with MicroVM(ALL, [program], dirty=dirty, ring_entries=4096) as machine:
        log = DirtyLog(ALL)
        source = source_of(machine, kind)
        (vcpu,) = machine.vcpus
        machine.start()
        assert machine.wait_until_still(PATIENCE)
        change(machine, log, source, FEW)
        source.collect(log)
        assert take(log) == [7, 300_000]
        vcpu.pass_breakpoint()
        assert machine.wait_until_still(PATIENCE)
        change(machine, log, source, SHORT)
        assert take(log) == list(range(4096, 4096 + 3000))
        source.collect(log)
        assert take(log) == [8, 300_001]
        vcpu.pass_breakpoint()
        assert machine.wait_until_still(PATIENCE)
        source.collect(log)
        assert take(log) == [9, 4097, 4096 + 2999]


def test_a_slot_that_kvm_has_otherwise_is_refused() -> None:
    with MicroVM(ALL, [[Write(7)]], dirty="bitmap") as machine:
        source = KvmDirtyLog(machine.fd, FEW)
        log = DirtyLog(FEW)
        machine.start()
        assert machine.wait_until_still(PATIENCE)
        with pytest.raises(RangeError, match="slot 0x2 does not have 3000 pages"):
            source.set_memory(SHORT)
        with pytest.raises(SharedPagesError, match="slot 0x7 does not exist"):
            source.set_memory(GuestMemory([(5, 0, 1000), (7, 4096, 3000)]))
        source.collect(log)
        assert take(log) == [7]
        source.set_memory(ALL)
        log.set_memory(ALL)
        source.collect(log)
        assert take(log) == list(range(4096, 4096 + 7000))
