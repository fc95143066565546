"""What a guest of `MicroVM` does, one typed step after the other; `assembler` makes it code.

Steps are values. Guest frame numbers count 4 KiB pages; times are microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

__all__ = [
    "STAMP_WORDS",
    "AllowMigration",
    "Assume",
    "Breakpoint",
    "Checkpoint",
    "Convert",
    "Halt",
    "Hypercall",
    "Loop",
    "Retype",
    "Stamp",
    "Step",
    "Wait",
    "Write",
    "random_steps",
]

STAMP_WORDS: Final = 8
"""How many 8-byte words of a page `Stamp` writes: an emulated guest takes 0.2 ms for all 512, and
each may take an entry of the dirty ring."""


class Step:
    """One thing that a guest does."""


@dataclass(frozen=True)
class Write(Step):
    """Store `value` in the first `words` 8-byte words of each page, by rising gfn."""

    gfn: int
    npages: int = 1
    value: int = 1
    words: int = 1


@dataclass(frozen=True)
class Convert(Step):
    """Convert each page by one `wrmsr`, which leaves the guest before it is done."""

    gfn: int
    npages: int = 1
    shared: bool = True


@dataclass(frozen=True)
class Hypercall(Step):
    """Convert all pages by one KVM_HC_MAP_GPA_RANGE; the answer is in `Vcpu.answer`."""

    gfn: int
    npages: int = 1
    shared: bool = True


@dataclass(frozen=True)
class Retype(Step):
    """As `Convert`, and the guest notes it in its ledger, whose entries for the pages begin at the
    guest physical address `entry`: 8 bytes a page, bit 0 shared, above it how often it was stamped.
    """

    gfn: int
    npages: int
    entry: int
    shared: bool


@dataclass(frozen=True)
class AllowMigration(Step):
    """Write MSR_KVM_MIGRATION_CONTROL: whether the guest may be migrated from now on."""

    ready: bool = True


@dataclass(frozen=True)
class Assume(Step):
    """The guest notes another type for the page whose ledger entry lies at `entry`, and tells
    nobody: what rule R1 forbids a guest that writes the page next.
    """

    entry: int
    shared: bool


@dataclass(frozen=True)
class Stamp(Step):
    """Write each page anew: its next version by the ledger, enciphered if the ledger says private.

    The word that is stored `STAMP_WORDS` times is `guest.content` of gfn and version, or that
    under `WordCipher` with the key that the host put into the vCPU.
    """

    gfn: int
    npages: int
    entry: int


@dataclass(frozen=True)
class Wait(Step):
    """Do nothing for a while; the VMM sleeps meanwhile. A stop ends it early."""

    microseconds: int


@dataclass(frozen=True)
class Breakpoint(Step):
    """Stay here until the VMM lets this vCPU pass; `Vcpu.breakpoint` is `number` meanwhile."""

    number: int


@dataclass(frozen=True)
class Checkpoint(Step):
    """Count one in `Vcpu.checkpoints`, and stay here if the VMM has asked for a stop."""


@dataclass(frozen=True)
class Halt(Step):
    """The end: the vCPU's thread is done."""


@dataclass(frozen=True)
class Loop(Step):
    """The steps again and again, `times` or for ever; loops nest three deep."""

    steps: tuple[Step, ...]
    times: int | None = None


def random_steps(gfn: int, npages: int, count: int, seed: int) -> Iterator[Step]:
    """`count` writes and conversions of 1 to 8 pages within `npages` pages from `gfn` on."""
    rng = Random(seed)
    for _ in range(count):
        first = rng.randrange(npages)
        run = min(rng.randint(1, 8), npages - first)
        if rng.random() < 0.5:
            yield Convert(gfn + first, run, rng.random() < 0.5)
        else:
            yield Write(gfn + first, run, value=rng.randrange(1, 1 << 63))
