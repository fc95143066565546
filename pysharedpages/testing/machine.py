"""MicroVM: a real KVM guest of a few programs, and the VMM that runs it."""

from __future__ import annotations

import ctypes
import operator
import os
import platform
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from pysharedpages._core import SharedPages
from pysharedpages.abi import Request, kvm, sev
from pysharedpages.abi.kvm import numbers
from pysharedpages.dirty import DirtyLog, GuestMemory
from pysharedpages.errors import ClosedError, RangeError, SharedPagesError
from pysharedpages.sources import KvmDirtyLog, KvmDirtyRing
from pysharedpages.sources.kvm_calls import call, enable, extension
from pysharedpages.testing.assembler import CONVERT_MSR
from pysharedpages.testing.firmware import Firmware
from pysharedpages.testing.space import PAGE_SIZE, AddressSpace, UnsupportedHostError
from pysharedpages.testing.steps import Hypercall, Step
from pysharedpages.testing.vcpu import Vcpu, address_of
from pysharedpages.units import parse_pages

__all__ = ["MicroVM"]

KVM: Final = "/dev/kvm"
# The most a slot takes is 2^31 - 1 pages; this is the largest power of two below.
_SLOT_PAGES: Final = 1 << 30
_CPUID_ENTRIES: Final = 256
_CPUID_ENTRY_BYTES: Final = 40
_VMCALL: Final = b"\x0f\x01\xc1"
_VMMCALL: Final = b"\x0f\x01\xd9"
_PATIENCE_SECONDS: Final = 60.0


class MicroVM:
    """A VM on /dev/kvm with sparse `memory`, and a vCPU in 64-bit mode for each of `programs`.

    `memory` is that from address 0 on, in pages or as a size in text, or the slots it shall have.

    `pages` hears of every conversion, and whether the guest allows its migration, before the
    guest's next instruction. `dirty` is "bitmap",
    "ring" (of `ring_entries` a vCPU) or None, and is in force before the guest's first instruction.
    `key` is the host's: what `Stamp` enciphers private pages with. `space` is memory to use instead
    of new one, as large or larger; its owner closes it, after this.

    `on_conversion(vcpu, gfn, npages, shared)`, if given, is called from the vCPU's thread once
    `pages` has been told and before the guest goes on; what it raises ends the vCPU.

    Raises UnsupportedHostError where the host cannot (`available` tells), RangeError for bad sizes
    and steps. One thread drives a machine; a vCPU's failure is raised by the next call that waits.
    """

    def __init__(
        self,
        memory: int | str | GuestMemory,
        programs: Sequence[Sequence[Step]],
        *,
        pages: SharedPages | None = None,
        dirty: str | None = "bitmap",
        ring_entries: int = 4096,
        key: int = 0,
        space: AddressSpace | None = None,
        on_conversion: Callable[[Vcpu, int, int, bool], object] | None = None,
    ) -> None:
        self.memory = memory if isinstance(memory, GuestMemory) else _slots(memory)
        npages = max((gfn + npages for _, gfn, npages in self.memory), default=0)
        if npages < 1:
            raise RangeError("0 slots of memory: the least is 1")
        if not programs:
            raise RangeError("0 programs: a machine has one vCPU or more")
        if dirty not in ("bitmap", "ring", None):
            raise RangeError(f"dirty is {dirty!r}: it is 'bitmap', 'ring' or None")
        if space is not None and len(space.buffer) < npages * PAGE_SIZE:
            raise RangeError(f"{len(space.buffer)} bytes of space: {npages} pages are needed")
        self.pages = pages
        self.dirty = dirty
        self._on_conversion = on_conversion
        self.vcpus: list[Vcpu] = []
        self._ring: tuple[KvmDirtyRing, DirtyLog] | None = None
        self._closed = False
        self._closing = ExitStack()
        try:
            self._firmware = Firmware(npages * PAGE_SIZE, programs, _hypercall_instruction())
            self.space = space or self._closing.enter_context(AddressSpace(npages))
            self._create(len(programs), ring_entries, key)
        except OSError as error:
            self._closing.close()
            raise UnsupportedHostError(f"{KVM} cannot run this guest: {error.strerror}") from error
        except BaseException:
            self._closing.close()
            raise

    @classmethod
    def available(cls) -> str | None:
        """None where this host can run one, else one sentence that says why not. Runs a guest."""
        try:
            with cls(512, [[]], dirty=None) as machine:
                machine.start()
                machine.wait_until_still(_PATIENCE_SECONDS)
        except SharedPagesError as error:
            return str(error)
        return None

    @classmethod
    def can_hypercall(cls) -> str | None:
        """None where a guest's hypercall leaves the guest here, else why not: it is tried."""
        try:
            with (
                SharedPages(512) as pages,
                cls(512, [[Hypercall(7)]], pages=pages, dirty=None) as machine,
            ):
                machine.start()
                if not machine.wait_until_still(0.5):
                    return "a hypercall never leaves the guest on this host, nor comes back"
                return None if 7 in pages else f"{KVM} has no KVM_CAP_EXIT_HYPERCALL"
        except SharedPagesError as error:
            return str(error)

    @property
    def vcpu_fds(self) -> list[int]:
        """The vCPUs' descriptors, for `KvmDirtyRing`."""
        return [vcpu.fd for vcpu in self.vcpus]

    def dirty_source(self, log: DirtyLog) -> KvmDirtyLog | KvmDirtyRing:
        """The source of its dirty pages; with rings, a full one is collected into `log`.

        ClosedError after `close`; SharedPagesError without a dirty log, and for the source of rings
        the second time.
        """
        if self._closed:
            raise ClosedError("the machine is closed")
        if self.dirty == "bitmap":
            return KvmDirtyLog(self.fd, self.memory)
        if self.dirty is None:
            raise SharedPagesError("this machine was made without a dirty log")
        if self._ring is not None:
            raise SharedPagesError("this machine's rings have a source already")
        ring = KvmDirtyRing(self.fd, self.vcpu_fds, self.memory, kick=self.kick)
        self._closing.callback(ring.close)
        self._ring = (ring, log)
        return ring

    def start(self) -> None:
        """Let all vCPUs run."""
        for vcpu in self.vcpus:
            vcpu.start()

    def stop(self) -> None:
        """Have all vCPUs stay at their next checkpoint, or where they stay already."""
        for vcpu in self.vcpus:
            vcpu.ask_to_stop()
        if not self.wait_until_still(_PATIENCE_SECONDS):
            raise SharedPagesError(f"a vCPU reached no checkpoint in {_PATIENCE_SECONDS:.0f} s")

    def resume(self) -> None:
        """Let vCPUs that stay at a checkpoint go on."""
        for vcpu in self.vcpus:
            vcpu.resume()

    def wait_until_still(self, timeout: float) -> bool:
        """Wait until no vCPU runs, at most `timeout` seconds; whether that is so."""
        deadline = time.monotonic() + timeout
        still = all(
            vcpu.wait_until_still(max(0.0, deadline - time.monotonic())) for vcpu in self.vcpus
        )
        self.raise_failure()
        return still

    def kick(self) -> None:
        """Return when every vCPU has been out of the guest since; what `KvmDirtyRing` needs."""
        for vcpu in self.vcpus:
            vcpu.kick()

    def raise_failure(self) -> None:
        """Raise what ended a vCPU, if something did."""
        for vcpu in self.vcpus:
            failure, vcpu.failure = vcpu.failure, None
            if failure is not None:
                raise failure

    def close(self) -> None:
        """End the vCPUs and the VM, and release its memory. Closing twice is nothing.

        SharedPagesError from `on_conversion`: its thread cannot wait for its own end.
        """
        if any(vcpu.is_current for vcpu in self.vcpus):
            raise SharedPagesError("a vCPU cannot close its own machine")
        self._closed = True
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- what vCPUs ask, from their threads ----

    def on_request(self, vcpu: Vcpu, request: Request) -> bool:
        """See `vcpu.Machine`."""
        if request.status:
            return False
        events = request.events
        if self.pages is not None:
            try:
                self.pages.apply(events)
            except RangeError:
                return False
        if self._on_conversion is not None:
            for start, npages, shared in events.tolist():
                self._on_conversion(vcpu, start, npages, bool(shared))
        return True

    def on_migration_control(self, vcpu: Vcpu, control: sev.MigrationControl) -> bool:
        """See `vcpu.Machine`."""
        if control.status:
            return False
        if self.pages is not None:
            self.pages.migration_allowed = control.ready
        return True

    def on_memory_fault(self, vcpu: Vcpu, fault: kvm.MemoryFault) -> None:
        """See `vcpu.Machine`."""
        where = f"vCPU {vcpu.number} took {fault.size} bytes at {fault.gpa:#x} for "
        where += "shared" if fault.shared else "private"
        # Without attributes a fault is no conversion: the memory behind the slot is gone.
        if not extension(self.fd, numbers.KVM_CAP_MEMORY_ATTRIBUTES):
            raise SharedPagesError(f"{where}: this VM's pages are of one kind, and they are gone")
        if not self.on_request(vcpu, fault):
            raise SharedPagesError(f"{where}: the tracker has no such pages")
        call(self.fd, numbers.KVM_SET_MEMORY_ATTRIBUTES, fault.answer())

    def on_ring_full(self, vcpu: Vcpu) -> None:
        """See `vcpu.Machine`."""
        if self._ring is None:
            raise SharedPagesError(f"the dirty ring of vCPU {vcpu.number} is full: no source yet")
        ring, log = self._ring
        ring.collect(log)

    # ---- making it ----

    def _create(self, nvcpus: int, ring_entries: int, key: int) -> None:
        reason = _missing()
        if reason is not None:
            raise UnsupportedHostError(reason)
        device = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
        try:
            cpuid = _supported_cpuid(device)
            self._check_host(device, cpuid)
            run_bytes = call(device, numbers.KVM_GET_VCPU_MMAP_SIZE)
            self.fd = call(device, numbers.KVM_CREATE_VM)
        finally:
            os.close(device)
        self._closing.callback(os.close, self.fd)
        if self.dirty == "ring":
            self._enable_ring(ring_entries)
        offered = kvm.hypercalls_of(extension(self.fd, numbers.KVM_CAP_EXIT_HYPERCALL))
        if numbers.KVM_HC_MAP_GPA_RANGE in offered:
            asked = kvm.enable_exit_hypercall(numbers.KVM_HC_MAP_GPA_RANGE)
            call(self.fd, numbers.KVM_ENABLE_CAP, asked)
        self._add_slots()
        self._filter_msr()
        for number in range(nvcpus):
            vcpu = Vcpu(self, self.fd, number, self._firmware, run_bytes)
            self.vcpus.append(vcpu)
            self._closing.callback(os.close, vcpu.fd)
            self._closing.callback(vcpu.close)
            vcpu.reset(cpuid, key, self._firmware.entries[number])

    def _check_host(self, device: int, cpuid: bytes) -> None:
        version = call(device, numbers.KVM_GET_API_VERSION)
        if version != numbers.KVM_API_VERSION:
            raise UnsupportedHostError(f"{KVM} has API {version}, not {numbers.KVM_API_VERSION}")
        needed = {
            "KVM_CAP_X86_USER_SPACE_MSR": numbers.KVM_CAP_X86_USER_SPACE_MSR,
            "KVM_CAP_X86_MSR_FILTER": numbers.KVM_CAP_X86_MSR_FILTER,
        }
        if self.dirty == "ring":
            needed["KVM_CAP_DIRTY_LOG_RING_ACQ_REL"] = numbers.KVM_CAP_DIRTY_LOG_RING_ACQ_REL
        for name, capability in needed.items():
            if not extension(device, capability):
                raise UnsupportedHostError(f"{KVM} has no {name}")
        bits = _physical_address_bits(cpuid)
        if self._firmware.end > 1 << bits:
            raise UnsupportedHostError(
                f"the guest's memory ends at {self._firmware.end:#x}: this host's CPUs address "
                f"{bits} bits"
            )

    def _enable_ring(self, entries: int) -> None:
        capability = numbers.KVM_CAP_DIRTY_LOG_RING_ACQ_REL
        most = extension(self.fd, capability) // 16
        if not 256 <= entries <= most or entries & (entries - 1):
            raise RangeError(f"{entries} ring entries: a power of two from 256 to {most}")
        enable(self.fd, capability, entries * 16)

    def _add_slots(self) -> None:
        address = address_of(self.space.buffer)
        logged = numbers.KVM_MEM_LOG_DIRTY_PAGES if self.dirty else 0
        slots = [
            kvm.MemorySlot(
                slot, logged, gfn * PAGE_SIZE, npages * PAGE_SIZE, address + gfn * PAGE_SIZE
            )
            for slot, gfn, npages in self.memory
        ]
        firmware = self._firmware
        where = address_of(firmware.memory)
        free = 1 + max(slot for slot, _, _ in self.memory)
        slots.append(kvm.MemorySlot(free, 0, firmware.base, firmware.nbytes, where))
        for slot in slots:
            call(self.fd, numbers.KVM_SET_USER_MEMORY_REGION, slot.encode())

    def _filter_msr(self) -> None:
        """Have writes to the MSR that converts, and to the one that allows a migration, leave the
        guest; all others stay as they are.
        """
        enable(self.fd, numbers.KVM_CAP_X86_USER_SPACE_MSR, numbers.KVM_MSR_EXIT_REASON_FILTER)
        denied = ctypes.c_uint64(0)  # one bit an MSR
        where = ctypes.addressof(denied)
        filtered = kvm.MsrFilter(
            (
                kvm.MsrRange(numbers.KVM_MSR_FILTER_WRITE, 64, CONVERT_MSR, where),
                kvm.MsrRange(
                    numbers.KVM_MSR_FILTER_WRITE, 1, numbers.MSR_KVM_MIGRATION_CONTROL, where
                ),
            )
        )
        call(self.fd, numbers.KVM_X86_SET_MSR_FILTER, filtered.encode())


def _slots(memory: int | str) -> GuestMemory:
    """Memory from gfn 0 on, in as few slots as KVM takes."""
    npages = parse_pages(memory, PAGE_SIZE) if isinstance(memory, str) else memory
    npages = operator.index(npages)
    if npages < 1:
        raise RangeError(f"{npages} pages of memory: the least is 1")
    starts = range(0, npages, _SLOT_PAGES)
    return GuestMemory(
        [(slot, gfn, min(_SLOT_PAGES, npages - gfn)) for slot, gfn in enumerate(starts)]
    )


def _missing() -> str | None:
    """What this host lacks before KVM can even be asked."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return f"the guest's code is for x86-64 Linux, not {sys.platform} on {platform.machine()}"
    if not os.path.exists(KVM):
        return f"this host has no {KVM}"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return f"this process may not open {KVM}"
    return None


def _hypercall_instruction() -> bytes:
    """The host CPU's own: KVM would have to patch the other into the guest's code."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
            is_amd = "AuthenticAMD" in cpuinfo.read(4096)
    except OSError:
        is_amd = False
    return _VMMCALL if is_amd else _VMCALL


def _supported_cpuid(device: int) -> bytes:
    table = bytearray(8 + _CPUID_ENTRIES * _CPUID_ENTRY_BYTES)
    struct.pack_into("=I", table, 0, _CPUID_ENTRIES)
    call(device, numbers.KVM_GET_SUPPORTED_CPUID, table)
    return bytes(table)


def _physical_address_bits(cpuid: bytes) -> int:
    """CPUID leaf 0x80000008, eax bits 7:0; 36 where a CPU has no such leaf."""
    (count,) = struct.unpack_from("=I", cpuid)
    for number in range(count):
        leaf, _, _, eax = struct.unpack_from("=4I", cpuid, 8 + number * _CPUID_ENTRY_BYTES)
        if leaf == 0x80000008:
            return int(eax & 0xFF)
    return 36
