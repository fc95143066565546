"""What an interrupted VMM holds, as a value: two that hold the same go on in the same way.

A VMM that stands in a hook is its frames, from there down to where it began: at which instruction
each stands, and what its variables have. Page sets, harvests and transfers are told by their pages;
snapshots also by what was converted from each to the next and since the last: whatever the VMM can
ask of them later follows from that. Functions are told by their names and what they close over,
bound methods by their objects too. What is in no variable is not seen: the generator that a loop
runs over, the operands of an expression that calls a hook. A policy must not remember there what
nothing else of it tells.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from itertools import pairwise
from types import (
    BuiltinMethodType,
    CellType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any, Final

import numpy as np

from pysharedpages._core import PageSet, SharedPages, Snapshot, Transfer
from pysharedpages.dirty import DirtyLog, GuestMemory, Harvest
from pysharedpages.errors import ClosedError
from pysharedpages.migration import RoundRecord
from pysharedpages.races.vmm import HookedSource, HookedTracker, Vmm

__all__ = ["state_of"]

# What the VMM itself has is read once; records and tracebacks are for people.
_SEEN_ELSEWHERE: Final[tuple[type, ...]] = (
    Vmm,
    HookedTracker,
    HookedSource,
    SharedPages,
    DirtyLog,
    RoundRecord,
    TracebackType,
    ModuleType,
    type,
)
_ATOMS: Final = (type(None), bool, int, float, str)


def state_of(vmm: Vmm, hook: FrameType, bottom: FrameType) -> Hashable:
    """The state of a VMM that called `hook` on its way up from `bottom`.

    To be asked once in a run, at its end: it takes a snapshot and reads the log.
    """
    reader = _Reader(vmm.pages.snapshot())
    frames = []
    frame = hook.f_back
    while frame is not None and frame is not bottom:
        frames.append(reader.frame(frame))
        frame = frame.f_back
    return (
        tuple(frames),
        reader.harvested(vmm.log),
        tuple(sorted(vmm.dirty)),
        vmm.round,
        reader.conversions(),
    )


class _Reader:
    """Turns what it meets into tuples, each object once."""

    def __init__(self, now: Snapshot) -> None:
        self._now = now
        self._met: dict[int, tuple[int, object]] = {}
        self._snapshots: dict[int, Snapshot] = {now.epoch: now}

    def conversions(self) -> Hashable:
        """The snapshots met from the oldest to now, and what was converted from each to the next.

        They are numbered by when they were met: epochs say how much happened before, too.
        """
        met = list(self._snapshots)
        ordered = [self._snapshots[epoch] for epoch in sorted(met)]
        between = pairwise(ordered)
        return (
            tuple((met.index(each.epoch), tuple(each)) for each in ordered),
            tuple(tuple(newer.converted_since(older)) for older, newer in between),
        )

    def harvested(self, dirty: DirtyLog | Harvest) -> Hashable:
        """The pages of a log or a harvest."""
        try:
            return _pages(self._now.merge(dirty))
        except ClosedError:
            return "ended"

    def frame(self, frame: FrameType) -> Hashable:
        """Where a function stands, and what its variables have."""
        return frame.f_code.co_qualname, frame.f_lasti, self.value(dict(frame.f_locals))

    def value(self, item: Any) -> Hashable:
        """What an object says to whoever goes on with it."""
        if isinstance(item, _ATOMS):
            return item
        if isinstance(item, _SEEN_ELSEWHERE):
            return type(item).__name__
        if id(item) in self._met:
            return "met", self._met[id(item)][0]
        self._met[id(item)] = len(self._met), item
        return self._contents(item)

    def _contents(self, item: Any) -> Hashable:
        if isinstance(item, Snapshot):
            return self._snapshot(item)
        if isinstance(item, PageSet):
            return tuple(item)
        if isinstance(item, Transfer):
            return _pages(item), tuple(item.converted)
        if isinstance(item, Harvest):
            return self.harvested(item)
        if isinstance(item, np.ndarray):
            return item.tobytes()
        if isinstance(item, dict):
            return tuple((name, self.value(item[name])) for name in sorted(item))
        if isinstance(item, (tuple, list, GuestMemory)):
            return tuple(self.value(each) for each in item)
        if isinstance(item, (MethodType, BuiltinMethodType)):
            return item.__qualname__, self.value(item.__self__)
        if isinstance(item, FunctionType):
            return item.__qualname__, self.value(item.__closure__)
        if isinstance(item, GeneratorType):
            return None if item.gi_frame is None else self.frame(item.gi_frame)
        if isinstance(item, CellType):
            return tuple(self.value(each) for each in _contents_of(item))
        if isinstance(item, partial):
            return tuple(self.value(each) for each in (item.func, item.args, item.keywords))
        if not hasattr(item, "__dict__"):
            raise TypeError(f"cannot tell what a {type(item).__name__} holds")
        return type(item).__name__, self.value(vars(item))

    def _snapshot(self, item: Snapshot) -> Hashable:
        try:
            epoch = item.epoch
        except ClosedError:
            return "closed"
        self._snapshots.setdefault(epoch, item)
        return "snapshot", list(self._snapshots).index(epoch)


def _contents_of(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _pages(transfer: Transfer) -> Hashable:
    return transfer.shared.tobytes(), transfer.private.tobytes()
