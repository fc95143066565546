"""Two hosts for one KVM guest, each with a key of its own, and the link from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple, Self

from pysharedpages._core import SharedPages
from pysharedpages.dirty import GuestMemory
from pysharedpages.kvmguest.cipher import WordCipher
from pysharedpages.softguest.cipher import PageCipher
from pysharedpages.softguest.comparison import View
from pysharedpages.softguest.host import DestinationHost, Link, SourceHost
from pysharedpages.testing import AddressSpace, MicroVM
from pysharedpages.testing.steps import Step
from pysharedpages.testing.vcpu import Vcpu

__all__ = ["Host", "Hosts"]


class Host(NamedTuple):
    """A VM, its list of shared pages, and its memory through its key."""

    machine: MicroVM
    pages: SharedPages
    view: View


class Hosts:
    """`here`, where the guest boots, and `there`, where it goes: the same programs, other keys.

    Only `here` has a dirty log, of the kind `log`. `converted(the host's view, vCPU, gfn, shared)`,
    if given, is called for each page that the guest converts on either, from the vCPU's thread: it
    may do to the page what a platform would, and no dirty log sees it. A context manager; raises as
    `MicroVM` does.
    """

    def __init__(
        self,
        memory: GuestMemory,
        programs: Sequence[Sequence[Step]],
        *,
        log: str,
        seed: int,
        engine: str = "auto",
        ring_entries: int = 4096,
        converted: Callable[[View, int, int, bool], object] | None = None,
    ) -> None:
        self._closing = ExitStack()
        self._converted = converted
        try:
            self.here, self.there = (
                self._host(memory, programs, dirty, ring_entries, engine, cipher)
                for dirty, cipher in (
                    (log, WordCipher.derived(seed, "source")),
                    (None, WordCipher.derived(seed, "destination")),
                )
            )
        except BaseException:
            self._closing.close()
            raise
        transport = PageCipher.derived(seed, "transport")
        self.source = SourceHost(self.here.view.space, self.here.view.cipher, transport)
        self.destination = DestinationHost(
            self.there.view.space, self.there.view.cipher, transport, self.there.pages
        )
        self.link = Link(self.source, self.destination)

    def close(self) -> None:
        """End the VMs and release their memory."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _host(
        self,
        memory: GuestMemory,
        programs: Sequence[Sequence[Step]],
        dirty: str | None,
        ring_entries: int,
        engine: str,
        cipher: WordCipher,
    ) -> Host:
        npages = max(gfn + npages for _, gfn, npages in memory)
        view = View(self._closing.enter_context(AddressSpace(npages)), cipher)
        pages = self._closing.enter_context(SharedPages(npages, engine=engine))
        machine = MicroVM(
            memory,
            programs,
            pages=pages,
            dirty=dirty,
            ring_entries=ring_entries,
            key=cipher.key,
            space=view.space,
            on_conversion=self._on_conversion(view),
        )
        self._closing.enter_context(machine)
        return Host(machine, pages, view)

    def _on_conversion(self, view: View) -> Callable[[Vcpu, int, int, bool], object] | None:
        converted = self._converted
        if converted is None:
            return None

        def each(vcpu: Vcpu, gfn: int, npages: int, shared: bool) -> None:
            for page in range(gfn, gfn + npages):
                converted(view, vcpu.number, page, shared)

        return each
