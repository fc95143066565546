"""The errors of the library.

`TypeError` and `MemoryError` are raised as themselves. A message carries the offending value and
the bound it broke; whatever was called is then as it was before.
"""

from __future__ import annotations

__all__ = ["ClosedError", "FormatError", "RangeError", "SharedPagesError", "SnapshotLimitError"]


class SharedPagesError(Exception):
    """The base of all errors of the library."""


class RangeError(SharedPagesError, ValueError):
    """A gfn, a count or a size is out of bounds, or a range is inverted."""


class FormatError(SharedPagesError, ValueError):
    """Bytes that are not what they should be.

    `offset` is the byte, in what the caller gave, at which the wrong field begins, or at which what
    is too short ends; None where no byte is to blame, as for registers and shapes.
    """

    def __init__(self, *args: object, offset: int | None = None) -> None:
        super().__init__(*args)
        self.offset = offset


class ClosedError(SharedPagesError, RuntimeError):
    """The object was closed, or a harvest was already committed or aborted."""


class SnapshotLimitError(SharedPagesError):
    """Snapshots pin all 65,534 versions that a tracker can have beside its newest."""
