"""One vCPU: its thread, what makes it leave the guest, and where it stands.

A vCPU's thread blocks every signal. Within KVM_RUN one of them is let through (KVM_SET_SIGNAL_MASK)
and ends the call, and it stays pending if it comes too early: a kick is never lost, no handler is
needed, and no signal of the process lands in a guest.

Source: Documentation/virt/kvm/api.rst, 4.3-4.5 (KVM_RUN, registers), 4.19, 5 (kvm_run).
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import struct
import threading
from enum import Enum
from typing import Final, Protocol

from pysharedpages import _kvm
from pysharedpages.errors import SharedPagesError
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

# struct kvm_run, x86-64.
_IMMEDIATE_EXIT: Final = 1
_EXIT_REASON: Final = struct.Struct("<I")
_EXIT_REASON_AT: Final = 8
_IO: Final = struct.Struct("<BBHIQ")  # direction, size, port, count, where the data lies
_MSR: Final = struct.Struct("<B7xIIQ")  # error, reason, index, data
_HYPERCALL: Final = struct.Struct("<Q6QQ")  # number, arguments, answer
_HYPERCALL_ANSWER_AT: Final = 88
_EXIT_AT: Final = 32

# struct kvm_regs: 16 general registers by kvm_run's order, rip, rflags. struct kvm_sregs: eight
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

    def on_psc(self, vcpu: Vcpu, value: int) -> bool:
        """A guest wrote `value` to the MSR that converts; false has it take a fault."""

    def on_map_gpa_range(self, vcpu: Vcpu, gpa: int, npages: int, attributes: int) -> int:
        """A guest made the hypercall that converts; what it is to be answered."""

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
        self.fd = _kvm.call(vm, _kvm.KVM_CREATE_VCPU, number)
        self._run = mmap.mmap(self.fd, run_bytes)

    @property
    def checkpoints(self) -> int:
        """How many `Checkpoint` steps it has passed."""
        return self._firmware.checkpoints(self.number)

    @property
    def answer(self) -> int:
        """What its last `Hypercall` step was answered."""
        return self._firmware.word(self.number, ANSWER)

    @property
    def is_still(self) -> bool:
        """Whether it executes nothing, and will not unless told."""
        return self.state is not State.RUNNING

    # ---- registers, while it is still ----

    def reset(self, cpuid: bytes, key: int, entry: int) -> None:
        """Put it into 64-bit mode at `entry`, the host's key in r15."""
        _kvm.call(self.fd, _kvm.KVM_SET_CPUID2, bytearray(cpuid))
        sregs = bytearray(_SREGS_BYTES)
        _kvm.call(self.fd, _kvm.KVM_GET_SREGS, sregs)
        for number in range(_SEGMENTS):
            _SEGMENT.pack_into(sregs, number * _SEGMENT.size, *(_DATA if number else _CODE))
        _CONTROL.pack_into(sregs, _CONTROL_AT, _CR0, 0, self._firmware.root, _CR4, 0, _EFER)
        _kvm.call(self.fd, _kvm.KVM_SET_SREGS, sregs)
        registers = [0] * 18
        registers[_RIP], registers[_RFLAGS] = entry, 2
        self._set_registers(registers, key)

    def registers(self) -> list[int]:
        """Its 16 general registers, rip and rflags; an exit under way is completed first."""
        self._complete_exit()
        raw = bytearray(_REGISTERS.size)
        _kvm.call(self.fd, _kvm.KVM_GET_REGS, raw)
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
        _kvm.call(self.fd, _kvm.KVM_SET_REGS, bytearray(_REGISTERS.pack(*own)))

    def _complete_exit(self) -> None:
        self._run[_IMMEDIATE_EXIT] = 1
        try:
            _kvm.call(self.fd, _kvm.KVM_RUN)
        except InterruptedError:
            pass
        finally:
            self._run[_IMMEDIATE_EXIT] = 0

    # ---- what others ask of it ----

    def start(self) -> None:
        """Let it run."""
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
        if threading.current_thread() is self._thread:
            return
        self._kicked = True
        if not self._inside or self._thread.ident is None:
            return
        # If it has left and come back by now, the signal waits for it, and it leaves at once.
        signal.pthread_kill(self._thread.ident, _KICK)
        with self._changed:
            while self._kicked and self._inside and self._thread.is_alive():
                self._changed.wait(_POLL_SECONDS)

    def close(self) -> None:
        """End its thread, wherever it is, and close its descriptor."""
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
            _kvm.call(self.fd, _kvm.KVM_SET_SIGNAL_MASK, _MASK_IN_GUEST)
            while not self._ending and self._dispatch(self._enter()):
                pass
        except BaseException as failure:
            self.failure = failure
            state = State.FAILED
        with self._changed:
            self.state = state
            self._changed.notify_all()

    def _enter(self) -> int:
        """Run the guest until it exits; the reason."""
        self._inside = True
        try:
            _kvm.call(self.fd, _kvm.KVM_RUN)
        except InterruptedError:
            while signal.sigtimedwait([_KICK], 0) is not None:
                pass
            return _kvm.KVM_EXIT_INTR
        finally:
            self._inside = False
            self.exits += 1
            if self._kicked:
                with self._changed:
                    self._kicked = False
                    self._changed.notify_all()
        reason: int = _EXIT_REASON.unpack_from(self._run, _EXIT_REASON_AT)[0]
        return reason

    def _dispatch(self, reason: int) -> bool:
        """Do what the guest asks for; false when it has halted."""
        if reason == _kvm.KVM_EXIT_X86_WRMSR:
            self._on_wrmsr()
        elif reason == _kvm.KVM_EXIT_IO:
            self._on_out()
        elif reason == _kvm.KVM_EXIT_HYPERCALL:
            self._on_hypercall()
        elif reason == _kvm.KVM_EXIT_DIRTY_RING_FULL:
            self._machine.on_ring_full(self)
        elif reason == _kvm.KVM_EXIT_HLT:
            return False
        elif reason != _kvm.KVM_EXIT_INTR:
            raise SharedPagesError(
                f"vCPU {self.number} left the guest with KVM_EXIT {reason}, which no step asks for"
            )
        return True

    def _on_wrmsr(self) -> None:
        _, _, index, value = _MSR.unpack_from(self._run, _EXIT_AT)
        if index != CONVERT_MSR:
            raise SharedPagesError(f"vCPU {self.number} wrote MSR {index:#x}, which no step does")
        self._run[_EXIT_AT] = not self._machine.on_psc(self, value)

    def _on_hypercall(self) -> None:
        number, gpa, npages, attributes, *_ = _HYPERCALL.unpack_from(self._run, _EXIT_AT)
        if number != _kvm.KVM_HC_MAP_GPA_RANGE:
            raise SharedPagesError(f"vCPU {self.number} made hypercall {number}: no step does")
        answer = self._machine.on_map_gpa_range(self, gpa, npages, attributes)
        struct.pack_into("<q", self._run, _HYPERCALL_ANSWER_AT, answer)

    def _on_out(self) -> None:
        _, size, port, _, where = _IO.unpack_from(self._run, _EXIT_AT)
        number = int.from_bytes(self._run[where : where + size], "little")
        if port == BREAKPOINT_PORT:
            self._stay(State.AT_BREAKPOINT, number)
        elif port == CHECKPOINT_PORT:
            self._stay(State.AT_CHECKPOINT, None)
        elif port == WAIT_PORT:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, number / 1e6)
        else:
            raise SharedPagesError(f"vCPU {self.number} wrote port {port:#x}, which no step does")

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
