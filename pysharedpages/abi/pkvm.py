"""Arm pKVM: a protected guest shares a granule of its memory with the host, or takes it back.

Floor: abi. One call is one granule, of the size that HYP_MEMINFO tells: the hypervisor's page,
4, 16 or 64 KiB. Events count pages of 4 KiB. Sharing what is shared is an error to the guest, of
which only the hypervisor knows: `answer(error=...)`. Pure functions, safe in any thread.

Source: Documentation/virt/kvm/arm/hypercalls.rst (ARM_SMCCC_KVM_FUNC_MEM_SHARE and the like); the
SMC Calling Convention, DEN0028, for unknown functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi._request import PAGE_SHIFT, U64_LIMIT, conversions, register
from pysharedpages.errors import RangeError

__all__ = [
    "HYP_MEMINFO",
    "INVALID_PARAMETER",
    "MEM_SHARE",
    "MEM_UNSHARE",
    "NOT_SUPPORTED",
    "GranuleChange",
    "decode_hvc",
]

HYP_MEMINFO: Final = 0xC6000002
MEM_SHARE: Final = 0xC6000003
MEM_UNSHARE: Final = 0xC6000004

NOT_SUPPORTED: Final = -1
INVALID_PARAMETER: Final = -3

_GRANULES: Final = (4096, 16384, 65536)
_MAX_IPA_BITS: Final = 52


@dataclass(frozen=True, slots=True)
class GranuleChange:
    """One of pKVM's memory calls: `function` on the granule at `ipa`.

    `status` is 0, INVALID_PARAMETER, or NOT_SUPPORTED for a function of another kind.
    """

    function: int
    ipa: int
    granule: int
    status: int = 0

    @property
    def shared(self) -> bool:
        """Whether the granule becomes shared."""
        return self.function == MEM_SHARE

    @property
    def events(self) -> NDArray[np.void]:
        """The conversion; none for HYP_MEMINFO, and where `status` is not 0."""
        converts = self.function in (MEM_SHARE, MEM_UNSHARE) and not self.status
        npages = self.granule >> PAGE_SHIFT if converts else 0
        return conversions([(self.ipa >> PAGE_SHIFT, npages, self.shared)])

    def answer(self, error: int | None = None) -> int:
        """R0 for the guest: 0, HYP_MEMINFO's bytes of a granule, or `error`, by default `status`.

        RangeError for an error that is neither 0, NOT_SUPPORTED nor INVALID_PARAMETER.
        """
        code = self.status if error is None else error
        if code not in (0, NOT_SUPPORTED, INVALID_PARAMETER):
            raise RangeError(f"error is {code}: 0, {NOT_SUPPORTED} or {INVALID_PARAMETER} is due")
        if not code and self.function == HYP_MEMINFO:
            return self.granule
        return code % U64_LIMIT


def decode_hvc(
    r0: int, r1: int, r2: int, r3: int, *, granule: int = 4096, ipa_bits: int = _MAX_IPA_BITS
) -> GranuleChange:
    """An HVC64 of a protected guest, by its registers; of R0 the low 32 bits name the function.

    R1 of MEM_SHARE and MEM_UNSHARE is the address of a whole granule below 2^ipa_bits, and what
    is reserved is zero: INVALID_PARAMETER else. RangeError for a granule that pKVM does not have.
    """
    if granule not in _GRANULES:
        raise RangeError(f"a granule of {granule} bytes: pKVM has {_GRANULES}")
    if not 32 <= ipa_bits <= _MAX_IPA_BITS:
        raise RangeError(f"{ipa_bits} bits of address: pKVM has 32 to {_MAX_IPA_BITS}")
    function = register(r0, "r0") & 0xFFFFFFFF
    ipa, reserved = register(r1, "r1"), register(r2, "r2") | register(r3, "r3")
    if function == HYP_MEMINFO:
        wrong = bool(ipa | reserved)
    elif function in (MEM_SHARE, MEM_UNSHARE):
        wrong = bool(reserved or ipa % granule or ipa >> ipa_bits)
    else:
        return GranuleChange(function, ipa, granule, NOT_SUPPORTED)
    return GranuleChange(function, ipa, granule, INVALID_PARAMETER if wrong else 0)
