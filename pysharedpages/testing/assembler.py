"""Steps as x86-64 machine code.

Code is position-dependent: it is assembled for the address it will lie at, after the routines that
it calls. Registers: r14 points to the vCPU's mailbox and r15 holds its host's key, both set by the
VMM; r8 to r10 count loops; rsp is a stack in the mailbox; all others are scratch. Between two steps
a guest's state is its memory and these registers.

Source of the encodings: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Final

from pysharedpages.abi.kvm.numbers import (
    KVM_HC_MAP_GPA_RANGE,
    KVM_MAP_GPA_RANGE_ENCRYPTED,
    MSR_KVM_MIGRATION_CONTROL,
)
from pysharedpages.abi.sev import MigrationControl
from pysharedpages.abi.snp import MsrPageState
from pysharedpages.errors import RangeError
from pysharedpages.testing.steps import (
    STAMP_WORDS,
    AllowMigration,
    Assume,
    Breakpoint,
    Checkpoint,
    Convert,
    Halt,
    Hypercall,
    Loop,
    Retype,
    Stamp,
    Step,
    Wait,
    Write,
)

__all__ = [
    "ANSWER",
    "BREAKPOINT_PORT",
    "CHECKPOINTS",
    "CHECKPOINT_PORT",
    "CONVERT_MSR",
    "STOP",
    "TWEAK",
    "WAIT_PORT",
    "WORD_FACTOR",
    "Assembler",
]

CONVERT_MSR: Final = 0x4B564DF0
"""The MSR that converts pages: one that no CPU or hypervisor has, which a filter denies.

What is written to it is `abi.snp.MsrPageState`: a page state change by the GHCB MSR.
"""

BREAKPOINT_PORT: Final = 0x10
WAIT_PORT: Final = 0x11
CHECKPOINT_PORT: Final = 0x12

# The mailbox of a vCPU: a stop is asked for (u32), checkpoints passed (u64), what the last
# hypercall answered (u64).
STOP: Final = 0
CHECKPOINTS: Final = 8
ANSWER: Final = 16

TWEAK: Final = 0x1E3779B1
WORD_FACTOR: Final = 0x2545F491
"""`Stamp`'s cipher: word -> (word ^ gfn * TWEAK ^ key) * WORD_FACTOR, modulo 2^64."""

_DEEPEST: Final = 3
_U32: Final = 1 << 32
_U64: Final = 1 << 64

# Stores rax in esi words of each of edx pages from rdi on.
_FILL: Final = bytes.fromhex(
    "89f1"  # page: mov ecx, esi
    "4889fd"  # mov rbp, rdi
    "f348ab"  # rep stosq
    "488dbd00100000"  # lea rdi, [rbp + 0x1000]
    "ffca"  # dec edx
    "75ed"  # jnz page
    "c3"  # ret
)

# Writes rdi, and rdi + 0x1000 and so on, ebp times to the MSR.
_WRMSR: Final = (
    "4889f8"  # mov rax, rdi
    "4889fa"  # mov rdx, rdi
    "48c1ea20"  # shr rdx, 32
    f"b9{struct.pack('<I', CONVERT_MSR).hex()}"  # mov ecx, CONVERT_MSR
    "0f30"  # wrmsr
    "4881c700100000"  # add rdi, 0x1000
    "ffcd"  # dec ebp
)
_CONVERT: Final = bytes.fromhex(
    _WRMSR  # page:
    + "75e4"  # jnz page
    "c3"  # ret
)

# The same, after r12 was made bit 0 of the page's ledger entry at rsi.
_RETYPE: Final = bytes.fromhex(
    "488b06"  # page: mov rax, [rsi]
    "4883e0fe"  # and rax, ~1
    "4c09e0"  # or rax, r12
    "488906"  # mov [rsi], rax
    "4883c608" + _WRMSR + "75d3"  # add rsi, 8  # jnz page
    "c3"  # ret
)

# Stamps edx pages from rdi on, whose ledger entries begin at rsi.
_STAMP: Final = bytes.fromhex(
    "488b06"  # page: mov rax, [rsi]
    "4883c002"  # add rax, 2
    "488906"  # mov [rsi], rax
    "4883c608"  # add rsi, 8
    "4989fc"  # mov r12, rdi
    "49c1ec0c"  # shr r12, 12
    "4889c5"  # mov rbp, rax
    "48d1e8"  # shr rax, 1
    "48c1e028"  # shl rax, 40
    "4c09e0"  # or rax, r12
    "40f6c501"  # test bpl, 1
    "7514"  # jnz shared
    f"4d69e4{struct.pack('<I', TWEAK).hex()}"  # imul r12, r12, TWEAK
    "4d31fc"  # xor r12, r15
    "4c31e0"  # xor rax, r12
    f"4869c0{struct.pack('<I', WORD_FACTOR).hex()}"  # imul rax, rax, WORD_FACTOR
    "4889fd"  # shared: mov rbp, rdi
    f"b9{struct.pack('<I', STAMP_WORDS).hex()}"  # mov ecx, STAMP_WORDS
    "f348ab"  # rep stosq
    "488dbd00100000"  # lea rdi, [rbp + 0x1000]
    "ffca"  # dec edx
    "75ae"  # jnz page
    "c3"  # ret
)


class Assembler:
    """Appends steps to the code that begins at `base`. `hypercall` is the CPU's instruction."""

    def __init__(self, base: int, hypercall: bytes) -> None:
        self._base = base
        self._hypercall = hypercall
        self._code = bytearray()
        self._depth = 0
        self._fill = self._routine(_FILL)
        self._convert = self._routine(_CONVERT)
        self._retype = self._routine(_RETYPE)
        self._stamp = self._routine(_STAMP)

    @property
    def code(self) -> bytes:
        """All that was assembled."""
        return bytes(self._code)

    def program(self, steps: Sequence[Step]) -> int:
        """Assemble a vCPU's program, which halts after its last step; return its address.

        RangeError for a number that a step has no room for; nothing is appended then.
        """
        start = len(self._code)
        try:
            for step in (*steps, Halt()):
                self._add(step)
        except BaseException:
            del self._code[start:]
            self._depth = 0
            raise
        return self._base + start

    def _routine(self, code: bytes) -> int:
        start = len(self._code)
        self._code += code
        return start

    def _call(self, target: int) -> None:
        self._code += b"\xe8" + struct.pack("<i", target - (len(self._code) + 5))

    @singledispatchmethod
    def _add(self, step: object) -> None:
        raise TypeError(f"{step!r} is no step of a guest's program")

    @_add.register
    def _(self, step: Write) -> None:
        words = _bounded("words", step.words, 513)
        self._code += b"\x48\xbf" + _u64("gfn", step.gfn << 12)  # mov rdi, address
        self._code += b"\xba" + _count(step.npages)  # mov edx, pages
        self._code += b"\xbe" + struct.pack("<I", words)  # mov esi, words
        self._code += b"\x48\xb8" + _u64("value", step.value)  # mov rax, value
        self._call(self._fill)

    @_add.register
    def _(self, step: Convert) -> None:
        self._load_conversion(step.gfn, step.npages, step.shared)
        self._call(self._convert)

    @_add.register
    def _(self, step: Retype) -> None:
        self._load_conversion(step.gfn, step.npages, step.shared)
        self._code += b"\x48\xbe" + _u64("entry", step.entry)  # mov rsi, entry
        self._code += b"\x41\xbc" + struct.pack("<I", step.shared)  # mov r12d, shared
        self._call(self._retype)

    @_add.register
    def _(self, step: AllowMigration) -> None:
        value = MigrationControl(step.ready).encode()
        self._code += b"\xb9" + struct.pack("<I", MSR_KVM_MIGRATION_CONTROL)  # mov ecx, the MSR
        self._code += b"\xb8" + struct.pack("<I", value)  # mov eax, value
        self._code += b"\x31\xd2\x0f\x30"  # xor edx, edx; wrmsr

    @_add.register
    def _(self, step: Assume) -> None:
        self._code += b"\x48\xbe" + _u64("entry", step.entry)  # mov rsi, entry
        self._code += b"\x80\x26\xfe"  # and byte [rsi], ~1
        self._code += b"\x80\x0e" + bytes((step.shared,))  # or byte [rsi], shared

    @_add.register
    def _(self, step: Stamp) -> None:
        self._code += b"\x48\xbf" + _u64("gfn", step.gfn << 12)  # mov rdi, address
        self._code += b"\xba" + _count(step.npages)  # mov edx, pages
        self._code += b"\x48\xbe" + _u64("entry", step.entry)  # mov rsi, entry
        self._call(self._stamp)

    @_add.register
    def _(self, step: Hypercall) -> None:
        attributes = 0 if step.shared else KVM_MAP_GPA_RANGE_ENCRYPTED
        self._code += b"\xb8" + struct.pack("<I", KVM_HC_MAP_GPA_RANGE)  # mov eax, number
        self._code += b"\x48\xbb" + _u64("gfn", step.gfn << 12)  # mov rbx, address
        self._code += b"\x48\xb9" + _u64("npages", step.npages)  # mov rcx, pages
        self._code += b"\x48\xba" + _u64("attributes", attributes)  # mov rdx, attributes
        self._code += self._hypercall
        self._code += b"\x49\x89\x46" + bytes((ANSWER,))  # mov [r14 + ANSWER], rax

    @_add.register
    def _(self, step: Wait) -> None:
        self._code += b"\xb8" + _u32("microseconds", step.microseconds)  # mov eax, time
        self._code += bytes((0xE7, WAIT_PORT))  # out WAIT_PORT, eax

    @_add.register
    def _(self, step: Breakpoint) -> None:
        self._code += b"\xb8" + _u32("number", step.number)  # mov eax, number
        self._code += bytes((0xE7, BREAKPOINT_PORT))  # out BREAKPOINT_PORT, eax

    @_add.register
    def _(self, step: Checkpoint) -> None:
        self._code += b"\x49\xff\x46" + bytes((CHECKPOINTS,))  # inc qword [r14 + CHECKPOINTS]
        self._code += b"\x41\x83\x7e" + bytes((STOP, 0))  # cmp dword [r14 + STOP], 0
        self._code += b"\x74\x02"  # je on
        self._code += bytes((0xE6, CHECKPOINT_PORT))  # out CHECKPOINT_PORT, al

    @_add.register
    def _(self, step: Halt) -> None:
        self._code += b"\xf4\xeb\xfd"  # halt: hlt; jmp halt

    @_add.register
    def _(self, step: Loop) -> None:
        if step.times is not None and self._depth == _DEEPEST:
            raise RangeError(f"loops that count nest {_DEEPEST} deep, not deeper")
        register = self._depth
        if step.times is not None:
            self._code += bytes((0x49, 0xB8 + register))  # mov r8+, times
            self._code += _u64("times", _bounded("times", step.times, _U64, 1))
            self._depth += 1
        start = len(self._code)
        for inner in step.steps:
            self._add(inner)
        if step.times is None:
            self._code += b"\xe9" + struct.pack("<i", start - (len(self._code) + 5))  # jmp start
            return
        self._depth -= 1
        self._code += bytes((0x49, 0xFF, 0xC8 + register))  # dec r8+
        self._code += b"\x0f\x85" + struct.pack("<i", start - (len(self._code) + 6))  # jnz start

    def _load_conversion(self, gfn: int, npages: int, shared: bool) -> None:
        value = MsrPageState(_bounded("gfn", gfn, 1 << 40), shared).encode()
        self._code += b"\x48\xbf" + struct.pack("<Q", value)  # mov rdi, value
        self._code += b"\xbd" + _count(npages)  # mov ebp, pages


def _bounded(name: str, value: int, limit: int, least: int = 0) -> int:
    if not least <= value < limit:
        raise RangeError(f"{name} is {value}: it is {least} to below {limit}")
    return value


def _u32(name: str, value: int) -> bytes:
    return struct.pack("<I", _bounded(name, value, _U32))


def _u64(name: str, value: int) -> bytes:
    return struct.pack("<Q", _bounded(name, value, _U64))


def _count(npages: int) -> bytes:
    return struct.pack("<I", _bounded("npages", npages, _U32, 1))
