# tier: model
"""SharedPages against sorted ranges, with snapshots held and dropped and dirty pages in flight."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import seed as seeded
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import (
    GFN_LIMIT,
    SEAMS,
    Memory,
    Ranges,
    Tracker,
    bitmap,
    canonical,
    coalesce,
    difference,
    events,
    intersection,
    ranges,
    ring,
    size,
    union,
)

from pysharedpages import DirtyLog, GuestMemory, Harvest, RangeError, SharedPages, Snapshot

GFNS = st.builds(
    lambda seam, offset: min(max(seam + offset, 0), GFN_LIMIT - 1),
    st.sampled_from((0, *SEAMS)),
    st.integers(-6, 6),
)

Span = tuple[int, int]
SPANS: st.SearchStrategy[Span] = st.one_of(
    st.tuples(GFNS, st.integers(0, 5)).map(
        lambda pair: (pair[0], min(pair[1], GFN_LIMIT - pair[0]))
    ),
    st.tuples(GFNS, GFNS).map(lambda pair: (min(pair), max(pair) - min(pair))),
)
"""(start, npages): short ones, and ones that reach from one seam to another."""

EVENTS = st.lists(
    st.tuples(SPANS, st.booleans()).map(lambda pair: (*pair[0], pair[1])), max_size=12
)

MEMORY = Memory({0: (2**12 - 5, 300), 4: (2**32 - 70, 140), 1 << 16: (2**12 + 30, 100)})
OFFSETS = st.lists(st.integers(0, 99), max_size=8)


@dataclass
class Held:
    """A snapshot with the ranges and the epoch it must have."""

    snap: Snapshot
    shared: Ranges
    epoch: int


@dataclass
class Taken:
    """A harvest with the ranges it must hold."""

    harvest: Harvest
    dirty: Ranges


class Trackers(RuleBasedStateMachine):
    """One tracker and one dirty log beside their models, and what is held of both."""

    engine = "auto"
    held = Bundle("held")
    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.pages = SharedPages(engine=self.engine)
        self.model = Tracker()
        self.log = DirtyLog(GuestMemory(list(MEMORY.entries())))
        self.dirty: Ranges = []
        self.live = 0

    @initialize(shared=st.booleans())
    def begin(self, shared: bool) -> None:
        self.pages.close()
        self.pages = SharedPages(initial="shared" if shared else "private", engine=self.engine)
        self.model.shared = [(0, GFN_LIMIT)] if shared else []

    @rule(span=SPANS)
    def share(self, span: Span) -> None:
        assert self.pages.share(*span) == size(self.model.convert(*span, True))

    @rule(span=SPANS)
    def unshare(self, span: Span) -> None:
        assert self.pages.unshare(*span) == size(self.model.convert(*span, False))

    @rule(span=SPANS, shared=st.booleans())
    def convert(self, span: Span, shared: bool) -> None:
        assert canonical(self.pages.convert(*span, shared)) == self.model.convert(*span, shared)

    @rule(batch=EVENTS)
    def apply(self, batch: list[tuple[int, int, bool]]) -> None:
        assert self.pages.apply(events(*batch)) == self.model.apply(batch)

    @rule(batch=EVENTS, beyond=st.integers(1, 100))
    def apply_and_fail(self, batch: list[tuple[int, int, bool]], beyond: int) -> None:
        with pytest.raises(RangeError):
            self.pages.apply(events(*batch, (GFN_LIMIT - 1, beyond + 1, True)))

    @rule(spans=st.lists(SPANS, max_size=6))
    def set_list(self, spans: list[Span]) -> None:
        new = coalesce((start, start + npages) for start, npages in spans)
        assert self.pages.set_list(ranges(*new)) == size(self.model.replace(new))

    @rule(shared=st.booleans())
    def reset(self, shared: bool) -> None:
        new = [(0, GFN_LIMIT)] if shared else []
        assert self.pages.reset("shared" if shared else "private") == size(self.model.replace(new))

    @rule(target=held, copies=st.integers(1, 2))
    def snapshot(self, copies: int) -> Held | object:
        self.live += copies
        return multiple(
            *(
                Held(self.pages.snapshot(), self.model.shared, self.model.epoch)
                for _ in range(copies)
            )
        )

    @rule()
    def latest(self) -> None:
        assert self.pages.latest().epoch <= self.model.epoch

    @rule(one=held, gfn=GFNS)
    def read(self, one: Held, gfn: int) -> None:
        assert canonical(one.snap.ranges()) == one.shared
        assert one.snap.epoch == one.epoch
        assert len(one.snap) == size(one.shared)
        assert (gfn in one.snap) == bool(intersection(one.shared, [(gfn, gfn + 1)]))
        assert one.snap.rank(gfn) == size(intersection(one.shared, [(0, gfn)] if gfn else []))

    @rule(one=held, other=held)
    def converted_since(self, one: Held, other: Held) -> None:
        older, newer = sorted((one, other), key=lambda held: held.epoch)
        converted = canonical(newer.snap.converted_since(older.snap).ranges())
        assert converted == self.model.converted(older.epoch, newer.epoch)
        if older.epoch < newer.epoch:
            with pytest.raises(ValueError, match=str(newer.epoch)):
                older.snap.converted_since(newer.snap)

    @rule(one=consumes(held), close=st.booleans())
    def drop(self, one: Held, close: bool) -> None:
        assert canonical(one.snap.ranges()) == one.shared
        self.live -= 1
        if close:
            one.snap.close()
        # hypothesis keeps consumed values to print them.
        del one.snap

    @rule(slot=st.sampled_from(sorted(MEMORY.slots)), offsets=OFFSETS)
    def dirty_bitmap(self, slot: int, offsets: list[int]) -> None:
        self.log.add_bitmap(slot, bitmap(MEMORY.slots[slot][1], offsets))
        self.reported(slot, offsets)

    @rule(slot=st.sampled_from(sorted(MEMORY.slots)), offsets=OFFSETS)
    def dirty_ring(self, slot: int, offsets: list[int]) -> None:
        self.log.add_ring(ring(*((slot, offset) for offset in offsets)))
        self.reported(slot, offsets)

    @rule(slot=st.sampled_from(sorted(MEMORY.slots)), offsets=OFFSETS)
    def dirty_pages(self, slot: int, offsets: list[int]) -> None:
        self.log.add_pages(
            np.array([MEMORY.slots[slot][0] + offset for offset in offsets], dtype=np.uint64)
        )
        self.reported(slot, offsets)

    @rule(slot=st.sampled_from(sorted(MEMORY.slots)), offsets=OFFSETS)
    def dirty_in_place(self, slot: int, offsets: list[int]) -> None:
        buffer = np.frombuffer(memoryview(self.log.bitmap_buffer(slot)), dtype=np.uint8)
        buffer[:] = bitmap(MEMORY.slots[slot][1], offsets)
        self.reported(slot, offsets)

    def reported(self, slot: int, offsets: list[int]) -> None:
        """Note what the log was told."""
        self.dirty = coalesce(
            [*self.dirty, *((gfn, gfn + 1) for gfn in MEMORY.gfns(slot, offsets))]
        )

    @rule(target=taken)
    def take(self) -> Taken:
        out, self.dirty = self.dirty, []
        return Taken(self.log.take(), out)

    @rule(one=consumes(taken))
    def commit(self, one: Taken) -> None:
        one.harvest.commit()

    @rule(one=consumes(taken))
    def abort(self, one: Taken) -> None:
        one.harvest.abort()
        self.dirty = union(self.dirty, one.dirty)

    @rule(one=consumes(taken), fail=st.booleans())
    def transfer(self, one: Taken, fail: bool) -> None:
        try:
            with one.harvest:
                if fail:
                    raise ConnectionError
        except ConnectionError:
            self.dirty = union(self.dirty, one.dirty)

    @rule(one=held, other=held, harvest=taken, given=st.booleans())
    def merge_a_harvest(self, one: Held, other: Held, harvest: Taken, given: bool) -> None:
        older, newer = sorted((one, other), key=lambda held: held.epoch)
        self.check_merge(newer, older if given else None, harvest.harvest, harvest.dirty)

    @rule(one=held, other=held, given=st.booleans())
    def merge_the_log(self, one: Held, other: Held, given: bool) -> None:
        older, newer = sorted((one, other), key=lambda held: held.epoch)
        self.check_merge(newer, older if given else None, self.log, self.dirty)

    def check_merge(
        self, at: Held, since: Held | None, dirty: Harvest | DirtyLog, reported: Ranges
    ) -> None:
        """Compare a merge with the formula on ranges."""
        converted: Ranges = []
        if since is not None:
            ram = coalesce((gfn, gfn + npages) for gfn, npages in MEMORY.slots.values())
            converted = intersection(self.model.converted(since.epoch, at.epoch), ram)
        send = union(reported, converted)
        transfer = at.snap.merge(dirty, None if since is None else since.snap)
        assert canonical(transfer.shared) == intersection(send, at.shared)
        assert canonical(transfer.private) == difference(send, at.shared)
        assert canonical(transfer.converted.ranges()) == converted
        assert transfer.epoch == at.epoch

    @invariant()
    def the_live_state_is_the_model(self) -> None:
        assert len(self.pages) == size(self.model.shared)
        assert self.pages.epoch == self.model.epoch

    @precondition(lambda self: self.live == 0)
    @rule()
    def rest(self) -> None:
        # A snapshot publishes the open version, so that the version before it goes too.
        self.pages.snapshot().close()
        stats = self.pages.stats()
        assert stats["nodes"] == stats["live_nodes"]

    @rule()
    def get_list(self) -> None:
        assert canonical(self.pages.get_list()) == self.model.shared

    def teardown(self) -> None:
        self.pages.close()


def test_trackers(engine: str, seed: int) -> None:
    machine = type("Machine", (Trackers,), {"engine": engine})
    run_state_machine_as_test(seeded(seed)(machine))
