"""What happens to trackers and logs in the child of a fork.

An object that another thread of the parent was changing at the fork is half changed in the child,
and its lock will never be given back there: it is marked, and answers with `SharedPagesError` from
then on. All others work on in the child as copies of their own.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["watch"]


class _Watched(Protocol):
    def _after_fork(self) -> None: ...


_live: weakref.WeakSet[_Watched] = weakref.WeakSet()


def watch(tracked: _Watched) -> None:
    """Tells `tracked` about every fork, in the child, for as long as it lives."""
    _live.add(tracked)


def _tell() -> None:
    for tracked in list(_live):
        tracked._after_fork()


os.register_at_fork(after_in_child=_tell)
