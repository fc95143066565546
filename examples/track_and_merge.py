"""One pass of a migration, by hand: conversions, a dirty bitmap as KVM gives it, the merge.

Run it with `python examples/track_and_merge.py`; it prints what a pass would send.
"""

from __future__ import annotations

import numpy as np

from pysharedpages import EVENT_DTYPE, DirtyLog, GuestMemory, SharedPages

LOW, HIGH = 0, 1
SLOTS = [(LOW, 0, 0xC0000), (HIGH, 0x100000, 0x200000)]


def main() -> None:
    """Convert, dirty, merge, print."""
    memory = GuestMemory(SLOTS)
    pages, log = SharedPages("16GiB"), DirtyLog(memory)

    # A guest at boot: one swiotlb, and a hundred single pages for virtio rings.
    events = np.zeros(101, EVENT_DTYPE)
    events[0] = (0x80000, 0x4000, 1)
    events["start"][1:] = np.arange(0x100000, 0x100000 + 100 * 64, 64)
    events["npages"][1:] = events["shared"][1:] = 1
    print(f"{pages.apply(events)} pages converted in one step: {pages!r}")
    previous = pages.snapshot()

    # While a pass runs the guest dirties pages, and converts one there and back.
    dirty = np.zeros(0xC0000 // 64, np.uint64)
    dirty[0x80000 // 64] = 0xFF
    dirty[0x90000 // 64] = 0x0F
    log.add_bitmap(LOW, dirty)
    pages.unshare(0x100000)
    pages.share(0x100000)

    with log.take() as harvest:
        snapshot = pages.snapshot()
        transfer = snapshot.merge(harvest, since=previous)
    print(f"as plain bytes:       {transfer.shared.tolist()}")
    print(f"through the platform: {transfer.private.tolist()}")
    print(f"sent for being converted: {transfer.converted!r}")


if __name__ == "__main__":
    main()
