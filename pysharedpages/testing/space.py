"""A guest's memory on one host: sparse, anonymous, real.

Pages that nobody wrote read as zeros and take no memory, so a terabyte costs what is in use.
Small pages only: one write must dirty one page, not 512.
"""

from __future__ import annotations

import mmap
from typing import Final

from pysharedpages.errors import SharedPagesError
from pysharedpages.units import format_bytes

__all__ = ["PAGE_SIZE", "AddressSpace", "UnsupportedHostError"]

PAGE_SIZE: Final = 4096
# include/uapi/asm-generic/mman.h; the mmap module names it from Python 3.13 on.
_MAP_NORESERVE: Final = 0x4000


class UnsupportedHostError(SharedPagesError):
    """This host lacks what the run needs: its memory, its kernel or a library."""


class AddressSpace:
    """`npages` pages of 4,096 bytes, by gfn; a context manager that unmaps them.

    Reads and writes are whole pages. A read beside a write of the same page may be torn: what
    wrote it is dirty after that, and the page travels again.
    """

    def __init__(self, npages: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        try:
            self._map = mmap.mmap(-1, npages * PAGE_SIZE, flags=flags)
        except (OSError, OverflowError) as error:
            raise UnsupportedHostError(
                f"this host cannot map {format_bytes(npages * PAGE_SIZE)} of address space: {error}"
            ) from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._map.madvise(mmap.MADV_NOHUGEPAGE)

    @property
    def buffer(self) -> mmap.mmap:
        """All of the memory; what holds it must let go before `close`."""
        return self._map

    def read(self, gfn: int) -> bytes:
        """A copy of the page's bytes as they lie in memory."""
        offset = gfn * PAGE_SIZE
        return self._map[offset : offset + PAGE_SIZE]

    def write(self, gfn: int, page: bytes) -> None:
        """Store one page."""
        offset = gfn * PAGE_SIZE
        self._map[offset : offset + PAGE_SIZE] = page

    def close(self) -> None:
        """Unmap; the memory is gone."""
        self._map.close()

    def __enter__(self) -> AddressSpace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
