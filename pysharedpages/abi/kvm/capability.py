"""KVM_ENABLE_CAP: how a VMM turns on what a VM does not do by itself.

Floor: abi. Pure functions, safe in any thread.

Source: Documentation/virt/kvm/api.rst, KVM_ENABLE_CAP, and section 7 for what each takes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from pysharedpages.abi._request import bad_byte, register, whole
from pysharedpages.errors import RangeError

__all__ = ["EnableCap"]

_ARGUMENTS: Final = 4
_ENABLE_CAP: Final = struct.Struct("<II4Q64x")


@dataclass(frozen=True, slots=True)
class EnableCap:
    """A capability, and up to four arguments, whose meaning is the capability's own."""

    capability: int
    arguments: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """`struct kvm_enable_cap`, 104 bytes. RangeError for more than four arguments."""
        given = [register(value, "an argument") for value in self.arguments]
        if len(given) > _ARGUMENTS:
            raise RangeError(f"{len(given)} arguments of a capability: the most is {_ARGUMENTS}")
        padded = given + [0] * (_ARGUMENTS - len(given))
        return _ENABLE_CAP.pack(register(self.capability, "capability", 32), 0, *padded)

    @classmethod
    def decode(cls, data: Any) -> EnableCap:
        """From 104 bytes, always with four arguments. FormatError for any other length and for
        flags, of which there are none. What follows the arguments is not looked at.
        """
        capability, flags, *arguments = _ENABLE_CAP.unpack(
            whole(data, _ENABLE_CAP.size, "a kvm_enable_cap")
        )
        if flags:
            raise bad_byte(4, f"{flags:#x} are unknown flags of a kvm_enable_cap")
        return cls(capability, tuple(arguments))
