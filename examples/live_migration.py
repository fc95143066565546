"""A guest moves to another process while it runs, over a Unix socket that breaks once on purpose.

Run it with `python examples/live_migration.py`. The guest is two threads that write and convert
8 MiB of real memory. The platform, a toy, keeps private pages under a keystream of each host's
own: a page that takes the wrong path is garbage there. Prints what each round sent, then compares
all pages and the list of shared pages by the guest's own table; exit status 1 if anything differs.
The kernel finds the guest's writes, or where it cannot, and with `--told`, the guest tells of them.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import multiprocessing
import os
import random
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np

from pysharedpages import DirtyLog, GuestMemory, PageSet, SharedPages
from pysharedpages.migration import Migration, Round
from pysharedpages.sources import ProcessMemory

PAGE, NPAGES, VCPUS = 4096, 2048, 2
FEW = 32  # pages a round; with no more the guest is stopped
PATIENCE = 20.0  # seconds one side waits for the other

# A frame of the link: its kind, a gfn, the size of what follows.
FRAME = struct.Struct("<BQI")
SHARED, PRIVATE, CANCEL, ROUND_DONE, LIST, TABLE, SEEN = range(7)


class Host:
    """A guest's memory, whose private pages the platform keeps under the key of this host."""

    def __init__(self, key: bytes) -> None:
        self.memory = mmap.mmap(-1, NPAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._key = key

    def load(self, gfn: int) -> bytes:
        """The bytes that lie in memory."""
        return self.memory[gfn * PAGE : (gfn + 1) * PAGE]

    def store(self, gfn: int, page: bytes) -> None:
        """Put these bytes into memory."""
        self.memory[gfn * PAGE : (gfn + 1) * PAGE] = page

    def crypt(self, gfn: int, page: bytes) -> bytes:
        """What the memory controller makes of a private page, in either direction."""
        return xor(page, self._key, gfn)

    def export_page(self, gfn: int) -> bytes:
        """The platform's path out: a private page, under the key of the transport."""
        return xor(self.crypt(gfn, self.load(gfn)), b"transport", gfn)

    def import_page(self, gfn: int, page: bytes) -> None:
        """The platform's path in."""
        self.store(gfn, self.crypt(gfn, xor(page, b"transport", gfn)))

    def seen_by(self, table: bytes | bytearray) -> bytes:
        """What a guest with this table of types reads here: 32 bytes of digest a page."""
        raw = ((gfn, self.load(gfn)) for gfn in range(NPAGES))
        pages = (page if table[gfn] else self.crypt(gfn, page) for gfn, page in raw)
        return b"".join(hashlib.sha256(page).digest() for page in pages)


def xor(page: bytes, key: bytes, gfn: int) -> bytes:
    """The page under the keystream of this key and gfn: a toy, no cipher to be used."""
    stream = hashlib.shake_128(key + gfn.to_bytes(8, "little")).digest(PAGE)
    return (np.frombuffer(page, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()


class Guest:
    """Threads that each own some of the pages. `table` is the guest's own: 1 for a shared page."""

    def __init__(self, host: Host, pages: SharedPages, log: DirtyLog | None) -> None:
        self.table = bytearray(NPAGES)
        self._host, self._pages, self._log = host, pages, log
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(VCPUS)
        for gfn in range(NPAGES):
            self._write(gfn, b"boot" * (PAGE // 4))
        owned = (range(NPAGES)[number::VCPUS] for number in range(VCPUS))
        self._vcpus = [self._pool.submit(self._run, pages) for pages in owned]

    def stop(self) -> None:
        """Return when nothing is written or converted any more; raise what ended a vCPU."""
        self._stopping.set()
        for vcpu in self._vcpus:
            vcpu.result()

    def _run(self, owned: range) -> None:
        rng = random.Random(owned.start)
        hot = rng.sample(owned, 96)
        while not self._stopping.wait(0.001):
            gfn = rng.choice(hot)
            if rng.random() < 0.3:
                self._convert(gfn)
            self._write(gfn, rng.randbytes(PAGE))

    def _convert(self, gfn: int) -> None:
        """The host is told, and has noted it, before the first write under the new type."""
        self.table[gfn] ^= 1
        self._pages.convert(gfn, 1, bool(self.table[gfn]))

    def _write(self, gfn: int, page: bytes) -> None:
        self._host.store(gfn, page if self.table[gfn] else self._host.crypt(gfn, page))
        if self._log is not None:  # no source that finds it: this one is told
            self._log.add_pages([gfn])


class Link:
    """Frames over a socket, which breaks within a page once `cut_after` more have gone."""

    def __init__(self, connection: socket.socket) -> None:
        self.cut_after = -1
        self._socket = connection
        self._socket.settimeout(PATIENCE)
        self._file = connection.makefile("rb")

    def send(self, kind: int, gfn: int = 0, payload: bytes = b"") -> None:
        """Send one frame."""
        frame = FRAME.pack(kind, gfn, len(payload)) + payload
        if kind in (SHARED, PRIVATE):
            self.cut_after -= 1
            if self.cut_after == 0:
                self._socket.sendall(frame[: PAGE // 2])
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.sendall(frame)

    def receive(self) -> tuple[int, int, bytes]:
        """One frame: its kind, gfn and payload. ConnectionError where the link broke."""
        kind, gfn, size = FRAME.unpack(self._read(FRAME.size))
        return kind, gfn, self._read(size)

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionResetError("the other side hung up")
        return data


class Source:
    """Sends rounds to the destination, which connects again when the link broke."""

    def __init__(self, host: Host, listener: socket.socket) -> None:
        self._host, self._listener = host, listener
        self.link = Link(listener.accept()[0])

    def send_rounds(self, rounds: Iterable[Round]) -> None:
        """Send each round; one that did not arrive is aborted, and its pages come again."""
        for r in rounds:
            name = f"{'final ' * r.is_final}round {r.number}, {r.pages} pages"
            try:
                self._send(r)
                print(f"{name}: {r.transfer.shared_pages} shared, {len(r.rerouted)} rerouted")
            except ConnectionError as error:
                r.abort()
                print(f"{name}: the link broke ({error}), so the round is aborted")
                self.link.close()
                self.link = Link(self._listener.accept()[0])

    def _send(self, r: Round) -> None:
        if r.number == 2:
            self.link.cut_after = max(1, r.pages // 2)
        self.link.send(CANCEL, payload=r.rerouted.pages().tobytes())
        for gfn in PageSet.from_ranges(r.shared):
            self.link.send(SHARED, gfn, self._host.load(gfn))
        for gfn in PageSet.from_ranges(r.private):
            self.link.send(PRIVATE, gfn, self._host.export_page(gfn))
        self.link.send(ROUND_DONE)
        self.link.receive()  # nothing is committed before it has arrived

    def finish(self, shared: PageSet, table: bytearray) -> tuple[PageSet, bytes]:
        """Send the list and the guest's table; the list and the pages as they are there."""
        self.link.send(LIST, payload=shared.ranges().tobytes())
        self.link.send(TABLE, payload=bytes(table))
        there = np.frombuffer(self.link.receive()[2], np.uint64).reshape(-1, 2)
        return PageSet.from_ranges(there), self.link.receive()[2]


class Destination:
    """The other process: stores pages, and holds the source to the path of each."""

    def __init__(self) -> None:
        self._host, self._pages = Host(b"destination"), SharedPages(NPAGES)
        self._paths: dict[int, int] = {}

    @classmethod
    def run(cls, path: str) -> None:
        """Receive one guest, over as many connections as it takes."""
        destination = cls()
        while True:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                try:
                    destination._serve(Link(connection))
                    return
                except ConnectionError:
                    continue

    def _serve(self, link: Link) -> None:
        while True:
            kind, gfn, payload = link.receive()
            if kind in (SHARED, PRIVATE):
                self._take(kind, gfn, payload)
            elif kind == CANCEL:
                for each in np.frombuffer(payload, np.uint64).tolist():
                    self._paths.pop(each, None)
            elif kind == ROUND_DONE:
                link.send(ROUND_DONE)
            elif kind == LIST:
                self._pages.set_list(np.frombuffer(payload, np.uint64).reshape(-1, 2))
            elif kind == TABLE:
                link.send(LIST, payload=self._pages.get_list().tobytes())
                link.send(SEEN, payload=self._host.seen_by(payload))
                return

    def _take(self, kind: int, gfn: int, page: bytes) -> None:
        """A platform refuses a page of the other kind until the first is cancelled or converted."""
        if self._paths.setdefault(gfn, kind) != kind:
            raise RuntimeError(f"gfn {gfn} came on the other path before, and was not cancelled")
        if kind == SHARED:
            self._host.store(gfn, page)
        else:
            self._host.import_page(gfn, page)


def migrate(listener: socket.socket, told: bool, stack: ExitStack) -> bool:
    """Run a guest here, move it, compare; whether all of it is there."""
    host, pages = Host(b"source"), SharedPages(NPAGES)
    log = DirtyLog(GuestMemory([(0, 0, NPAGES)]))
    missing = "as asked" if told else ProcessMemory.available()
    sources = [] if missing else [stack.enter_context(ProcessMemory.over(host.memory))]
    print(f"writes: the guest tells of them, {missing}" if missing else f"writes: {sources[0]}")
    migration = stack.enter_context(Migration(pages, log, sources))
    guest = Guest(host, pages, log if missing else None)
    stack.callback(guest.stop)
    source = Source(host, listener)
    stack.callback(lambda: source.link.close())
    source.send_rounds(migration.rounds(most=8, until=lambda r: r.pages <= FEW))
    guest.stop()
    source.send_rounds(migration.final())

    there, seen = source.finish(migration.snapshot, guest.table)
    here = host.seen_by(guest.table)
    bad = [gfn for gfn in range(NPAGES) if here[32 * gfn :][:32] != seen[32 * gfn :][:32]]
    shared = PageSet.from_pages([gfn for gfn in range(NPAGES) if guest.table[gfn]])
    print(f"{NPAGES} pages compared, {len(bad)} differ: {bad[:10]}")
    print(f"{len(shared)} pages are shared there as here: {there == shared}")
    return there == shared and not bad


def main() -> int:
    """Start the destination, migrate, tell by the exit status whether the guest arrived."""
    parser = argparse.ArgumentParser(description="move a running guest to another process")
    parser.add_argument("--told", action="store_true", help="the guest tells of its writes")
    told = parser.parse_args().told
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(os.path.join(folder, "migration"))
        listener.listen()
        listener.settimeout(PATIENCE)
        spawn = multiprocessing.get_context("spawn")
        other = spawn.Process(target=Destination.run, args=(listener.getsockname(),), daemon=True)
        other.start()
        arrived = migrate(listener, told, stack)
        other.join(PATIENCE)
        return 0 if arrived and other.exitcode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
