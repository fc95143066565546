"""The two hosts, and the link between them.

A host's VMM reads and stores bytes as they lie in memory. The keys are its platform's: the VMM
can only ask the platform to export a private page under the transport key, or to import one.
Nothing checks that a page took the right path: the keys make the wrong one useless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import SharedPages, Transfer
from pysharedpages.softguest.cipher import HostCipher, PageCipher
from pysharedpages.testing.space import AddressSpace

__all__ = ["DestinationHost", "Link", "SourceHost"]

# One report to the progress bar: often enough to move, seldom enough to cost nothing.
_REPORT_PAGES: Final = 256


class SourceHost:
    """Where the guest runs."""

    def __init__(self, space: AddressSpace, platform: HostCipher, transport: PageCipher) -> None:
        self._space = space
        self._platform = platform
        self._transport = transport

    def read(self, gfn: int) -> bytes:
        """The bytes in memory: what a shared page holds, and ciphertext of a private one."""
        return self._space.read(gfn)

    def export(self, gfn: int) -> bytes:
        """The page as the platform sends it: out of this host's key, under the transport key."""
        return self._transport.encrypt(gfn, self._platform.decrypt(gfn, self._space.read(gfn)))


class DestinationHost:
    """Where the guest goes: keeps the pages it received and the list it was given, no more."""

    def __init__(
        self,
        space: AddressSpace,
        platform: HostCipher,
        transport: PageCipher,
        pages: SharedPages,
    ) -> None:
        self._space = space
        self._platform = platform
        self._transport = transport
        self._pages = pages

    def store(self, gfn: int, page: bytes) -> None:
        """Store the bytes of a page that came on the shared path."""
        self._space.write(gfn, page)

    def accept(self, gfn: int, page: bytes) -> None:
        """Let the platform import a page that came on the private path, under this host's key."""
        plain = self._transport.decrypt(gfn, page)
        self._space.write(gfn, self._platform.encrypt(gfn, plain))

    def set_list(self, ranges: NDArray[np.uint64]) -> None:
        """Take over the list of shared pages, `(n, 2)` uint64."""
        self._pages.set_list(ranges)

    def get_list(self) -> NDArray[np.uint64]:
        """The list of shared pages as this host knows it."""
        return self._pages.get_list()


class Link:
    """Carries pages from one host to the other, each on the path the transfer names."""

    def __init__(self, source: SourceHost, destination: DestinationHost) -> None:
        self._source = source
        self._destination = destination

    def send(self, transfer: Transfer, sent: Callable[[int], None]) -> None:
        """Send every page of `transfer`; `sent` is told of every few pages that went."""
        self._each(transfer.shared, self.send_shared, sent)
        self._each(transfer.private, self.send_private, sent)

    def send_shared(self, gfn: int) -> None:
        """One page as it lies in memory."""
        self._destination.store(gfn, self._source.read(gfn))

    def send_private(self, gfn: int) -> None:
        """One page from platform to platform."""
        self._destination.accept(gfn, self._source.export(gfn))

    def send_list(self, ranges: NDArray[np.uint64]) -> None:
        """The list of shared pages, `(n, 2)` uint64."""
        self._destination.set_list(ranges)

    @staticmethod
    def _each(
        ranges: NDArray[np.uint64], send: Callable[[int], None], sent: Callable[[int], None]
    ) -> None:
        unreported = 0
        for start, stop in ranges.tolist():
            for gfn in range(start, stop):
                send(gfn)
                unreported += 1
                if unreported == _REPORT_PAGES:
                    sent(unreported)
                    unreported = 0
        sent(unreported)
