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

from pysharedpages import _kvm
from pysharedpages._core import SharedPages
from pysharedpages.dirty import DirtyLog, GuestMemory
from pysharedpages.errors import RangeError, SharedPagesError
from pysharedpages.sources import KvmDirtyLog, KvmDirtyRing
from pysharedpages.testing.assembler import CONVERT_MSR
from pysharedpages.testing.firmware import Firmware
from pysharedpages.testing.space import AddressSpace, UnsupportedHostError
from pysharedpages.testing.steps import Hypercall, Step
from pysharedpages.testing.vcpu import Vcpu, address_of
from pysharedpages.units import parse_pages

__all__ = ["MicroVM"]

KVM: Final = "/dev/kvm"
# The most a slot takes is 2^31 - 1 pages; this is the largest power of two below.
_SLOT_PAGES: Final = 1 << 30
_CPUID_ENTRIES: Final = 256
_CPUID_ENTRY_BYTES: Final = 40
# struct kvm_msr_filter: flags, then 16 ranges, each: flags, how many, the first, their bitmap.
_MSR_FILTER_BYTES: Final = 392
_MSR_RANGE: Final = struct.Struct("=III4xQ")
_MAP_GPA_RANGE: Final = 1 << _kvm.KVM_HC_MAP_GPA_RANGE
_VMCALL: Final = b"\x0f\x01\xc1"
_VMMCALL: Final = b"\x0f\x01\xd9"
_EINVAL: Final = 22
_PATIENCE_SECONDS: Final = 60.0


class MicroVM:
    """A VM on /dev/kvm with sparse `memory`, and a vCPU in 64-bit mode for each of `programs`.

    `memory` is that from address 0 on, in pages or as a size in text, or the slots it shall have.

    `pages` hears of every conversion before the guest's next instruction. `dirty` is "bitmap",
    "ring" (of `ring_entries` a vCPU) or None, and is in force before the guest's first instruction.
    `key` is the host's: what `Stamp` enciphers private pages with. `space` is memory to use instead
    of new one; its owner closes it, after this.

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
        self.pages = pages
        self.dirty = dirty
        self._on_conversion = on_conversion
        self._ring: tuple[KvmDirtyRing, DirtyLog] | None = None
        self._closing = ExitStack()
        try:
            self._firmware = Firmware(npages * _kvm.PAGE_SIZE, programs, _hypercall_instruction())
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
        """The source of its dirty pages; with rings, a full one is collected into `log`."""
        if self.dirty == "bitmap":
            return KvmDirtyLog(self.fd, self.memory)
        if self.dirty is None:
            raise SharedPagesError("this machine was made without a dirty log")
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
        """End the vCPUs and the VM, and release its memory."""
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

    def on_psc(self, vcpu: Vcpu, value: int) -> bool:
        """See `vcpu.Machine`."""
        operation, gfn = value >> 52 & 0xF, value >> 12 & ((1 << 40) - 1)
        if value & 0xFFF != 0x014 or value >> 56 or operation not in (1, 2):
            return False
        return self._convert(vcpu, gfn, 1, operation == 2)

    def on_map_gpa_range(self, vcpu: Vcpu, gpa: int, npages: int, attributes: int) -> int:
        """See `vcpu.Machine`."""
        shared = not attributes & _kvm.KVM_MAP_GPA_RANGE_ENCRYPTED
        if gpa % _kvm.PAGE_SIZE or not npages:
            return -_EINVAL
        return 0 if self._convert(vcpu, gpa // _kvm.PAGE_SIZE, npages, shared) else -_EINVAL

    def on_ring_full(self, vcpu: Vcpu) -> None:
        """See `vcpu.Machine`."""
        if self._ring is None:
            raise SharedPagesError(f"the dirty ring of vCPU {vcpu.number} is full: no source yet")
        ring, log = self._ring
        ring.collect(log)

    def _convert(self, vcpu: Vcpu, gfn: int, npages: int, shared: bool) -> bool:
        if self.pages is not None:
            try:
                (self.pages.share if shared else self.pages.unshare)(gfn, npages)
            except RangeError:
                return False
        if self._on_conversion is not None:
            self._on_conversion(vcpu, gfn, npages, shared)
        return True

    # ---- making it ----

    def _create(self, nvcpus: int, ring_entries: int, key: int) -> None:
        reason = _missing()
        if reason is not None:
            raise UnsupportedHostError(reason)
        kvm = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
        try:
            cpuid = _supported_cpuid(kvm)
            self._check_host(kvm, cpuid)
            run_bytes = _kvm.call(kvm, _kvm.KVM_GET_VCPU_MMAP_SIZE)
            self.fd = _kvm.call(kvm, _kvm.KVM_CREATE_VM)
        finally:
            os.close(kvm)
        self._closing.callback(os.close, self.fd)
        if self.dirty == "ring":
            self._enable_ring(ring_entries)
        if _kvm.extension(self.fd, _kvm.KVM_CAP_EXIT_HYPERCALL) & _MAP_GPA_RANGE:
            _kvm.enable(self.fd, _kvm.KVM_CAP_EXIT_HYPERCALL, _MAP_GPA_RANGE)
        self._add_slots()
        self._filter_msr()
        self.vcpus: list[Vcpu] = []
        for number in range(nvcpus):
            vcpu = Vcpu(self, self.fd, number, self._firmware, run_bytes)
            self.vcpus.append(vcpu)
            self._closing.callback(os.close, vcpu.fd)
            self._closing.callback(vcpu.close)
            vcpu.reset(cpuid, key, self._firmware.entries[number])

    def _check_host(self, kvm: int, cpuid: bytes) -> None:
        version = _kvm.call(kvm, _kvm.KVM_GET_API_VERSION)
        if version != _kvm.API_VERSION:
            raise UnsupportedHostError(f"{KVM} has API {version}, not {_kvm.API_VERSION}")
        needed = {
            "KVM_CAP_X86_USER_SPACE_MSR": _kvm.KVM_CAP_X86_USER_SPACE_MSR,
            "KVM_CAP_X86_MSR_FILTER": _kvm.KVM_CAP_X86_MSR_FILTER,
        }
        if self.dirty == "ring":
            needed["KVM_CAP_DIRTY_LOG_RING_ACQ_REL"] = _kvm.KVM_CAP_DIRTY_LOG_RING_ACQ_REL
        for name, capability in needed.items():
            if not _kvm.extension(kvm, capability):
                raise UnsupportedHostError(f"{KVM} has no {name}")
        bits = _physical_address_bits(cpuid)
        if self._firmware.end > 1 << bits:
            raise UnsupportedHostError(
                f"the guest's memory ends at {self._firmware.end:#x}: this host's CPUs address "
                f"{bits} bits"
            )

    def _enable_ring(self, entries: int) -> None:
        capability = _kvm.KVM_CAP_DIRTY_LOG_RING_ACQ_REL
        most = _kvm.extension(self.fd, capability) // 16
        if not 256 <= entries <= most or entries & (entries - 1):
            raise RangeError(f"{entries} ring entries: a power of two from 256 to {most}")
        _kvm.enable(self.fd, capability, entries * 16)

    def _add_slots(self) -> None:
        address = address_of(self.space.buffer)
        logged = _kvm.KVM_MEM_LOG_DIRTY_PAGES if self.dirty else 0
        regions = [
            (slot, logged, gfn * _kvm.PAGE_SIZE, npages * _kvm.PAGE_SIZE, address)
            for slot, gfn, npages in self.memory
        ]
        regions = [(*region[:4], address + region[2]) for region in regions]
        firmware = self._firmware
        where = address_of(firmware.memory)
        free = 1 + max(slot for slot, _, _ in self.memory)
        regions.append((free, 0, firmware.base, firmware.nbytes, where))
        for region in regions:
            request = _kvm.MEMORY_REGION.pack(*region)
            _kvm.call(self.fd, _kvm.KVM_SET_USER_MEMORY_REGION, request)

    def _filter_msr(self) -> None:
        """Have writes to the MSR that converts leave the guest; all others stay as they are."""
        _kvm.enable(self.fd, _kvm.KVM_CAP_X86_USER_SPACE_MSR, _kvm.KVM_MSR_EXIT_REASON_FILTER)
        denied = ctypes.c_uint64(0)  # one bit an MSR
        address = ctypes.addressof(denied)
        request = bytearray(_MSR_FILTER_BYTES)
        _MSR_RANGE.pack_into(request, 8, _kvm.KVM_MSR_FILTER_WRITE, 64, CONVERT_MSR, address)
        _kvm.call(self.fd, _kvm.KVM_X86_SET_MSR_FILTER, request)


def _slots(memory: int | str) -> GuestMemory:
    """Memory from gfn 0 on, in as few slots as KVM takes."""
    npages = parse_pages(memory, _kvm.PAGE_SIZE) if isinstance(memory, str) else memory
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


def _supported_cpuid(kvm: int) -> bytes:
    table = bytearray(8 + _CPUID_ENTRIES * _CPUID_ENTRY_BYTES)
    struct.pack_into("=I", table, 0, _CPUID_ENTRIES)
    _kvm.call(kvm, _kvm.KVM_GET_SUPPORTED_CPUID, table)
    return bytes(table)


def _physical_address_bits(cpuid: bytes) -> int:
    """CPUID leaf 0x80000008, eax bits 7:0; 36 where a CPU has no such leaf."""
    (count,) = struct.unpack_from("=I", cpuid)
    for number in range(count):
        leaf, _, _, eax = struct.unpack_from("=4I", cpuid, 8 + number * _CPUID_ENTRY_BYTES)
        if leaf == 0x80000008:
            return int(eax & 0xFF)
    return 36
