"""Dirty pages from a real KVM: KVM_GET_DIRTY_LOG, and KVM_CLEAR_DIRTY_LOG where it is offered.

Floor: sources. The kernel writes each slot's bitmap straight into the log. Invariant: a page that
was armed again is in the log, whenever the log is taken from.
"""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import Loan
from pysharedpages.abi.kvm import ClearDirtyLog, GetDirtyLog, numbers
from pysharedpages.dirty import DirtyLog, GuestMemory
from pysharedpages.errors import RangeError, SharedPagesError
from pysharedpages.sources import kvm_calls

__all__ = ["KvmDirtyLog"]

# Words of a bitmap that are cleared by one call or not at all, 1 GiB of pages: the kernel holds its
# memory lock for a call, and looking for words with a page in them is cheaper than clearing none.
_CLEAR_WORDS: Final = 4096


class KvmDirtyLog:
    """Collects the dirty bitmaps of a VM's slots, all of which are in KVM_MEM_LOG_DIRTY_PAGES.

    `vm_fd` is any VM's descriptor; it is not owned, and must stay open. `memory` names the slots,
    each exactly as large as KVM has it. `manual` says whether collecting and arming are two calls:
    true turns KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 on for the VM and clears only where pages are
    dirty, false turns it off and leaves arming to KVM_GET_DIRTY_LOG, and None takes what the VM
    offers. KVM has one setting a VM: the newest source decides.

    KVM writes a bitmap as long as it thinks the slot, and its size is looked at here and by
    `set_memory` alone: between these the slots stay as they are. `name` is the source's in
    `DirtyLog.sources()`.

    A collection is a barrier: every write that a vCPU did before it is found, running or not.
    `complete` is False: the log starts empty, and what this process writes itself (firmware, pages
    that arrive) KVM does not see; the VMM adds that.

    Thread-safe as KVM is: one thread collects at a time.

    Raises SharedPagesError where KVM refuses: a slot it does not have or does not log, a dirty ring
    in use; RangeError for a slot that is larger or smaller than `memory` says.

    Source: Documentation/virt/kvm/api.rst, 4.35 (KVM_GET_DIRTY_LOG), 4.117 (KVM_CLEAR_DIRTY_LOG).
    """

    complete: Final = False

    def __init__(
        self,
        vm_fd: int,
        memory: GuestMemory,
        *,
        manual: bool | None = None,
        name: str | None = "kvm-log",
    ) -> None:
        self._vm = vm_fd
        self._name = name
        self._slots: list[tuple[int, int, int]] = []
        self._ioctl_ns = 0
        try:
            offered = kvm_calls.extension(vm_fd, numbers.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
            self._can_clear = bool(offered)
            self._adopt(memory)
            self._manual = bool(offered & 1) if manual is None else manual
            if offered or self._manual:
                flags = numbers.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE if self._manual else 0
                kvm_calls.enable(vm_fd, numbers.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags)
        except OSError as error:
            raise kvm_calls.refused("this VM has no dirty log to collect", error) from error

    def set_memory(self, memory: GuestMemory) -> None:
        """The VM has other slots: those that were not there are checked as in the constructor.

        Slots that are gone are asked no more. KVM drops a slot's bitmap with the slot: collect
        before, if its pages stay memory in another slot. Not while a collection runs. Raises as the
        constructor does; then nothing changed.
        """
        try:
            self._adopt(memory)
        except OSError as error:
            raise kvm_calls.refused("the VM's slots cannot be checked", error) from error

    def _adopt(self, memory: GuestMemory) -> None:
        slots, known = list(memory), set(self._slots)
        for place in slots:
            if place not in known:
                self._check_slot(place[0], place[2])
        self._slots, self._memory = slots, memory

    @property
    def manual(self) -> bool:
        """Whether pages are armed again by KVM_CLEAR_DIRTY_LOG."""
        return self._manual

    @property
    def ioctl_ns(self) -> int:
        """Nanoseconds that the last collection spent in the kernel's calls."""
        return self._ioctl_ns

    def collect(self, log: DirtyLog) -> None:
        """Add what was written since the last collection, and arm those pages again.

        The log must be of the same slots, else RangeError. SharedPagesError when KVM refuses; what
        was collected by then is in the log. O(pages / 64) a slot.
        """
        if log.memory is not self._memory and list(log.memory) != self._slots:
            raise RangeError(f"the log is of {log.memory!r}, the source of {self._memory!r}")
        self._ioctl_ns = 0
        for slot, _, npages in self._slots:
            try:
                log.fill_bitmap(slot, partial(self._fill, slot, npages), source=self._name)
            except OSError as error:
                raise kvm_calls.refused(f"slot {slot:#x}", error) from error

    def _fill(self, slot: int, npages: int, loan: Loan) -> None:
        words = np.frombuffer(memoryview(loan), np.uint64)
        call = GetDirtyLog(slot, words.ctypes.data)
        self._timed(numbers.KVM_GET_DIRTY_LOG, call.encode())
        if self._manual:
            for first, stop in _dirty_spans(words, npages):
                address = words.ctypes.data + first // 8
                self._clear(slot, first, stop - first, address)

    def _clear(self, slot: int, first: int, npages: int, address: int) -> None:
        call = ClearDirtyLog(slot, npages, first, address)
        self._timed(numbers.KVM_CLEAR_DIRTY_LOG, call.encode())

    def _timed(self, request: int, argument: bytes) -> None:
        start = time.perf_counter_ns()
        try:
            kvm_calls.call(self._vm, request, argument)
        finally:
            self._ioctl_ns += time.perf_counter_ns() - start

    def _check_slot(self, slot: int, npages: int) -> None:
        """Raise unless KVM logs a slot of just this size: it writes as much as *it* thinks right.

        Clearing no page of a range succeeds where the range lies in the slot and, unless a multiple
        of 64 pages, ends with it. A kernel without that call takes the word of `memory`.
        """
        if not self._can_clear:
            return
        nothing = np.zeros(1, np.uint64)

        def lies_in(first: int, npages: int) -> bool:
            try:
                self._clear(slot, first, npages, nothing.ctypes.data)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return False
                if error.errno == errno.ENOENT:
                    text = f"slot {slot:#x} does not exist or has no KVM_MEM_LOG_DIRTY_PAGES"
                    raise SharedPagesError(text) from error
                raise
            return True

        start = (npages - 1) // 64 * 64
        beyond = start + 64
        longer = npages == beyond and any(lies_in(beyond, more) for more in range(1, 65))
        if longer or not lies_in(start, npages - start):
            raise RangeError(
                f"slot {slot:#x} does not have {npages} pages in KVM: it has "
                f"{'more' if longer else 'others'}"
            )

    def __repr__(self) -> str:
        how = "KVM_CLEAR_DIRTY_LOG" if self._manual else "KVM_GET_DIRTY_LOG"
        return f"<KvmDirtyLog of {self._memory!r}, armed by {how}, process {os.getpid()}>"


def _dirty_spans(words: NDArray[np.uint64], npages: int) -> list[tuple[int, int]]:
    """Spans [first, stop) of pages that hold all dirty ones, as KVM_CLEAR_DIRTY_LOG wants them.

    Each begins at a multiple of 64 and ends at one, or with the slot.
    """
    whole = len(words) // _CLEAR_WORDS * _CLEAR_WORDS
    dirty = np.zeros(len(words) // _CLEAR_WORDS + 3, np.bool_)
    dirty[1:-2] = words[:whole].reshape(-1, _CLEAR_WORDS).any(axis=1)
    dirty[-2] = words[whole:].any()
    edges = np.flatnonzero(dirty[1:] != dirty[:-1]) * (_CLEAR_WORDS * 64)
    return [
        (first, min(stop, npages))
        for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]
