"""What a migration asks of its tracker and of its sources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pysharedpages._core import Snapshot
from pysharedpages.dirty import DirtyLog

__all__ = ["DirtySource", "Tracker", "sources_of"]


class DirtySource(Protocol):
    """What is asked of a source of dirty pages.

    One that also has `set_memory(memory)` is told of slots that come and go.
    """

    @property
    def complete(self) -> bool:
        """Whether the first collection reports every page that ever held data."""

    def collect(self, log: DirtyLog, /) -> object:
        """Add what is dirty since the last call, and re-arm."""


class Tracker(Protocol):
    """What is asked of the tracker: a `SharedPages`, or something that stands before one."""

    @property
    def migration_allowed(self) -> bool | None:
        """See `SharedPages.migration_allowed`."""

    def snapshot(self) -> Snapshot:
        """See `SharedPages.snapshot`."""


def sources_of(sources: Iterable[DirtySource]) -> tuple[DirtySource, ...]:
    """The sources as a tuple; TypeError for what is none."""
    try:
        checked = tuple(sources)
    except TypeError:
        raise TypeError(f"sources must be iterable, not {type(sources).__name__}") from None
    for source in checked:
        if not callable(getattr(source, "collect", None)) or not hasattr(source, "complete"):
            raise TypeError(f"{source!r} is no source: it lacks `collect` or `complete`")
    return checked
