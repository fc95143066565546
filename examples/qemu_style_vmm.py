"""A VMM's main loop on asyncio: woken by conversions, told what to do over a monitor's socket.

Run it with `python examples/qemu_style_vmm.py`. The guest is a real one where /dev/kvm runs guests,
else, and with `--played`, a thread that leaves the guest by the exits that KVM would make. Its vCPU
has each conversion in the tracker before it goes on. The main loop sleeps until the tracker's
eventfd or the monitor wakes it, and migrates the guest when told to, while it runs; one that
forbids its migration is not even stopped. Prints a short dialogue at the monitor,
then compares what was sent with the guest's memory. Exit status 1 if the guest did not arrive.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from pysharedpages import DirtyLog, GuestMemory, PageSet, RangeError, SharedPages, SharedPagesError
from pysharedpages.abi import kvm, sev
from pysharedpages.abi.kvm import numbers
from pysharedpages.migration import Migration, Round
from pysharedpages.testing import AddressSpace, MicroVM, steps

PAGE, NPAGES = 4096, 4096
PATIENCE = 20.0  # seconds for all of it
RING, BOUNCE, BUFFER, DATA = (8, 2), (1024, 64), (2048, 4), (3000, 8)  # gfn, pages
SHARED = PageSet.from_ranges([(gfn, gfn + npages) for gfn, npages in (RING, BOUNCE)])


def driver(value: int) -> tuple[steps.Step, ...]:
    """One turn of a driver: map a buffer, have it filled, unmap it. Then `SHARED` is shared."""
    return (
        steps.Convert(*BUFFER, shared=True),
        steps.Write(*BUFFER, value),
        steps.Convert(*BUFFER, shared=False),
        steps.Write(*BUFFER, value),
        steps.Write(*BOUNCE, value),
        steps.Write(*DATA, value),
        steps.Wait(2000),
        steps.Checkpoint(),
    )


# The firmware shares a ring and waits for the user; then the driver takes turns.
PROGRAM = (
    steps.AllowMigration(False),
    steps.Convert(*RING, shared=True),
    steps.Write(*RING),
    steps.Breakpoint(1),
    steps.Convert(*BOUNCE, shared=True),
    steps.AllowMigration(True),
    steps.Loop(tuple(step for value in range(1, 51) for step in driver(value))),
)


def handle_exit(run: bytearray, pages: SharedPages) -> None:
    """In a vCPU's thread: do what the guest asks for, answer in its kvm_run page."""
    found = kvm.decode_exit(run)
    if isinstance(found, kvm.MapGpaRange):
        error = found.status
        try:
            pages.apply(found.events)
        except RangeError:  # the guest has no such pages
            error = numbers.EINVAL
        found.answer(run, error, signed=True)
    elif isinstance(found, kvm.MsrWrite) and found.index == sev.MSR_KVM_MIGRATION_CONTROL:
        control = sev.decode_migration_control(found.index, found.data)
        if not control.status:
            pages.migration_allowed = control.ready
        found.answer(run, fault=bool(control.status))
    else:
        raise SharedPagesError(f"the guest was left for {found}")


class KvmVM(MicroVM):
    """Runs `PROGRAM` on /dev/kvm, and does with exits what `handle_exit` does."""

    def __init__(self, pages: SharedPages) -> None:
        super().__init__(NPAGES, [PROGRAM], pages=pages)

    def cont(self) -> None:
        """Go on from the breakpoint."""
        self.wait_until_still(PATIENCE)
        self.vcpus[0].pass_breakpoint()


class PlayedVM:
    """Plays `PROGRAM` on a thread, which makes the exits that KVM would, and handles them."""

    complete = False  # as a source of dirty pages: not all that holds data was written here

    def __init__(self, pages: SharedPages) -> None:
        self.memory, self.space = GuestMemory([(0, 0, NPAGES)]), AddressSpace(NPAGES)
        self._pages = pages
        self._log = DirtyLog(self.memory)
        self._run = bytearray(PAGE)
        self._started, self._passed, self._stopping = (threading.Event() for _ in range(3))
        self._life = ThreadPoolExecutor(1).submit(self._play, PROGRAM)

    def start(self) -> None:
        """Boot."""
        self._started.set()

    def stop(self) -> None:
        """Return when nothing is written or converted any more; raise what ended the thread."""
        for event in (self._stopping, self._started, self._passed):
            event.set()
        self._life.result()

    def cont(self) -> None:
        """Go on from the breakpoint."""
        self._passed.set()

    def dirty_source(self, log: DirtyLog) -> PlayedVM:
        """A source whose pages are in `log` as soon as they are written."""
        self._log = log
        return self

    def collect(self, log: DirtyLog) -> None:
        """Nothing is left to add."""

    def _play(self, program: Sequence[steps.Step]) -> None:
        self._started.wait()
        for step in program:
            match step:
                case steps.AllowMigration(ready):
                    self._wrmsr(sev.MSR_KVM_MIGRATION_CONTROL, int(ready))
                case steps.Convert(gfn, npages, shared):
                    self._hypercall(gfn, npages, shared)
                case steps.Write(gfn, npages, value):
                    self._write(range(gfn, gfn + npages), value)
                case steps.Breakpoint():
                    self._passed.wait()
                case steps.Wait(microseconds):
                    self._stopping.wait(microseconds / 1e6)
                case steps.Checkpoint():
                    if self._stopping.is_set():
                        return
                case steps.Loop(inner):
                    while not self._stopping.is_set():
                        self._play(inner)

    def _hypercall(self, gfn: int, npages: int, shared: bool) -> None:
        attributes = 0 if shared else numbers.KVM_MAP_GPA_RANGE_ENCRYPTED
        call = (numbers.KVM_HC_MAP_GPA_RANGE, gfn * PAGE, npages, attributes, 0, 0, 0)
        struct.pack_into("<I", self._run, numbers.RUN_EXIT_REASON, numbers.KVM_EXIT_HYPERCALL)
        struct.pack_into("<7Q", self._run, numbers.RUN_EXIT, *call)
        handle_exit(self._run, self._pages)
        (answer,) = struct.unpack_from("<q", self._run, numbers.RUN_HYPERCALL_RET)
        if answer:
            raise SharedPagesError(f"the guest's hypercall was answered {answer}")

    def _wrmsr(self, index: int, data: int) -> None:
        msr = (1, numbers.KVM_MSR_EXIT_REASON_FILTER, index, data)
        struct.pack_into("<I", self._run, numbers.RUN_EXIT_REASON, numbers.KVM_EXIT_X86_WRMSR)
        struct.pack_into("<B7xIIQ", self._run, numbers.RUN_EXIT, *msr)
        handle_exit(self._run, self._pages)
        if self._run[numbers.RUN_MSR_ERROR]:
            raise SharedPagesError(f"the guest's wrmsr to {index:#x} was a fault")

    def _write(self, gfns: range, value: int) -> None:
        for gfn in gfns:
            self.space.write(gfn, value.to_bytes(8, "little") * (PAGE // 8))
        self._log.add_ranges([(gfns.start, gfns.stop)])


class Vmm:
    """One guest, and what its user may ask over the monitor: a line each way."""

    def __init__(self, guest: KvmVM | PlayedVM, pages: SharedPages) -> None:
        self.sent: dict[int, tuple[bool, bytes]] = {}  # by gfn: whether as plain bytes, the bytes
        self.sent_list: PageSet | None = None
        self._guest, self._pages = guest, pages
        self._log = DirtyLog(guest.memory)
        self._source = guest.dirty_source(self._log)
        self._seen = pages.snapshot()
        self._converted = self._wakes = 0

    async def run(self, path: str, user: Callable[[str], Awaitable[None]]) -> None:
        """Boot the guest, and serve the monitor at `path` until its user is done."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pages.fileno(), self._on_conversions)
        try:
            async with await asyncio.start_unix_server(self._serve, path):
                self._guest.start()
                await user(path)
        finally:
            loop.remove_reader(self._pages.fileno())

    def _on_conversions(self) -> None:
        """Clear the eventfd, then look: what is converted after the snapshot wakes again."""
        os.eventfd_read(self._pages.fileno())
        now = self._pages.snapshot()
        self._converted += len(now.converted_since(self._seen))
        self._wakes += 1
        self._seen.close()
        self._seen = now

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            answer = await self._obey(line.decode().strip())
            writer.write(f"{answer}\n".encode())
            await writer.drain()
        writer.close()

    async def _obey(self, command: str) -> str:
        if command == "info shared":
            with self._pages.snapshot() as now:
                return f"{len(now)} of {NPAGES} pages, in {now.nranges} ranges"
        if command == "info conversions":
            return f"{self._converted} pages converted, told in {self._wakes} wakes"
        if command == "info status":
            says = {None: "says nothing of", False: "forbids", True: "allows"}
            return f"the guest {says[self._pages.migration_allowed]} its migration"
        if command == "cont":
            await asyncio.to_thread(self._guest.cont)
            return "done"
        if command == "migrate":
            return await self._migrate()
        return f"error: there is no command {command!r}"

    async def _migrate(self) -> str:
        """Harvests on the loop's own thread: a VMM with more memory gives a migration its own."""
        try:
            with Migration(self._pages, self._log, [self._source]) as migration:
                await self._send(migration.rounds(most=4))
                final = migration.final()  # refuses while the guest forbids it
                await asyncio.to_thread(self._guest.stop)
                await self._send(final)
                self.sent_list = migration.snapshot
        except SharedPagesError as error:
            return f"error: {error}"
        pages = (f"{r.shared_pages}+{r.private_pages}" for r in migration.history)
        return f"completed; pages shared+private by round: {', '.join(pages)}"

    async def _send(self, rounds: Iterable[Round]) -> None:
        """Stands for a stream to the other host; the loop is free while it waits."""
        for r in rounds:
            for ranges, plain in ((r.shared, True), (r.private, False)):
                for gfn in PageSet.from_ranges(ranges):
                    self.sent[gfn] = (plain, self._guest.space.read(gfn))
            await asyncio.sleep(0.02)


async def operate(path: str) -> None:
    """A short dialogue at the monitor."""
    reader, writer = await asyncio.open_unix_connection(path)

    async def ask(command: str, until: str = "") -> None:
        answer = ""
        while not answer or until not in answer:
            await asyncio.sleep(0.01)
            writer.write(f"{command}\n".encode())
            answer = (await reader.readline()).decode().strip()
        print(f"(vmm) {command}\n{answer}")

    try:
        await ask("info status", until="forbids")
        await ask("migrate")
        await ask("cont")
        await ask("info status", until="allows")
        await ask("info shared")
        await ask("migrate")
        await ask("info conversions")
    finally:
        writer.close()


def arrived(vmm: Vmm, space: AddressSpace) -> bool:
    """Whether every page was sent as it is, on its type's path, and the list is the guest's."""
    if vmm.sent_list is None:
        print("the guest was not migrated")
        return False
    bad = [gfn for gfn in range(NPAGES) if vmm.sent.get(gfn) != (gfn in SHARED, space.read(gfn))]
    is_list = vmm.sent_list == SHARED
    print(f"{NPAGES} pages compared, and the paths they took: {len(bad)} differ {bad[:10]}")
    print(f"the list of shared pages is the guest's: {is_list}")
    return is_list and not bad


def main() -> int:
    """Run the dialogue, then see whether the guest arrived."""
    parser = argparse.ArgumentParser(description="a VMM's main loop on asyncio")
    parser.add_argument("--played", action="store_true", help="no KVM, even where there is one")
    missing = "as asked" if parser.parse_args().played else MicroVM.available()
    with ExitStack() as stack:
        pages = stack.enter_context(SharedPages(NPAGES))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        print(f"a played guest: {missing}" if missing else "a guest on /dev/kvm")
        guest = PlayedVM(pages) if missing else stack.enter_context(KvmVM(pages))
        stack.callback(guest.stop)
        vmm = Vmm(guest, pages)
        serving = vmm.run(os.path.join(folder, "monitor"), operate)
        asyncio.run(asyncio.wait_for(serving, PATIENCE))
        return 0 if arrived(vmm, guest.space) else 1


if __name__ == "__main__":
    sys.exit(main())
