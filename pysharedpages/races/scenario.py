"""What the guest does, step by step, and which policies it must get the better of: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pysharedpages.errors import RangeError

__all__ = [
    "BEGINS",
    "BYTES",
    "CONVERTS",
    "FINISHES",
    "PRESERVED",
    "REWRITTEN",
    "SHARES",
    "WRITES",
    "Hole",
    "Kind",
    "Log",
    "Program",
    "Scenario",
    "Step",
]

PRESERVED: Final = "preserved"
REWRITTEN: Final = "rewritten"
BYTES: Final = (PRESERVED, REWRITTEN)
"""What a conversion does to the page's bytes: nothing, or the platform clears it and logs nothing.

A cleared page is content: guest_memfd and TDX acceptance promise zeros, and a guest counts on them.
"""

_MOST_PAGES: Final = 8


class Kind(StrEnum):
    """What a step does to its page.

    A guest that keeps R1 writes under the type that the host knows. `EARLY_WRITE` breaks it: the
    guest changes the page's type in its own page table, and writes, before it tells the host.

    `SET_*` is a conversion that nothing comes between. `BEGIN_*` is its first half, in which the
    tracker records it; in `FINISH` the platform converts the page, and the vCPU goes on. After
    `FINISH_LOGGED` the VMM has added the page to the dirty log. A vCPU does not stop between.
    """

    WRITE = "write"
    EARLY_WRITE = "early_write"
    SET_SHARED = "set_shared"
    SET_PRIVATE = "set_private"
    BEGIN_SHARED = "begin_shared"
    BEGIN_PRIVATE = "begin_private"
    FINISH = "finish"
    FINISH_LOGGED = "finish_logged"


WRITES: Final = (Kind.WRITE, Kind.EARLY_WRITE)
BEGINS: Final = (Kind.BEGIN_SHARED, Kind.BEGIN_PRIVATE)
FINISHES: Final = (Kind.FINISH, Kind.FINISH_LOGGED)
CONVERTS: Final = (Kind.SET_SHARED, Kind.SET_PRIVATE, *BEGINS)
"""What the tracker hears of, and an exit of its vCPU."""
SHARES: Final = (Kind.SET_SHARED, Kind.BEGIN_SHARED)
"""Those of them that make a page shared."""


class Log(StrEnum):
    """How writes reach the harvest.

    A ring's entries wait in the vCPU's own buffer (Intel: PML) until the vCPU exits. `RING` kicks
    every vCPU before a harvest, `UNKICKED_RING` does not: writes since the last exit are missed. A
    conversion and a stop are exits.
    """

    BITMAP = "bitmap"
    RING = "ring"
    UNKICKED_RING = "ring without kick"


@dataclass(frozen=True)
class Step:
    """One step of one vCPU; nothing else happens meanwhile."""

    kind: Kind
    page: int

    def __str__(self) -> str:
        return f"{self.kind} {self.page}"


Program = tuple[Step, ...]


@dataclass(frozen=True)
class Hole:
    """A policy that corrupts a page, under which byte models, and why."""

    policy: str
    why: str
    bytes: tuple[str, ...] = BYTES


@dataclass(frozen=True)
class Scenario:
    """A guest, and how it is migrated.

    name, summary: for the reader.
    vcpus: a program a vCPU. Steps left when the VM moves are taken at the destination.
    npages: pages 0 to npages - 1 exist, `mmio` among them is not RAM. At first all are private,
        but for `shared`; RAM was written before the migration, under that type.
    rounds: attempts at a round with the guest running, before the final one.
    failures: in how many rounds the transport may fail, before any page or before the commit.
    at_fault: the rule that the guest breaks, "R1" or "R3", or "". One that breaks R3 relies on a
        page's content across conversions.
    holes: the policies that corrupt a page. All others are safe.

    Raises RangeError if there is no page of RAM, more than 8 pages, a step outside of them, a
    number below 0, a fault of another rule, or a half of a conversion without the other.
    """

    name: str
    summary: str
    vcpus: tuple[Program, ...]
    npages: int = 1
    shared: frozenset[int] = frozenset()
    mmio: frozenset[int] = frozenset()
    rounds: int = 2
    failures: int = 0
    log: Log = Log.BITMAP
    at_fault: str = ""
    holes: tuple[Hole, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.npages <= _MOST_PAGES:
            raise RangeError(f"{self.npages} pages: from 1 to {_MOST_PAGES} can be explored")
        used = {step.page for program in self.vcpus for step in program} | self.shared | self.mmio
        beyond = sorted(page for page in used if not 0 <= page < self.npages)
        if beyond:
            raise RangeError(f"page {beyond[0]} is none of the {self.npages} pages")
        if len(self.mmio) == self.npages:
            raise RangeError(f"all {self.npages} pages are MMIO: at least one must be RAM")
        if self.at_fault not in ("", "R1", "R3"):
            raise RangeError(f"at_fault is {self.at_fault!r}, not '', 'R1' or 'R3'")
        for number, name in ((self.rounds, "rounds"), (self.failures, "failures")):
            if number < 0:
                raise RangeError(f"{number} {name}: the least is 0")

        for vcpu, program in enumerate(self.vcpus):
            _check_halves(vcpu, program)

    def hole(self, policy: str, bytes_model: str) -> Hole | None:
        """Why a policy is expected to corrupt a page, or None if it is expected to be safe."""
        for hole in self.holes:
            if hole.policy == policy and bytes_model in hole.bytes:
                return hole
        return None


def _check_halves(vcpu: int, program: Program) -> None:
    """Whoever begins a conversion finishes it with the next step: a half would never stop."""
    begun: int | None = None
    for step in program:
        if begun != (step.page if step.kind in FINISHES else None):
            half = step.page if begun is None else begun
            raise RangeError(f"vCPU {vcpu} has half a conversion of page {half}")
        begun = step.page if step.kind in BEGINS else None
    if begun is not None:
        raise RangeError(f"vCPU {vcpu} has half a conversion of page {begun}")
