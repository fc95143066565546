"""The part of a guest that is not its own memory: page tables, code, mailboxes.

It lies above the guest's memory, in a slot of its own without a dirty log, and is the same on
every host that runs the same programs: nothing of it travels. Everything is mapped at its own
address, in pages of 2 MiB, accessed and dirty from the start, so that a CPU writes nothing there
but mailboxes.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3, 4.5 (4-level
paging); AMD64 Architecture Programmer's Manual, volume 2, 14.6 (long mode).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np

from pysharedpages.errors import RangeError
from pysharedpages.testing.assembler import CHECKPOINTS, STOP, Assembler
from pysharedpages.testing.steps import Step

__all__ = ["Firmware"]

_PAGE: Final = 4096
_HUGE: Final = 2 << 20
_GIB: Final = 1 << 30
_ENTRIES: Final = 512
# Addresses a page-table entry maps: one of 512 at the top level maps 512 GiB, and the lower half of
# the address space, which needs no sign extension, has 256 of these.
_MOST_BYTES: Final = 256 * _ENTRIES * _GIB

# Present, writable, accessed, dirty; and, one level up from 4 KiB, a page and not a table.
_TABLE: Final = 0x63
_HUGE_PAGE: Final = _TABLE | 0x80


class Firmware:
    """The image for a guest with `nbytes` of memory from address 0 and one program a vCPU."""

    def __init__(self, nbytes: int, programs: Sequence[Sequence[Step]], hypercall: bytes) -> None:
        self.base = -(-nbytes // _GIB) * _GIB
        code = Assembler(self.base, hypercall)
        self.entries = [code.program(program) for program in programs]
        self._mailboxes = -(-len(code.code) // _PAGE) * _PAGE
        self._tables = self._mailboxes + len(programs) * _PAGE
        gigabytes = self._mapped_gigabytes()
        self.nbytes = -(-self._tables_end(gigabytes) // _HUGE) * _HUGE
        self.memory = mmap.mmap(-1, self.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory[: len(code.code)] = code.code
        self.root = self.base + self._tables
        self._write_tables(gigabytes)

    @property
    def end(self) -> int:
        """The first guest physical address that means nothing."""
        return self.base + self.nbytes

    def mailbox(self, vcpu: int) -> int:
        """The guest physical address of a vCPU's mailbox; its stack ends where that page does."""
        return self.base + self._mailboxes + vcpu * _PAGE

    def stack(self, vcpu: int) -> int:
        """The address a vCPU's stack grows down from."""
        return self.mailbox(vcpu) + _PAGE

    def ask_to_stop(self, vcpu: int, stop: bool) -> None:
        """Have a vCPU stay at its next checkpoint, or not."""
        struct.pack_into("<I", self.memory, self._offset(vcpu, STOP), stop)

    def checkpoints(self, vcpu: int) -> int:
        """How many checkpoints a vCPU has passed."""
        return self.word(vcpu, CHECKPOINTS)

    def word(self, vcpu: int, field: int) -> int:
        """A word of a vCPU's mailbox."""
        number: int = struct.unpack_from("<Q", self.memory, self._offset(vcpu, field))[0]
        return number

    def _offset(self, vcpu: int, field: int) -> int:
        return self._mailboxes + vcpu * _PAGE + field

    def _mapped_gigabytes(self) -> int:
        """How many GiB the tables map: the memory, and the firmware with these tables in it."""
        gigabytes = self.base // _GIB + 1
        while self.base + self._tables_end(gigabytes) > gigabytes * _GIB:
            gigabytes += 1
        if gigabytes * _GIB > _MOST_BYTES:
            raise RangeError(f"{gigabytes} GiB of addresses: the most is {_MOST_BYTES // _GIB}")
        return gigabytes

    def _tables_end(self, gigabytes: int) -> int:
        return self._tables + (1 + -(-gigabytes // _ENTRIES) + gigabytes) * _PAGE

    def _write_tables(self, gigabytes: int) -> None:
        """One top table, then those of the second level, then one of 2 MiB pages for each GiB."""
        seconds = -(-gigabytes // _ENTRIES)
        words = np.frombuffer(self.memory, np.uint64)[self._tables // 8 :]
        second = self.root + _PAGE
        third = second + seconds * _PAGE
        tables = np.arange(max(seconds, gigabytes), dtype=np.uint64) * np.uint64(_PAGE)
        words[:seconds] = tables[:seconds] + np.uint64(second | _TABLE)
        words[_ENTRIES:][:gigabytes] = tables[:gigabytes] + np.uint64(third | _TABLE)
        pages = np.arange(gigabytes * _ENTRIES, dtype=np.uint64) * np.uint64(_HUGE)
        words[_ENTRIES * (1 + seconds) :][: len(pages)] = pages + np.uint64(_HUGE_PAGE)
