"""One pass of a migration over a real KVM guest: its dirty log, merged with what it converted.

Ends with status 3, and says why, where /dev/kvm runs no guests.
"""

from __future__ import annotations

import sys

from pysharedpages import DirtyLog, SharedPages
from pysharedpages.sources import KvmDirtyLog
from pysharedpages.testing import MicroVM
from pysharedpages.testing.steps import Breakpoint, Convert, Write

PROGRAM = [
    Write(0x100, 8),  # private, as every page is at boot
    Breakpoint(1),  # where the pass before this one is thought to be
    Convert(0x40000, 16, shared=True),  # a bounce buffer: a wrmsr a page, seen by the tracker
    Write(0x40000, 4),
    Convert(0x100, 1, shared=True),  # there and back: no longer what it was
    Convert(0x100, 1, shared=False),
    Breakpoint(2),
]


def main() -> int:
    """Run the guest, harvest, merge, print."""
    reason = MicroVM.available()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 3
    with SharedPages("8GiB") as pages, MicroVM("8GiB", [PROGRAM], pages=pages) as machine:
        log = DirtyLog(machine.memory)
        source = KvmDirtyLog(machine.fd, machine.memory)
        machine.start()
        machine.wait_until_still(60)
        source.collect(log)
        log.take().commit()
        before = pages.snapshot()

        machine.vcpus[0].pass_breakpoint()
        machine.wait_until_still(60)
        source.collect(log)
        with log.take() as harvest:  # dirty first,
            send = pages.snapshot().merge(harvest, since=before)  # then the list
        print(f"{send.shared_pages} pages as plain bytes: {send.shared.tolist()}")
        print(f"{send.private_pages} page by the platform: {send.private.tolist()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
