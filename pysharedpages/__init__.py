"""Which pages of a confidential VM are shared with its host, and what to send when it migrates.

A `PageSet` is a value; a `SharedPages` is the one thing that changes; a `Snapshot` is the `PageSet`
that a `SharedPages` was at one epoch. `Snapshot.merge` splits the dirty pages of a `DirtyLog` into
those that travel as plain bytes and those that go through the platform's encrypting path.
"""

from __future__ import annotations

try:
    from pysharedpages._core import PageSet, SharedPages, Snapshot, Transfer, kernels
except ModuleNotFoundError as _missing:
    if _missing.name != "pysharedpages._core":
        raise
    raise ImportError(
        "pysharedpages is imported from its source tree, which is not compiled: install it"
        " (`make test` does), and run python from elsewhere or with -P"
    ) from _missing

from pysharedpages._buffers import EVENT_DTYPE, RING_DTYPE
from pysharedpages.dirty import DirtyLog, GuestMemory, Harvest
from pysharedpages.errors import (
    ClosedError,
    FormatError,
    RangeError,
    SharedPagesError,
    SnapshotLimitError,
)
from pysharedpages.plotting import plot

__all__ = [
    "EVENT_DTYPE",
    "RING_DTYPE",
    "ClosedError",
    "DirtyLog",
    "FormatError",
    "GuestMemory",
    "Harvest",
    "PageSet",
    "RangeError",
    "SharedPages",
    "SharedPagesError",
    "Snapshot",
    "SnapshotLimitError",
    "Transfer",
    "kernels",
    "plot",
]
