"""Dirty pages from a real KVM: one ring of page numbers a vCPU, which the kernel fills.

Floor: sources. Invariant: an entry taken out of a ring is in the log, or is held here and comes
first in the next collection. It goes into the log only after the kernel armed its page again: once
in the log its page may be read, and a write after that reading must make a new entry.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from pysharedpages._buffers import RING_DTYPE
from pysharedpages._core import Ring
from pysharedpages.abi.kvm import numbers
from pysharedpages.dirty import DirtyLog, GuestMemory
from pysharedpages.errors import ClosedError, RangeError, SharedPagesError
from pysharedpages.sources import kvm_calls

__all__ = ["KvmDirtyRing"]

# The most entries a ring may have (KVM_DIRTY_RING_MAX_ENTRIES), and of one batch.
_MOST_ENTRIES: Final = 65536
_OFFSET: Final = numbers.KVM_DIRTY_LOG_PAGE_OFFSET * mmap.PAGESIZE
_PAGE_ENTRIES: Final = mmap.PAGESIZE // RING_DTYPE.itemsize


class KvmDirtyRing:
    """Collects from the dirty rings of a VM's vCPUs.

    `vm_fd` and `vcpu_fds` are any VM's descriptors, not owned, the rings being enabled by
    KVM_CAP_DIRTY_LOG_RING or ..._ACQ_REL; `memory` names the slots. The size of the rings is found
    out by itself.

    **A ring is no barrier**: what a vCPU has written may still be in its CPU's own buffer. `kick`
    is called first in every collection, and must return only when each vCPU has left the guest once
    since the call; with it a collection finds every write that was done before it.

    A vCPU whose ring is full exits with KVM_EXIT_DIRTY_RING_FULL, and goes on when one `collect` is
    over; its own thread may make that call, in which `kick` must not wait for it. KVM keeps 64
    entries for what is written until then. Where it needs more, as when it emulates a guest for
    long, the ring overruns: this is found, and every collection fails from then on.

    Thread-safe. `name` is the source's in `DirtyLog.sources()`. `complete` is False, as for
    `KvmDirtyLog`. KVM has no way to tell who else reads
    the rings: one source a VM, and the next when that is closed. They belong to the process that
    made the VM; in a forked child of it a source has none.

    Raises SharedPagesError where the VM has no rings or KVM refuses; RangeError without vCPUs, or
    for one that is named twice.

    Source: Documentation/virt/kvm/api.rst, 8.29.
    """

    complete: Final = False

    def __init__(
        self,
        vm_fd: int,
        vcpu_fds: Sequence[int],
        memory: GuestMemory,
        *,
        kick: Callable[[], object],
        name: str | None = "kvm-ring",
    ) -> None:
        if not vcpu_fds:
            raise RangeError("0 vCPUs: a ring belongs to one")
        if len(set(vcpu_fds)) < len(vcpu_fds):
            raise RangeError(f"{list(vcpu_fds)} names a vCPU twice: its ring would be read twice")
        self._vm = vm_fd
        self._pid = os.getpid()
        self._memory = memory
        self._kick = kick
        self._name = name
        # Slots whose entries may still come, though the memory has them no more.
        self._gone: set[tuple[int, int, int]] = set()
        self._lock = threading.Lock()
        self._held = np.zeros(_MOST_ENTRIES, RING_DTYPE)
        self._ioctl_ns = 0
        self._overrun = False
        self._owed = 0  # entries harvested that KVM has yet to reset, at least
        self._rings: list[Ring] = []
        try:
            for fd in vcpu_fds:
                self._open_ring(fd)
        except OSError as error:
            self.close()
            raise kvm_calls.refused("this VM has no dirty rings", error) from error

    def set_memory(self, memory: GuestMemory) -> None:
        """The VM has other slots: call it when KVM has them.

        Entries that were made before are in the rings still, and name slots by number. The next
        collection takes those of a slot that is gone, or is another now, by gfn: what is memory is
        reported, and the rest dropped. Of a number that was given to another slot an entry may mean
        either, and both are reported. After it an entry of an unknown slot is an error again.
        ClosedError in a forked child.
        """
        self._check_owner()
        with self._lock:
            now = set(memory)
            self._gone = (self._gone | set(self._memory)) - now
            self._memory = memory

    @property
    def entries(self) -> int:
        """The number of entries of each ring."""
        return len(self._rings[0]) if self._rings else 0

    @property
    def ioctl_ns(self) -> int:
        """Nanoseconds that the last collection spent in KVM_RESET_DIRTY_RINGS."""
        return self._ioctl_ns

    def collect(self, log: DirtyLog) -> int:
        """Add the entries that the rings hold, and arm their pages again; return their number.

        A page may be counted more than once. The log must be of the same slots, else RangeError;
        so is, each time, a slot that KVM logs and they lack, or have smaller. ClosedError after
        `close`, and in a forked child; SharedPagesError when KVM refuses, or when a ring overran.
        Whatever is raised, what was taken out of the rings comes in the next collection.
        """
        self._check_owner()
        if log.memory is not self._memory and list(log.memory) != list(self._memory):
            raise RangeError(f"the log is of {log.memory!r}, the source of {self._memory!r}")
        with self._lock:
            if not self._rings:
                raise ClosedError("the source is closed")
            self._kick()
            self._ioctl_ns = 0
            added = self._deliver(log)
            for ring in self._rings:
                if len(self._held) - self._used() < len(ring):
                    added += self._deliver(log)
                taken = ring.harvest(self._held, self._used())
                self._owed += taken
                if taken >= len(ring):
                    self._overrun = True
            added += self._deliver(log)
            self._gone.clear()
            if self._overrun:
                raise SharedPagesError(
                    f"a dirty ring of {self.entries} entries overran: pages that were written are "
                    "lost, and all memory must be taken for dirty"
                )
            return added

    def close(self) -> None:
        """Let go of the rings; further calls do nothing."""
        if os.getpid() != self._pid:
            # A thread that held the lock at the fork does not exist here to release it.
            self._rings.clear()
            return
        with self._lock:
            self._rings.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<KvmDirtyRing of {len(self._rings)} vCPUs, {self.entries} entries each>"

    def _check_owner(self) -> None:
        if os.getpid() != self._pid:
            # The mapping is shared: entries harvested here would be missing there.
            raise ClosedError(
                f"the rings belong to process {self._pid}, not to its forked child {os.getpid()}"
            )

    def _used(self) -> int:
        """How many entries are held: those with flags, as an exception may come at any time."""
        return int(np.count_nonzero(self._held["flags"]))

    def _deliver(self, log: DirtyLog) -> int:
        used = self._used()
        if not used:
            return 0
        self._reset()
        entries = self._held[:used]
        if self._gone:
            pages, entries = self._translated(entries)
            log.add_pages(pages, source=self._name)
        log.add_ring(entries, source=self._name)
        self._held[:used] = 0
        return used

    def _translated(self, entries: NDArray[np.void]) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
        """Pages that entries of slots that are gone mean, and the entries that others may mean."""
        sizes = {slot: npages for slot, _, npages in self._memory}
        stale = np.zeros(len(entries), np.bool_)
        pages = [np.empty(0, np.uint64)]
        for slot, gfn, npages in self._gone:
            named = (entries["slot"] == slot) & (entries["offset"] < npages)
            pages.append(entries["offset"][named] + np.uint64(gfn))
            stale |= named & (entries["offset"] >= sizes.get(slot, 0))
        found = np.concatenate(pages)
        return found[self._memory.pages().contains(found)], entries[~stale]

    def _reset(self) -> None:
        """Arm the pages of all harvested entries again.

        KVM stops at an entry that it wrote anew before it was reset: it had no room.
        """
        start = time.perf_counter_ns()
        try:
            while True:
                try:
                    count = kvm_calls.call(self._vm, numbers.KVM_RESET_DIRTY_RINGS)
                    break
                except InterruptedError:
                    # A signal ended the call; how many entries it had reset by then, nobody says.
                    self._owed = 0
        except OSError as error:
            raise kvm_calls.refused("the rings cannot be reset", error) from error
        finally:
            self._ioctl_ns += time.perf_counter_ns() - start
        self._overrun |= count < self._owed
        self._owed = 0

    def _open_ring(self, fd: int) -> None:
        _check_vcpu(fd)
        nbytes = _ring_bytes(fd)
        self._rings.append(Ring(mmap.mmap(fd, nbytes, offset=_OFFSET)))


def _check_vcpu(fd: int) -> None:
    """Raise unless `fd` is a vCPU's: any file can be mapped, and without one memory that is new.

    A vCPU refuses calls of other drivers with EINVAL, without waiting for it to leave the guest;
    other files have no calls.
    """
    try:
        kvm_calls.call(fd, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return
    raise SharedPagesError(f"this VM has no dirty rings: descriptor {fd} is no vCPU's")


def _ring_bytes(fd: int) -> int:
    """The size of a vCPU's ring: mapped as long as any may be, which of its pages are there.

    A page that is not there would be a SIGBUS to touch; a system call that reads it says EFAULT.
    """
    most = _MOST_ENTRIES // _PAGE_ENTRIES
    reader, writer = os.pipe()
    try:
        with mmap.mmap(fd, most * mmap.PAGESIZE, offset=_OFFSET) as mapping:
            npages = 0
            while npages < most and _is_there(mapping, npages, reader, writer):
                npages = 2 * npages or 1
    finally:
        os.close(reader)
        os.close(writer)
    if not npages:
        raise SharedPagesError("this VM has no dirty rings: KVM_CAP_DIRTY_LOG_RING is not enabled")
    return npages * mmap.PAGESIZE


def _is_there(mapping: mmap.mmap, page: int, reader: int, writer: int) -> bool:
    at = page * mmap.PAGESIZE
    with memoryview(mapping) as view, view[at : at + 1] as first:
        try:
            os.write(writer, first)
        except OSError as error:
            if error.errno == errno.EFAULT:
                return False
            raise
    os.read(reader, 1)
    return True
