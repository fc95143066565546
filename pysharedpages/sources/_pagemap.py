"""The kernel's write tracking, raw: userfaultfd write-protect and the PAGEMAP_SCAN ioctl.

Floor: sources. Knows addresses only; gfns and logs belong to its callers.

A `WriteWatch` registers an address range with a userfaultfd in asynchronous write-protect mode: a
write to a protected page takes one fault, which the kernel resolves itself by lifting the
protection. PAGEMAP_SCAN finds the pages without protection and protects them again in the same
walk of the page table, under its lock: no write falls between the two.

Sources: include/uapi/linux/userfaultfd.h; include/uapi/linux/fs.h (pm_scan_arg, page_region);
Documentation/admin-guide/mm/pagemap.rst and userfaultfd.rst; proc_pid_maps(5); the system call
tables arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. Linux 6.7.
"""

import contextlib
import ctypes
import errno
import fcntl
import io
import os
import platform
import sys
import weakref
from typing import Final

import numpy as np
import numpy.typing as npt

from pysharedpages.errors import RangeError, SharedPagesError

SYS_USERFAULTFD: Final = {"x86_64": 323, "aarch64": 282}

UFFD_USER_MODE_ONLY: Final = 1
UFFD_API: Final = 0xAA
UFFD_FEATURE_WP_ASYNC: Final = 1 << 15
UFFDIO_REGISTER_MODE_WP: Final = 1 << 1

PAGE_IS_WRITTEN: Final = 1 << 1
PAGE_IS_PRESENT: Final = 1 << 3
PAGE_IS_SWAPPED: Final = 1 << 4
PM_SCAN_WP_MATCHING: Final = 1 << 0
PM_SCAN_CHECK_WPASYNC: Final = 1 << 1

MADV_NOHUGEPAGE: Final = 15

# Regions asked of one call. The kernel gathers them in pieces of its own, 512 of 4 KiB pages, and
# once a call takes more than one piece its walk_end may lag behind the walk (seen on Linux 6.18):
# what was written again meanwhile would be found twice.
CALL_REGIONS: Final = 512

# Regions of one scan, sixteen calls: 192 KiB of buffer. More gained nothing when measured.
SCAN_REGIONS: Final = 16 * CALL_REGIONS


class UffdioApi(ctypes.Structure):
    """`struct uffdio_api`, 24 bytes."""

    api: int
    features: int
    ioctls: int

    _fields_ = [(name, ctypes.c_uint64) for name in ("api", "features", "ioctls")]


class UffdioRange(ctypes.Structure):
    """`struct uffdio_range`, 16 bytes."""

    start: int
    len: int

    _fields_ = [(name, ctypes.c_uint64) for name in ("start", "len")]


class UffdioRegister(ctypes.Structure):
    """`struct uffdio_register`, 32 bytes."""

    start: int
    len: int
    mode: int
    ioctls: int

    _fields_ = [(name, ctypes.c_uint64) for name in ("start", "len", "mode", "ioctls")]


class PmScanArg(ctypes.Structure):
    """`struct pm_scan_arg`, 96 bytes; `vec` points to `struct page_region`, three u64 each."""

    size: int
    flags: int
    start: int
    end: int
    walk_end: int
    vec: int
    vec_len: int
    max_pages: int
    category_inverted: int
    category_mask: int
    category_anyof_mask: int
    return_mask: int

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "size",
            "flags",
            "start",
            "end",
            "walk_end",
            "vec",
            "vec_len",
            "max_pages",
            "category_inverted",
            "category_mask",
            "category_anyof_mask",
            "return_mask",
        )
    ]


# _IOWR(0xAA, 0x3F), _IOWR(0xAA, 0x00), _IOR(0xAA, 0x01) and _IOWR('f', 16) of the structures above.
UFFDIO_API: Final = 0xC018AA3F
UFFDIO_REGISTER: Final = 0xC020AA00
UFFDIO_UNREGISTER: Final = 0x8010AA01
PAGEMAP_SCAN: Final = 0xC0606610


def check_host() -> None:
    """Raise SharedPagesError on a system whose calls are not the ones written down here."""
    known = platform.machine() in SYS_USERFAULTFD and sys.maxsize > 1 << 32
    if not (sys.platform.startswith("linux") and known):
        raise SharedPagesError(
            "tracking writes needs a 64-bit process on Linux, x86-64 or aarch64, "
            f"not {sys.platform} on {platform.machine()}"
        )


def open_proc(name: str) -> io.FileIO:
    try:
        return open(f"/proc/self/{name}", "rb", buffering=0)
    except OSError as error:
        raise SharedPagesError(f"cannot open /proc/self/{name}: {error.strerror}") from error


def is_private_anonymous(start: int, stop: int) -> bool:
    """Return whether all of [start, stop) is private anonymous memory of this process.

    Raises RangeError where a part of it is not mapped at all. Time grows with the number of
    mappings below `stop`.
    """
    position = start
    anonymous = True
    with open_proc("maps") as maps:
        for line in maps:
            span, permissions, _offset, _device, inode = line.split(None, 5)[:5]
            first, last = (int(bound, 16) for bound in span.split(b"-"))
            if last <= position:
                continue
            if first > position:
                break
            anonymous = anonymous and permissions.endswith(b"p") and inode == b"0"
            position = last
            if position >= stop:
                return anonymous
    raise RangeError(
        f"range {start:#x} to {stop:#x} is not mapped throughout: nothing is at {position:#x}"
    )


def forbid_huge_pages(start: int, length: int) -> None:
    """Ask the kernel for no further transparent huge pages in a range.

    EINVAL says that the kernel or this kind of mapping has none, which is what was asked for.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_NOHUGEPAGE):
        code = ctypes.get_errno()
        if code == errno.ENOMEM:
            raise MemoryError(f"madvise: no memory to split the mapping at {start:#x}")
        if code != errno.EINVAL:
            raise SharedPagesError(f"madvise at {start:#x}: {os.strerror(code)}")


def open_userfaultfd() -> int:
    """Return a new userfaultfd in asynchronous write-protect mode; needs no privilege.

    Faults are resolved in the kernel, so that UFFD_USER_MODE_ONLY, which spares the privilege,
    loses no write that a system call makes. Raises SharedPagesError with the host's reason.
    """
    number = SYS_USERFAULTFD[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(ctypes.c_long(number), ctypes.c_int(os.O_CLOEXEC | UFFD_USER_MODE_ONLY))
    if fd < 0:
        code = ctypes.get_errno()
        raise SharedPagesError(f"this process may not use userfaultfd: {os.strerror(code)}")
    api = UffdioApi(api=UFFD_API, features=UFFD_FEATURE_WP_ASYNC)
    try:
        fcntl.ioctl(fd, UFFDIO_API, api)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EINVAL:
            raise SharedPagesError(f"UFFDIO_API: {error.strerror}") from error
        raise SharedPagesError(
            f"kernel {platform.release()} has no UFFD_FEATURE_WP_ASYNC (Linux 6.7)"
        ) from error
    return fd


def _release(uffd: int, pagemap: io.FileIO, start: int, length: int, pid: int) -> None:
    """End a watch; in a forked child only close its copies of the descriptors.

    The unregistering is explicit because a child may hold the userfaultfd open, and is left to the
    owner because it always acts on the owner's memory. It fails only where nothing is registered.
    """
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            fcntl.ioctl(uffd, UFFDIO_UNREGISTER, UffdioRange(start=start, len=length))
    os.close(uffd)
    pagemap.close()


class WriteWatch:
    """Watches the writes to one address range [start, stop) of this process.

    Not thread-safe. `anyof` narrows the pages that count as written: a page-table entry that was
    never filled counts too, and protecting it again costs a marker and its page table.
    """

    def __init__(self, start: int, stop: int, anyof: int) -> None:
        """Start watching; every page counts as written until the first scan.

        Raises SharedPagesError where the host or the mapping cannot be watched, MemoryError.
        """
        self._stop = stop
        self._anyof = anyof
        self._regions = np.zeros((SCAN_REGIONS, 3), np.uint64)
        self._pagemap = open_proc("pagemap")
        try:
            uffd = open_userfaultfd()
        except SharedPagesError:
            self._pagemap.close()
            raise
        self.close = weakref.finalize(
            self, _release, uffd, self._pagemap, start, stop - start, os.getpid()
        )
        self.close.atexit = False
        register = UffdioRegister(start=start, len=stop - start, mode=UFFDIO_REGISTER_MODE_WP)
        try:
            fcntl.ioctl(uffd, UFFDIO_REGISTER, register)
        except OSError as error:
            self.close()
            if error.errno == errno.ENOMEM:
                raise MemoryError(f"userfaultfd: no memory to register {start:#x}") from error
            reason = "watched already" if error.errno == errno.EBUSY else error.strerror
            raise SharedPagesError(
                f"userfaultfd cannot watch {start:#x} to {stop:#x}: {reason}"
            ) from error

    def scan(self, position: int) -> int:
        """Report and protect again what was written from an address on; return where to go on.

        The result is the range's stop when the walk is done, less when the buffer is full. What
        was found is in `regions()`, which must have been discarded before. After an error it holds
        what was protected again before it.
        """
        used = 0
        while position < self._stop and used < SCAN_REGIONS:
            request = PmScanArg(
                size=ctypes.sizeof(PmScanArg),
                flags=PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
                start=position,
                end=self._stop,
                vec=self._regions.ctypes.data + used * self._regions.strides[0],
                vec_len=min(CALL_REGIONS, SCAN_REGIONS - used),
                category_mask=PAGE_IS_WRITTEN,
                category_anyof_mask=self._anyof,
                return_mask=PAGE_IS_WRITTEN,
            )
            try:
                used += fcntl.ioctl(self._pagemap, PAGEMAP_SCAN, request)
            except OSError as error:
                raise self._scan_error(error, position) from error
            position = request.walk_end
        return position

    def _scan_error(self, error: OSError, position: int) -> Exception:
        if error.errno == errno.ENOMEM:
            return MemoryError("PAGEMAP_SCAN: no memory for page tables")
        if error.errno == errno.ENOTTY:
            reason = f"kernel {platform.release()} has no such call (Linux 6.7)"
        elif error.errno == errno.EPERM:
            reason = f"memory between {position:#x} and {self._stop:#x} was mapped anew"
        else:
            reason = str(error.strerror)
        return SharedPagesError(f"PAGEMAP_SCAN: {reason}")

    def regions(self) -> npt.NDArray[np.uint64]:
        """Return the addresses found and not yet discarded, (n, 2) uint64, valid until then.

        The buffer itself tells how many, by ends that are not zero: an exception between the
        kernel's answer and its use (a signal handler's, say) forgets nothing.
        """
        return self._regions[: np.count_nonzero(self._regions[:, 1]), :2]

    def discard(self) -> None:
        """Forget the regions found."""
        self._regions[: np.count_nonzero(self._regions[:, 1])] = 0
