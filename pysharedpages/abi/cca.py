"""Arm CCA: RSI_IPA_STATE_SET, by which a realm asks for another state of its memory.

Floor: abi. RIPAS_RAM makes pages private; RIPAS_EMPTY gives them up, and the realm reaches shared
memory at the other half of its address space instead. The monitor converts as far as it can and
says how far it came; the realm goes on from there. Under KVM the host sees KVM_EXIT_MEMORY_FAULT.
Pure functions, safe in any thread.

Source: Realm Management Monitor specification 1.0, DEN0137, RSI_IPA_STATE_SET; values in
arch/arm64/include/asm/rsi_smc.h and rsi_cmds.h, the realm's checks in rsi.h. That reserved flags
are an error is this library's reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi._request import (
    PAGE_SHIFT,
    PAGE_SIZE,
    U64_LIMIT,
    conversions,
    pages_done,
    register,
)
from pysharedpages.errors import FormatError, RangeError

__all__ = [
    "ACCEPT",
    "CHANGE_DESTROYED",
    "ERROR_INPUT",
    "IPA_STATE_SET",
    "NOT_SUPPORTED",
    "REJECT",
    "RIPAS_EMPTY",
    "RIPAS_RAM",
    "SUCCESS",
    "Answer",
    "StateChange",
    "decode_ipa_state_set",
]

IPA_STATE_SET: Final = 0xC4000197

RIPAS_EMPTY: Final = 0
RIPAS_RAM: Final = 1
CHANGE_DESTROYED: Final = 1

SUCCESS: Final = 0
ERROR_INPUT: Final = 1
NOT_SUPPORTED: Final = -1
"""The SMC Calling Convention's answer to an unknown function."""

ACCEPT: Final = 0
REJECT: Final = 1

_MAX_IPA_BITS: Final = 52


class Answer(NamedTuple):
    """The registers that the realm gets back: status, top of what was modified, response."""

    x0: int
    x1: int
    x2: int


@dataclass(frozen=True, slots=True)
class StateChange:
    """The state `ripas` for the addresses [base, top).

    `change_destroyed` allows it for pages that the host destroyed. `status` is 0, ERROR_INPUT, or
    NOT_SUPPORTED for another function.
    """

    base: int
    top: int
    ripas: int
    change_destroyed: bool
    status: int = 0

    @property
    def shared(self) -> bool:
        """Whether the pages become shared."""
        return self.ripas == RIPAS_EMPTY

    @property
    def npages(self) -> int:
        """Pages asked for: 0 where `status` is not 0."""
        return 0 if self.status else self.top - self.base >> PAGE_SHIFT

    @property
    def events(self) -> NDArray[np.void]:
        """The conversion, or none where `status` is not 0."""
        return conversions([(self.base >> PAGE_SHIFT, self.npages, self.shared)])

    def answer(self, done: int | None = None, *, rejected: bool = False) -> Answer:
        """The registers after `done` pages; `rejected` if the host refused those that are left.

        By default all are done, or none if they were rejected. RangeError if `done` is more than
        the request, or if nothing is left to refuse.
        """
        count = pages_done(done, self.npages, rejected)
        if self.status:
            return Answer(self.status % U64_LIMIT, 0, ACCEPT)
        if rejected and count == self.npages:
            raise RangeError(f"all {count} pages are done: none is left to refuse")
        progress = self.base + (count << PAGE_SHIFT)
        return Answer(SUCCESS, progress, REJECT if rejected else ACCEPT)

    def done(self, x0: int, x1: int, x2: int) -> int:
        """How many pages an answer says are converted.

        FormatError for a success of which X1 points out of the request or into a page, or X2 is
        neither ACCEPT nor REJECT.
        """
        x0, x1, x2 = register(x0, "x0"), register(x1, "x1"), register(x2, "x2")
        if x0 != SUCCESS or self.status:
            return 0
        if x2 not in (ACCEPT, REJECT):
            raise FormatError(f"X2 is {x2:#x}, neither ACCEPT nor REJECT")
        if not self.base <= x1 <= self.top or x1 % PAGE_SIZE:
            raise FormatError(f"X1 is {x1:#x}, no page of {self.base:#x} to {self.top:#x}")
        return x1 - self.base >> PAGE_SHIFT

    def rest(self, x0: int, x1: int, x2: int) -> StateChange | None:
        """The realm's next request after an answer: None when nothing is left or it was refused.

        Raises what `done` raises.
        """
        done = self.done(x0, x1, x2)
        if x0 != SUCCESS or x2 != ACCEPT or done == self.npages:
            return None
        return StateChange(x1, self.top, self.ripas, self.change_destroyed)


def decode_ipa_state_set(
    x0: int, x1: int, x2: int, x3: int, x4: int, *, ipa_bits: int = 48
) -> StateChange:
    """The SMC's registers: X1 the base, X2 the top (no size), X3 the state, X4 flags.

    ERROR_INPUT for an empty, inverted or misaligned range, for one that leaves the protected half
    of the realm's 2^ipa_bits addresses, for a state other than EMPTY and RAM, and for reserved
    flags. RangeError for a width that no realm has.
    """
    if not 32 <= ipa_bits <= _MAX_IPA_BITS:
        raise RangeError(f"{ipa_bits} bits of address: realms have 32 to {_MAX_IPA_BITS}")
    base, top = register(x1, "x1"), register(x2, "x2")
    ripas, flags = register(x3, "x3"), register(x4, "x4")
    if register(x0, "x0") & 0xFFFFFFFF != IPA_STATE_SET:
        status = NOT_SUPPORTED
    else:
        wrong = (
            (base | top) % PAGE_SIZE,
            top <= base,
            top > 1 << ipa_bits - 1,
            ripas not in (RIPAS_EMPTY, RIPAS_RAM),
            flags & ~CHANGE_DESTROYED,
        )
        status = ERROR_INPUT if any(wrong) else SUCCESS
    return StateChange(base, top, ripas, bool(flags & CHANGE_DESTROYED), status)
