"""A running guest's shared pages are backed up, and only shared pages are ever pinned.

Run it with `python examples/snapshot_backup.py`. Two vCPUs, which are threads, convert and write
pages of 64 MiB of real memory. A page is pinned, by mlock(2), as long as it is shared: unpinned
before it becomes private, pinned after it became shared. After every conversion the pins are held
against the list, and against what the kernel says is locked. Meanwhile a backup copies the shared
pages as they are; the private ones only the platform could read. Prints what was pinned, beside
what pinning all memory would take. Exit status 1 if a private page was pinned or the backup is
not what the guest wrote; 3, saying why, where this host locks no memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from pysharedpages import DirtyLog, GuestMemory, PageSet, SharedPages
from pysharedpages.migration import Migration, Round

PAGE, NPAGES = 4096, 16384
BOUNCE = range(512, 1024)  # what a guest's kernel shares at boot for its I/O
VCPUS, BUFFERS, BUFFER_PAGES = 2, 64, 4  # besides, each vCPU converts buffers of its own
STEPS = 150  # of each vCPU
MOST_SHARED = len(BOUNCE) + VCPUS * BUFFERS * BUFFER_PAGES


class PinError(Exception):
    """Pages are pinned that must not be, or the other way round."""


class Pins:
    """Pages of a mapping that stay in memory: an IOMMU or an RDMA card would want the same."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.pinned = PageSet()
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._libc = ctypes.CDLL(None, use_errno=True)

    def pin(self, pages: PageSet) -> None:
        """Pin these too. OSError if the kernel locks no more memory."""
        self._each(self._libc.mlock, pages)
        self.pinned |= pages

    def unpin(self, pages: PageSet) -> None:
        """Pin these no longer."""
        self._each(self._libc.munlock, pages)
        self.pinned -= pages

    def locked(self) -> PageSet:
        """What the kernel says is locked: the mappings of this process that have the flag."""
        found, here = [], (0, 0)
        with open("/proc/self/smaps", encoding="ascii", errors="replace") as smaps:
            for line in smaps:
                key, _, rest = line.partition(" ")
                if not key.endswith(":"):
                    ends = (int(end, 16) - self._start for end in key.split("-"))
                    start, stop = (min(max(end // PAGE, 0), NPAGES) for end in ends)
                    here = (start, stop)
                elif key == "VmFlags:" and "lo" in rest.split():
                    found.append(here)
        return PageSet.from_ranges(found)

    def _each(self, call: Callable[..., int], pages: PageSet) -> None:
        for start, stop in pages.ranges().tolist():
            where = ctypes.c_void_p(self._start + start * PAGE)
            if call(where, ctypes.c_size_t((stop - start) * PAGE)):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Vmm:
    """Does what guests ask for, and keeps the pins in step with it."""

    def __init__(self, pages: SharedPages, pins: Pins) -> None:
        self.pages, self.pins = pages, pins
        self.conversions = self.converted = self.most_pinned = 0
        self._lock = threading.Lock()

    def convert(self, start: int, npages: int, shared: bool) -> None:
        """One request, from the thread of the vCPU that waits for the answer."""
        asked = PageSet.from_ranges([(start, start + npages)])
        with self._lock, self.pages.snapshot() as before:
            if not shared:
                self.pins.unpin(self.pins.pinned & asked)  # while they are shared
            self.pages.convert(start, npages, shared)
            with self.pages.snapshot() as now:
                refuse(self.pins.pinned - now, "private and pinned")
                self.pins.pin(now - self.pins.pinned)
                refuse(self.pins.pinned ^ now, "pinned or shared, not both")
                refuse(self.pins.locked() ^ now, "locked or shared, not both")
                self.converted += len(now.converted_since(before))
            self.conversions += 1
            self.most_pinned = max(self.most_pinned, len(self.pins.pinned))


def refuse(pages: PageSet, what: str) -> None:
    """PinError if there are any."""
    if pages:
        raise PinError(f"{len(pages)} pages are {what}: {pages.ranges()[:5].tolist()}")


class Guest:
    """Two vCPUs. It keeps what it last wrote to each page that it shares, to be compared with."""

    def __init__(self, memory: mmap.mmap, vmm: Vmm, log: DirtyLog) -> None:
        self.shared: dict[int, bytes] = {}
        self._memory, self._vmm, self._log = memory, vmm, log
        self._retype(BOUNCE, True, random.Random(0))

    def run(self, number: int) -> None:
        """The life of a vCPU: its buffers are mapped for I/O, and unmapped."""
        rng = random.Random(number)
        each = (NPAGES - BOUNCE.stop) // VCPUS
        own = range(NPAGES)[BOUNCE.stop + number * each :][:each]
        buffers = [own[first:][:BUFFER_PAGES] for first in range(0, each, each // BUFFERS)]
        for _ in range(STEPS):
            buffer = rng.choice(buffers[:BUFFERS])
            self._retype(buffer, buffer.start not in self.shared, rng)
            self._write(BOUNCE[number::VCPUS][rng.randrange(100)], rng)
            time.sleep(0.001)

    def _retype(self, pages: range, shared: bool, rng: random.Random) -> None:
        """Convert first, then write anew."""
        self._vmm.convert(pages.start, len(pages), shared)
        for gfn in pages:
            if shared:
                self._write(gfn, rng)
            else:
                self.shared.pop(gfn)
                self._store(gfn, b"\xee" * PAGE)  # stands for ciphertext

    def _write(self, gfn: int, rng: random.Random) -> None:
        self.shared[gfn] = rng.randbytes(PAGE)
        self._store(gfn, self.shared[gfn])

    def _store(self, gfn: int, page: bytes) -> None:
        self._memory[gfn * PAGE : (gfn + 1) * PAGE] = page
        self._log.add_pages([gfn])  # as a dirty log would


class Backup:
    """Copies of the shared pages. A page that turns private drops out."""

    def __init__(self, memory: mmap.mmap, pages: SharedPages) -> None:
        self.copies: dict[int, bytes] = {}
        self._memory, self._pages = memory, pages

    def take(self, rounds: Iterable[Round]) -> None:
        """Copy what each round names. What is converted meanwhile is named by the next."""
        for r in rounds:
            for gfn in PageSet.from_ranges(r.private):
                self.copies.pop(gfn, None)
            for gfn in PageSet.from_ranges(r.shared):
                self.copies[gfn] = self._memory[gfn * PAGE : (gfn + 1) * PAGE]
            self._pages.wait(r.snapshot.epoch, 0.02)  # the next round finds something


def refusal(pins: Pins) -> str | None:
    """Why this host cannot, or None: as much as may become shared is pinned, and found."""
    try:
        pins.pin(PageSet.from_ranges([(0, MOST_SHARED)]))
        found = pins.locked() == pins.pinned
        pins.unpin(pins.pinned)
    except OSError as error:
        return f"this host does not lock {size(MOST_SHARED)}: {error}"
    return None if found else "/proc/self/smaps does not say what is locked"


def size(npages: int) -> str:
    """Pages as a size."""
    return f"{npages * PAGE / 2**20:.1f} MiB"


def main() -> int:
    """Run the guest, back it up meanwhile, compare."""
    memory = mmap.mmap(-1, NPAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages, pins = SharedPages(NPAGES), Pins(memory)
    reason = refusal(pins)
    if reason is not None:
        print(reason, file=sys.stderr)
        return 3
    log = DirtyLog(GuestMemory([(0, 0, NPAGES)]))
    vmm, backup = Vmm(pages, pins), Backup(memory, pages)
    with Migration(pages, log, []) as migration:
        guest = Guest(memory, vmm, log)
        with ThreadPoolExecutor(VCPUS) as pool:
            vcpus = [pool.submit(guest.run, number) for number in range(VCPUS)]
            backup.take(migration.rounds(until=lambda r: all(vcpu.done() for vcpu in vcpus)))
        for vcpu in vcpus:
            vcpu.result()
        live = len(migration.history)
        backup.take(migration.final())  # nothing runs any more

    print(
        f"{vmm.conversions} requests converted {vmm.converted} pages; pinned == shared after each"
    )
    print(f"pinned: {size(len(pins.pinned))}, {size(vmm.most_pinned)} at most;", end=" ")
    print(f"pinning all memory takes {size(NPAGES)}")
    differing = [gfn for gfn, page in guest.shared.items() if backup.copies.get(gfn) != page]
    extra = backup.copies.keys() - guest.shared.keys()
    print(f"backup: {len(backup.copies)} shared pages in {live} rounds and a final one;", end=" ")
    print(f"{len(differing)} differ from what the guest wrote, {len(extra)} are not shared")
    return 1 if differing or extra or backup.copies.keys() != set(pages.snapshot()) else 0


if __name__ == "__main__":
    sys.exit(main())
