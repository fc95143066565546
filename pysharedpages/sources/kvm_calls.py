"""The ioctl itself, for sources and whoever runs a VM: errors that name the call.

Floor: sources. Numbers and structures are those of `abi.kvm`, which makes no calls. Stateless, safe
in any thread; a call releases the GIL.
"""

from __future__ import annotations

import errno
import fcntl
import os

from pysharedpages.abi import kvm
from pysharedpages.abi.kvm import numbers
from pysharedpages.errors import SharedPagesError

__all__ = ["call", "enable", "extension", "refused"]


def call(fd: int, request: int, argument: int | bytes | bytearray = 0) -> int:
    """The ioctl `request`, one of `abi.kvm.numbers`; OSError with its name.

    A bytearray comes back as the kernel left it; bytes are for calls that only read.
    """
    changeable = bytearray(argument) if isinstance(argument, bytes) else argument
    if fd < 0:
        raise OSError(errno.EBADF, f"{_name_of(request)}: {os.strerror(errno.EBADF)}")
    try:
        return fcntl.ioctl(fd, request, changeable)
    except OSError as error:
        raise OSError(error.errno, f"{_name_of(request)}: {error.strerror}") from error


def extension(fd: int, capability: int) -> int:
    """What KVM_CHECK_EXTENSION says on a VM's descriptor, or on that of /dev/kvm."""
    return call(fd, numbers.KVM_CHECK_EXTENSION, capability)


def enable(fd: int, capability: int, *arguments: int) -> None:
    """KVM_ENABLE_CAP; OSError where KVM refuses."""
    call(fd, numbers.KVM_ENABLE_CAP, kvm.EnableCap(capability, arguments).encode())


def refused(what: str, error: OSError) -> SharedPagesError:
    """The library's error for a call that KVM refused."""
    return SharedPagesError(f"{what}: {error.strerror or os.strerror(error.errno or 0)}")


def _name_of(request: int) -> str:
    names = (name for name, value in vars(numbers).items() if value == request)
    return next(names, f"ioctl {request:#x}")
