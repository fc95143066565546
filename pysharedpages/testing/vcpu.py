"""One vCPU: its thread, what makes it leave the guest, and where it stands.

A vCPU's thread blocks every signal. Within KVM_RUN one of them is let through (KVM_SET_SIGNAL_MASK)
and ends the call, and it stays pending if it comes too early: a kick is never lost, no handler is
needed, and no signal of the process lands in a guest.

Source: Documentation/virt/kvm/api.rst, 4.3-4.5 (KVM_RUN, registers), 4.19, 5 (kvm_run).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
import threading
from enum import Enum
from typing import Any, Final, Protocol

from pysharedpages.abi import Request, kvm, sev, snp
from pysharedpages.abi.kvm import numbers
from pysharedpages.errors import ClosedError, FormatError, SharedPagesError
from pysharedpages.sources.kvm_calls import call, refused
from pysharedpages.testing.assembler import (
    ANSWER,
    BREAKPOINT_PORT,
    CHECKPOINT_PORT,
    CONVERT_MSR,
    WAIT_PORT,
)
from pysharedpages.testing.firmware import Firmware

__all__ = ["Machine", "State", "Vcpu"]

_KICK: Final = signal.SIGRTMAX
_MASK_IN_GUEST: Final = struct.pack("=IQ", 8, (1 << 64) - 1 & ~(1 << (_KICK - 1)))
_POLL_SECONDS: Final = 0.01

# struct kvm_regs: 16 general registers in KVM's order, rip, rflags. struct kvm_sregs: eight
# segments of 24 bytes, two descriptor tables of 16, then cr0, cr2, cr3, cr4, cr8, efer, apic_base.
_REGISTERS: Final = struct.Struct("<18Q")
_R14, _R15, _RSP, _RIP, _RFLAGS = 14, 15, 6, 16, 17
_SREGS_BYTES: Final = 312
_SEGMENT: Final = struct.Struct("<QIH10Bxx")
_SEGMENTS: Final = 6
_CONTROL: Final = struct.Struct("<6Q")
_CONTROL_AT: Final = 224
_CR0: Final = 0x80050033  # PG, AM, WP, NE, ET, MP, PE
_CR4: Final = 0x20  # PAE
_EFER: Final = 0x500  # LMA, LME
_CODE: Final = (0, 0xFFFFFFFF, 0x08, 0xB, 1, 0, 0, 1, 1, 1, 0, 0, 0)
_DATA: Final = (0, 0xFFFFFFFF, 0x10, 0x3, 1, 0, 1, 1, 0, 1, 0, 0, 0)


class State(Enum):
    """Where a vCPU is. It moves on by itself only from `RUNNING`."""

    NEW = "new"
    RUNNING = "running"
    AT_CHECKPOINT = "at a checkpoint"
    AT_BREAKPOINT = "at a breakpoint"
    HALTED = "halted"
    FAILED = "failed"


class Machine(Protocol):
    """What a vCPU asks of its machine, from its own thread, before the guest goes on."""

    def on_request(self, vcpu: Vcpu, request: Request) -> bool:
        """A guest asks for conversions; whether they are done."""

    def on_migration_control(self, vcpu: Vcpu, control: sev.MigrationControl) -> bool:
        """A guest says whether it may be migrated; whether that was noted."""

    def on_memory_fault(self, vcpu: Vcpu, fault: kvm.MemoryFault) -> None:
        """A guest took pages for the other kind; SharedPagesError where they cannot become it."""

    def on_ring_full(self, vcpu: Vcpu) -> None:
        """The vCPU's dirty ring is full: it is to be harvested and reset."""


class Vcpu:
    """A vCPU in 64-bit mode. Its thread changes its state; all others may look, and ask."""

    def __init__(
        self, machine: Machine, vm: int, number: int, firmware: Firmware, run_bytes: int
    ) -> None:
        self.number = number
        self.state = State.NEW
        self.breakpoint: int | None = None
        self.failure: BaseException | None = None
        self.exits = 0
        self._machine = machine
        self._firmware = firmware
        self._changed = threading.Condition()
        self._inside = False
        self._kicked = False
        self._stopping = False
        self._passing = False
        self._ending = False
        self._thread = threading.Thread(target=self._live, name="vcpu", daemon=True)
        self.fd = call(vm, numbers.KVM_CREATE_VCPU, number)
        try:
            self._run = mmap.mmap(self.fd, run_bytes)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def checkpoints(self) -> int:
        """How many `Checkpoint` steps it has passed."""
        return self._firmware.checkpoints(self.number)

    @property
    def answer(self) -> int:
        """What its last `Hypercall` step was answered."""
        return self._firmware.word(self.number, ANSWER)

    @property
    def is_current(self) -> bool:
        """Whether the caller is its thread."""
        return threading.current_thread() is self._thread

    @property
    def is_still(self) -> bool:
        """Whether it executes nothing, and will not unless told."""
        return self.state is not State.RUNNING

    # ---- registers, while it is still ----

    def reset(self, cpuid: bytes, key: int, entry: int) -> None:
        """Put it into 64-bit mode at `entry`, the host's key in r15."""
        call(self.fd, numbers.KVM_SET_CPUID2, bytearray(cpuid))
        sregs = bytearray(_SREGS_BYTES)
        call(self.fd, numbers.KVM_GET_SREGS, sregs)
        for number in range(_SEGMENTS):
            _SEGMENT.pack_into(sregs, number * _SEGMENT.size, *(_DATA if number else _CODE))
        _CONTROL.pack_into(sregs, _CONTROL_AT, _CR0, 0, self._firmware.root, _CR4, 0, _EFER)
        call(self.fd, numbers.KVM_SET_SREGS, sregs)
        registers = [0] * 18
        registers[_RIP], registers[_RFLAGS] = entry, 2
        self._set_registers(registers, key)

    def registers(self) -> list[int]:
        """Its 16 general registers, rip and rflags; an exit under way is completed first.

        ClosedError after `close`, SharedPagesError while it runs.
        """
        self._check_open()
        if self.state is State.RUNNING:
            raise SharedPagesError(f"vCPU {self.number} runs: its registers are in use")
        self._complete_exit()
        raw = bytearray(_REGISTERS.size)
        call(self.fd, numbers.KVM_GET_REGS, raw)
        return list(_REGISTERS.unpack(raw))

    def load(self, registers: list[int]) -> None:
        """Continue where a vCPU of another host stood that had these registers, but with the key
        of this one.
        """
        self._set_registers(registers, self.registers()[_R15])

    def _set_registers(self, registers: list[int], key: int) -> None:
        own = list(registers)
        own[_R14], own[_R15] = self._firmware.mailbox(self.number), key
        own[_RSP] = self._firmware.stack(self.number)
        call(self.fd, numbers.KVM_SET_REGS, bytearray(_REGISTERS.pack(*own)))

    def _complete_exit(self) -> None:
        self._run[numbers.RUN_IMMEDIATE_EXIT] = 1
        try:
            call(self.fd, numbers.KVM_RUN)
        except InterruptedError:
            pass
        finally:
            self._run[numbers.RUN_IMMEDIATE_EXIT] = 0

    def _check_open(self) -> None:
        if self._ending:
            raise ClosedError(f"vCPU {self.number} is closed")

    # ---- what others ask of it ----

    def start(self) -> None:
        """Let it run. ClosedError after `close`, SharedPagesError the second time."""
        self._check_open()
        if self.state is not State.NEW:
            raise SharedPagesError(
                f"vCPU {self.number} was started before: it is {self.state.value}"
            )
        self.state = State.RUNNING
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Have it stay at the next checkpoint; `wait_until_still` tells when it does."""
        self._firmware.ask_to_stop(self.number, True)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Take the request to stop back; a vCPU at a checkpoint goes on, others are left alone."""
        self._firmware.ask_to_stop(self.number, False)
        with self._changed:
            self._stopping = False
            if self.state is State.AT_CHECKPOINT:
                self._go_on()

    def pass_breakpoint(self) -> None:
        """Let it go on from the breakpoint where it stays; SharedPagesError if it stays at none."""
        with self._changed:
            if self.state is not State.AT_BREAKPOINT:
                raise SharedPagesError(
                    f"vCPU {self.number} is {self.state.value}, at no breakpoint"
                )
            self._go_on()

    def wait_until_still(self, timeout: float) -> bool:
        """Wait until it executes nothing, at most `timeout` seconds; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_still, timeout)

    def kick(self) -> None:
        """Return when it has been out of the guest at some instant since this call.

        Its own thread, which is, may call this too.
        """
        if self.is_current:
            return
        with self._changed:
            # Its thread cannot end meanwhile: the last that it does is to take this lock.
            self._kicked = True
            if not self._inside or self._thread.ident is None:
                return
            # If it has left and come back by now, the signal waits for it, and it leaves at once.
            signal.pthread_kill(self._thread.ident, _KICK)
            while self._kicked and self._inside:
                self._changed.wait(_POLL_SECONDS)

    def close(self) -> None:
        """End its thread, wherever it is. Not for that thread to call."""
        with self._changed:
            self._ending = True
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            while self._thread.is_alive():
                self.kick()
                self._thread.join(_POLL_SECONDS)
        self._run.close()

    def _go_on(self) -> None:
        self._passing = True
        self.breakpoint = None
        self.state = State.RUNNING
        self._changed.notify_all()

    # ---- its thread ----

    def _live(self) -> None:
        state = State.HALTED
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            call(self.fd, numbers.KVM_SET_SIGNAL_MASK, _MASK_IN_GUEST)
            while not self._ending and self._dispatch(self._enter()):
                pass
        except BaseException as failure:
            self.failure = failure
            state = State.FAILED
        with self._changed:
            self.state = state
            self._changed.notify_all()

    def _enter(self) -> Any:
        """Run the guest until it exits; what the exit says, or None if a kick ended it.

        SharedPagesError where KVM_RUN fails for another reason.
        """
        self._inside = True
        try:
            call(self.fd, numbers.KVM_RUN)
        except InterruptedError:
            while signal.sigtimedwait([_KICK], 0) is not None:
                pass
            return None
        except OSError as error:
            found = kvm.decode_exit(self._run, error.errno or errno.EIO)
            if found is None:
                raise refused(f"vCPU {self.number}", error) from error
            return found
        finally:
            self._inside = False
            self.exits += 1
            if self._kicked:
                with self._changed:
                    self._kicked = False
                    self._changed.notify_all()
        return kvm.decode_exit(self._run)

    def _dispatch(self, found: Any) -> bool:
        """Do what the guest asks for, or what KVM does; false when the guest has halted."""
        if isinstance(found, kvm.MsrWrite):
            self._on_wrmsr(found)
        elif isinstance(found, kvm.PortIo):
            self._on_port(found)
        elif isinstance(found, kvm.MapGpaRange):
            self._on_hypercall(found)
        elif isinstance(found, kvm.MemoryFault):
            self._machine.on_memory_fault(self, found)
        elif isinstance(found, kvm.Exit):
            return self._on_exit(found)
        elif found is not None:
            raise SharedPagesError(f"vCPU {self.number} left the guest for {found}: no step does")
        return True

    def _on_exit(self, found: kvm.Exit) -> bool:
        if found.ring_full:
            self._machine.on_ring_full(self)
        elif found.reason == numbers.KVM_EXIT_HLT:
            return False
        elif found.reason == numbers.KVM_EXIT_SHUTDOWN:
            raise SharedPagesError(f"vCPU {self.number} shut down: its guest took a triple fault")
        elif found.reason != numbers.KVM_EXIT_INTR:
            raise SharedPagesError(
                f"vCPU {self.number} left the guest with KVM_EXIT {found.reason}, which no step "
                "asks for"
            )
        return True

    def _on_wrmsr(self, write: kvm.MsrWrite) -> None:
        if write.index == sev.MSR_KVM_MIGRATION_CONTROL:
            control = sev.decode_migration_control(write.index, write.data)
            noted = self._machine.on_migration_control(self, control)
            write.answer(self._run, fault=not noted)
            return
        if write.index != CONVERT_MSR:
            raise SharedPagesError(
                f"vCPU {self.number} wrote MSR {write.index:#x}, which no step does"
            )
        try:
            request = snp.decode_msr(write.data)
        except FormatError:
            write.answer(self._run, fault=True)
            return
        write.answer(self._run, fault=not self._machine.on_request(self, request))

    def _on_hypercall(self, request: kvm.MapGpaRange) -> None:
        done = self._machine.on_request(self, request)
        request.answer(self._run, 0 if done else numbers.EINVAL, signed=True)

    def _on_port(self, access: kvm.PortIo) -> None:
        number = int.from_bytes(access.data or b"", "little")
        if access.data is None:
            raise SharedPagesError(f"vCPU {self.number} read port {access.port:#x}: no step does")
        if access.port == BREAKPOINT_PORT:
            self._stay(State.AT_BREAKPOINT, number)
        elif access.port == CHECKPOINT_PORT:
            self._stay(State.AT_CHECKPOINT, None)
        elif access.port == WAIT_PORT:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, number / 1e6)
        else:
            raise SharedPagesError(
                f"vCPU {self.number} wrote port {access.port:#x}, which no step does"
            )

    def _stay(self, state: State, breakpoint_number: int | None) -> None:
        with self._changed:
            if state is State.AT_CHECKPOINT and not self._stopping:
                return
            self.breakpoint = breakpoint_number
            self.state = state
            self._passing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._passing or self._ending)


def address_of(mapping: mmap.mmap) -> int:
    """Where a mapping of this process begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))
