# tier: real
"""KvmDirtyLog and KvmDirtyRing over real guests; the oracle is the set of pages they write."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from pysharedpages import (
    ClosedError,
    DirtyLog,
    GuestMemory,
    RangeError,
    SharedPages,
    SharedPagesError,
)
from pysharedpages.sources import KvmDirtyLog, KvmDirtyRing
from pysharedpages.testing import MicroVM
from pysharedpages.testing.steps import Breakpoint, Checkpoint, Loop, Step, Wait, Write
from pysharedpages.testing.vcpu import State

REASON = MicroVM.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

# Odd sizes, a hole, ids out of order; the last slot ends in the middle of a word.
SLOTS = GuestMemory([(5, 0, 1000), (2, 4096, 70_000), (9, 300_000, 1_000_001)])
KINDS = ["get", "clear", "ring"]
PATIENCE = 60.0


def source_of(machine: MicroVM, kind: str, log: DirtyLog) -> KvmDirtyLog | KvmDirtyRing:
    if kind == "ring":
        return machine.dirty_source(log)
    return KvmDirtyLog(machine.fd, machine.memory, manual=kind == "clear")


def machine_of(programs: list[list[Step]], kind: str, ring_entries: int = 4096) -> MicroVM:
    dirty = "ring" if kind == "ring" else "bitmap"
    return MicroVM(SLOTS, programs, dirty=dirty, ring_entries=ring_entries)


def take(log: DirtyLog) -> list[int]:
    """The pages in a log, which is empty afterwards."""
    with SharedPages() as pages, log.take() as harvest:
        private = pages.snapshot().merge(harvest).private
        return [gfn for start, stop in private.tolist() for gfn in range(start, stop)]


def rewrite(gfn: int, npages: int) -> Iterator[Step]:
    """Write pages, and leave the guest in time for a dirty ring to be noticed as full."""
    for first in range(gfn, gfn + npages, 8):
        yield Write(first, min(8, gfn + npages - first))
        yield Wait(0)


def random_gfns(rng: np.random.Generator, count: int) -> list[int]:
    """Pages of any slot, the first and the last of each among them."""
    edges = [gfn for _, first, npages in SLOTS for gfn in (first, first + npages - 1)]
    inner = [
        first + int(rng.integers(npages)) for _, first, npages in SLOTS for _ in range(count // 3)
    ]
    return sorted({*edges, *inner})


@pytest.mark.parametrize("kind", KINDS)
def test_a_harvest_holds_the_pages_written(kind: str, rng: np.random.Generator) -> None:
    phases = [random_gfns(rng, 60) for _ in range(6)]
    program: list[Step] = []
    for number, gfns in enumerate(phases):
        program += [*(Write(gfn) for gfn in gfns), Breakpoint(number)]
    with machine_of([program], kind) as machine:
        log = DirtyLog(SLOTS)
        source = source_of(machine, kind, log)
        source.collect(log)
        assert take(log) == []
        machine.start()
        (vcpu,) = machine.vcpus
        for number, gfns in enumerate(phases):
            assert machine.wait_until_still(PATIENCE)
            assert vcpu.breakpoint == number
            source.collect(log)
            assert take(log) == gfns
            source.collect(log)
            assert take(log) == []
            vcpu.pass_breakpoint()
        assert not source.complete


@pytest.mark.parametrize("kind", KINDS)
def test_writes_that_race_with_collections_are_found(kind: str) -> None:
    programs = [list(rewrite(4096, 6000)), list(rewrite(300_000, 6000))]
    with machine_of(programs, kind) as machine:
        log = DirtyLog(SLOTS)
        source = source_of(machine, kind, log)
        machine.start()
        found: set[int] = set()
        still = False
        while not still:
            still = machine.wait_until_still(0.001)
            source.collect(log)
            found.update(take(log))
        assert found == {*range(4096, 10096), *range(300_000, 306_000)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_again_is_found_again(kind: str) -> None:
    with machine_of([[Loop((Write(7), Write(4100), Checkpoint(), Wait(100)))]], kind) as machine:
        log = DirtyLog(SLOTS)
        source = source_of(machine, kind, log)
        machine.start()
        for _ in range(50):
            before = machine.vcpus[0].checkpoints
            while machine.vcpus[0].checkpoints < before + 2:
                machine.raise_failure()
            source.collect(log)
            assert take(log) == [7, 4100]
        machine.stop()
        source.collect(log)
        take(log)
        source.collect(log)
        assert take(log) == []


def test_a_full_ring_is_harvested_by_its_vcpu() -> None:
    programs = [list(rewrite(4096, 3000)), list(rewrite(300_000, 2000))]
    with machine_of(programs, "ring", ring_entries=256) as machine:
        log = DirtyLog(SLOTS)
        source = machine.dirty_source(log)
        assert isinstance(source, KvmDirtyRing)
        assert source.entries == 256
        machine.start()
        assert machine.wait_until_still(PATIENCE)
        source.collect(log)
        assert take(log) == [*range(4096, 7096), *range(300_000, 302_000)]


def test_a_full_ring_without_a_source_ends_the_vcpu() -> None:
    with (
        machine_of([list(rewrite(4096, 1000))], "ring", ring_entries=256) as machine,
        pytest.raises(SharedPagesError, match="ring of vCPU 0 is full: no source"),
    ):
        machine.start()
        machine.wait_until_still(PATIENCE)


def test_an_overrun_ring_is_never_silent() -> None:
    """5,000 pages in one go: KVM stops the vCPU in time, or, where it emulates, may not."""
    with machine_of([[Write(4096, 5000)]], "ring", ring_entries=256) as machine:
        log = DirtyLog(SLOTS)
        source = machine.dirty_source(log)
        machine.start()
        try:
            machine.wait_until_still(PATIENCE)
            source.collect(log)
        except SharedPagesError as error:
            assert "overran" in str(error)
            with pytest.raises(SharedPagesError, match="overran"):
                source.collect(log)
        else:
            assert take(log) == list(range(4096, 9096))


def test_a_ring_is_as_large_as_the_vm_has_it() -> None:
    for entries in (256, 1024, 65536):
        with machine_of([[]], "ring", ring_entries=entries) as machine:
            ring = KvmDirtyRing(machine.fd, machine.vcpu_fds, SLOTS, kick=machine.kick)
            assert ring.entries == entries


def test_the_kick_comes_first_and_a_failed_one_loses_nothing() -> None:
    failing = [True]

    def kick() -> None:
        if failing.pop():
            raise KeyboardInterrupt
        failing.append(False)

    with machine_of([[Write(9, 3)]], "ring") as machine:
        log = DirtyLog(SLOTS)
        ring = KvmDirtyRing(machine.fd, machine.vcpu_fds, SLOTS, kick=kick)
        machine.start()
        assert machine.wait_until_still(PATIENCE)
        with pytest.raises(KeyboardInterrupt):
            ring.collect(log)
        assert take(log) == []
        failing[:] = [False]
        assert ring.collect(log) == 3
        assert take(log) == [9, 10, 11]


def test_a_source_goes_on_where_another_was_closed() -> None:
    """Which is anywhere in the ring: KVM tells nobody."""
    program: list[Step] = []
    for number in range(6):
        program += [Write(10 * number, 7), Breakpoint(number)]
    with machine_of([program], "ring", ring_entries=256) as machine:
        log = DirtyLog(SLOTS)
        machine.start()
        for number in range(6):
            assert machine.wait_until_still(PATIENCE)
            with KvmDirtyRing(machine.fd, machine.vcpu_fds, SLOTS, kick=machine.kick) as ring:
                assert ring.collect(log) == 7
            assert take(log) == list(range(10 * number, 10 * number + 7))
            machine.vcpus[0].pass_breakpoint()


def test_a_forked_child_takes_nothing_out_of_the_rings() -> None:
    with machine_of([[Write(9, 3)]], "ring") as machine:
        log = DirtyLog(SLOTS)
        ring = KvmDirtyRing(machine.fd, machine.vcpu_fds, SLOTS, kick=machine.kick)
        bitmap = machine_of([[]], "get")
        plain = KvmDirtyLog(bitmap.fd, SLOTS)
        machine.start()
        assert machine.wait_until_still(PATIENCE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(ClosedError, match="forked child"):
                    ring.collect(log)
                with pytest.raises(ClosedError, match="forked child"):
                    ring.set_memory(SLOTS)
                with pytest.raises(SharedPagesError, match="slot 0x5"):
                    plain.collect(log)
                ring.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert ring.collect(log) == 3
        assert take(log) == [9, 10, 11]
        bitmap.close()


def test_a_machine_has_one_source_of_its_rings() -> None:
    with machine_of([[]], "ring") as machine:
        machine.dirty_source(DirtyLog(SLOTS))
        with pytest.raises(SharedPagesError, match="a source already"):
            machine.dirty_source(DirtyLog(SLOTS))
    with pytest.raises(ClosedError):
        machine.dirty_source(DirtyLog(SLOTS))


def test_a_source_that_does_not_clear_arms_after_one_that_did() -> None:
    program: list[Step] = [Write(9, 3), Breakpoint(0), Write(10)]
    with machine_of([program], "get") as machine:
        log = DirtyLog(SLOTS)
        KvmDirtyLog(machine.fd, SLOTS, manual=True).collect(log)
        source = KvmDirtyLog(machine.fd, SLOTS, manual=False)
        machine.start()
        for expected in ([9, 10, 11], [10]):
            assert machine.wait_until_still(PATIENCE)
            source.collect(log)
            assert take(log) == expected
            source.collect(log)
            assert take(log) == []
            if expected == [9, 10, 11]:
                machine.vcpus[0].pass_breakpoint()


def test_a_source_whose_descriptor_is_closed_says_so() -> None:
    for kind in KINDS:
        machine = machine_of([[Write(9)]], kind)
        log = DirtyLog(SLOTS)
        source = (
            KvmDirtyRing(machine.fd, machine.vcpu_fds, SLOTS, kick=machine.kick)
            if kind == "ring"
            else source_of(machine, kind, log)
        )
        machine.start()
        assert machine.wait_until_still(PATIENCE)
        machine.close()
        for _ in range(2):
            with pytest.raises(SharedPagesError, match="Bad file descriptor"):
                source.collect(log)
        assert take(log) == []


def test_entries_of_slots_that_the_memory_lacks_are_never_silent() -> None:
    for other in (GuestMemory([(1, 0, 1000)]), GuestMemory([(5, 0, 10)])):
        with machine_of([[Write(9, 2)]], "ring") as machine:
            ring = KvmDirtyRing(machine.fd, machine.vcpu_fds, other, kick=machine.kick)
            log = DirtyLog(other)
            machine.start()
            assert machine.wait_until_still(PATIENCE)
            for _ in range(2):
                with pytest.raises(RangeError, match=r"slot (0x)?5"):
                    ring.collect(log)
            assert take(log) == []


def test_a_log_of_other_slots_takes_nothing_out_of_the_rings() -> None:
    with machine_of([[Write(9, 2)]], "ring") as machine:
        ring = KvmDirtyRing(machine.fd, machine.vcpu_fds, SLOTS, kick=machine.kick)
        machine.start()
        assert machine.wait_until_still(PATIENCE)
        with pytest.raises(RangeError, match="the log is of"):
            ring.collect(DirtyLog(GuestMemory([(5, 64, 1000)])))
        log = DirtyLog(GuestMemory(SLOTS))
        ring.collect(log)
        assert take(log) == [9, 10]


def test_a_kick_returns_when_every_vcpu_has_left_the_guest() -> None:
    spin: list[Step] = [Loop((Checkpoint(),))]
    with machine_of([spin, spin, [Breakpoint(1)], []], "get") as machine:
        machine.start()
        while machine.vcpus[3].state is not State.HALTED:
            machine.raise_failure()
        for _ in range(100):
            before = [vcpu.exits for vcpu in machine.vcpus[:2]]
            machine.kick()
            after = [vcpu.exits for vcpu in machine.vcpus[:2]]
            assert all(now > then for then, now in zip(before, after, strict=True))
        assert machine.vcpus[2].breakpoint == 1
        machine.stop()
        machine.kick()


def test_threads_may_collect_from_one_ring() -> None:
    programs = [list(rewrite(4096, 3000)), list(rewrite(300_000, 3000))]
    with machine_of(programs, "ring", ring_entries=512) as machine:
        log = DirtyLog(SLOTS)
        source = machine.dirty_source(log)
        done = threading.Event()

        def collect() -> None:
            while not done.is_set():
                source.collect(log)

        threads = [threading.Thread(target=collect) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            machine.start()
            assert machine.wait_until_still(PATIENCE)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        source.collect(log)
        assert take(log) == [*range(4096, 7096), *range(300_000, 303_000)]


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ([(5, 0, 999)], "slot 0x5 does not have 999 pages"),
        ([(5, 0, 1001)], "slot 0x5 does not have 1001 pages"),
        ([(5, 0, 960)], "slot 0x5 does not have 960 pages"),
        ([(5, 0, 64)], "slot 0x5 does not have 64 pages"),
        ([(2, 4096, 70_016)], "slot 0x2 does not have 70016 pages"),
        ([(2, 4096, 1 << 20)], "slot 0x2 does not have 1048576 pages"),
    ],
)
def test_slots_of_other_sizes_are_refused(slots: list[tuple[int, int, int]], message: str) -> None:
    with (
        machine_of([[]], "get") as machine,
        pytest.raises(RangeError, match=message),
    ):
        KvmDirtyLog(machine.fd, GuestMemory(slots))


@pytest.mark.parametrize("npages", [1, 63, 64, 65, 127, 128, 262_144, 262_145])
@pytest.mark.parametrize("manual", [False, True])
def test_slots_of_any_size_are_taken(npages: int, manual: bool) -> None:
    memory = GuestMemory([(0, 0, npages)])
    with MicroVM(memory, [[Write(0), Write(npages - 1)]]) as machine:
        log = DirtyLog(memory)
        source = KvmDirtyLog(machine.fd, memory, manual=manual)
        machine.start()
        assert machine.wait_until_still(PATIENCE)
        source.collect(log)
        assert take(log) == sorted({0, npages - 1})
        assert source.ioctl_ns > 0


def test_slots_that_kvm_does_not_log_are_refused() -> None:
    with machine_of([[]], "get") as machine, pytest.raises(SharedPagesError, match="slot 0x4 does"):
        KvmDirtyLog(machine.fd, GuestMemory([(4, 0, 1000)]))
    with (
        MicroVM(SLOTS, [[]], dirty=None) as machine,
        pytest.raises(SharedPagesError, match="has no KVM_MEM_LOG_DIRTY_PAGES"),
    ):
        KvmDirtyLog(machine.fd, SLOTS)


def test_the_wrong_kind_of_log_is_refused() -> None:
    with (
        machine_of([[]], "ring") as machine,
        pytest.raises(SharedPagesError, match="KVM_CLEAR_DIRTY_LOG"),
    ):
        KvmDirtyLog(machine.fd, SLOTS)
    with machine_of([[]], "get") as machine:
        with pytest.raises(SharedPagesError, match="no dirty rings"):
            KvmDirtyRing(machine.fd, machine.vcpu_fds, SLOTS, kick=machine.kick)
        with pytest.raises(RangeError, match="0 vCPUs"):
            KvmDirtyRing(machine.fd, [], SLOTS, kick=machine.kick)
        with pytest.raises(SharedPagesError, match="without a dirty log"):
            MicroVM(SLOTS, [[]], dirty=None).dirty_source(DirtyLog(SLOTS))


def test_descriptors_of_something_else_are_refused() -> None:
    with open("/dev/null", "rb") as nothing:
        fd = nothing.fileno()
        with pytest.raises(SharedPagesError, match="KVM_CHECK_EXTENSION"):
            KvmDirtyLog(fd, SLOTS)
        with pytest.raises(SharedPagesError, match="no dirty rings"):
            KvmDirtyRing(fd, [fd], SLOTS, kick=lambda: None)
    with pytest.raises(SharedPagesError, match="KVM_CHECK_EXTENSION: Bad file"):
        KvmDirtyLog(-1, SLOTS)
    memory = os.memfd_create("memory")
    os.truncate(memory, 1 << 22)
    with machine_of([[]], "ring") as machine:
        # Each could be mapped as a ring is, and never has an entry.
        for fd in (-1, memory, machine.fd):
            with pytest.raises(SharedPagesError, match="no vCPU"):
                KvmDirtyRing(machine.fd, [*machine.vcpu_fds, fd], SLOTS, kick=machine.kick)
    os.close(memory)


def test_a_log_of_other_memory_is_refused() -> None:
    with machine_of([[]], "get") as machine:
        source = KvmDirtyLog(machine.fd, SLOTS)
        with pytest.raises(RangeError, match="the log is of"):
            source.collect(DirtyLog(GuestMemory([(5, 0, 999)])))
        source.collect(DirtyLog(GuestMemory(SLOTS)))


def test_a_closed_ring_says_so() -> None:
    with machine_of([[]], "ring") as machine:
        with KvmDirtyRing(machine.fd, machine.vcpu_fds, SLOTS, kick=machine.kick) as ring:
            ring.collect(DirtyLog(SLOTS))
        ring.close()
        with pytest.raises(ClosedError):
            ring.collect(DirtyLog(SLOTS))
