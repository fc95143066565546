# tier: differential
"""The benchmarks' rivals against the oracle: what they are compared with must be right itself.

Skipped where the library of the rivals is not built.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from model import (
    GFN_LIMIT,
    Range,
    Ranges,
    Tracker,
    bitmap,
    canonical,
    coalesce,
    difference,
    events,
    from_set,
    names,
    ranges,
)
from numpy.typing import NDArray

# --import-mode=importlib leaves sys.path alone: the rivals are found from here.
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import rivals
from rivals import AttrArray, EncBitmap, KvmList, QemuList, RmpTable, Split

if not rivals.library_path().is_file():
    pytest.skip(f"{rivals.library_path()} is not built", allow_module_level=True)

NPAGES = 2500
"""40 words, five lines of eight; the last word is a partial one."""

Mutable: TypeAlias = KvmList | QemuList | EncBitmap | AttrArray
Make: TypeAlias = Callable[[], Mutable]


def kvm_attributes() -> AttrArray:
    """An attribute array that a guest begins with: all of it private."""
    return AttrArray.load(NPAGES, ranges())


def batched_attributes() -> AttrArray:
    """The same, changed a node at a time."""
    return AttrArray.load(NPAGES, ranges(), batched=True)


TRACKERS: list[Make] = [
    KvmList,
    QemuList,
    lambda: EncBitmap(NPAGES),
    kvm_attributes,
    batched_attributes,
]
TRACKER_IDS = ["kvm", "qemu", "enc", "attr", "attr-batched"]


def loaded(shared: Ranges) -> list[Mutable]:
    """Every tracker, holding a shared set from the start."""
    kvm, qemu, enc = KvmList(), QemuList(), EncBitmap(NPAGES)
    for rival in (kvm, qemu, enc):
        rival.load(ranges(*shared))
    return [kvm, qemu, enc, AttrArray.load(NPAGES, ranges(*shared))]


def scene(rng: np.random.Generator, longest: int, chance: float) -> set[int]:
    """Pages below NPAGES in runs of up to `longest`, each taken with a chance."""
    pages: set[int] = set()
    at = 0
    while at < NPAGES:
        run = int(rng.integers(1, longest + 1))
        if rng.random() < chance:
            pages.update(range(at, min(at + run, NPAGES)))
        at += run
    return pages


def agrees(split: Split, dirty: Iterable[int], shared: set[int]) -> None:
    """A split is that of the oracle."""
    pages = set(dirty)
    assert canonical(split.shared) == from_set(pages & shared)
    assert canonical(split.private) == from_set(pages - shared)


DIRTY = [
    pytest.param(1, 0.0, id="empty"),
    pytest.param(1, 0.01, id="sparse"),
    pytest.param(1, 0.5, id="random"),
    pytest.param(90, 0.4, id="runs"),
    pytest.param(1, 1.0, id="all"),
]
SHARED = [
    pytest.param(1, 0.0, id="private"),
    pytest.param(1, 0.5, id="fragments"),
    pytest.param(150, 0.5, id="runs"),
    pytest.param(1, 1.0, id="shared"),
]


@pytest.mark.parametrize(("dirty_run", "dirty_chance"), DIRTY)
@pytest.mark.parametrize(("shared_run", "shared_chance"), SHARED)
def test_every_merge_is_the_oracles(
    rng: np.random.Generator,
    dirty_run: int,
    dirty_chance: float,
    shared_run: int,
    shared_chance: float,
) -> None:
    shared = scene(rng, shared_run, shared_chance)
    dirty = scene(rng, dirty_run, dirty_chance)
    data = bitmap(NPAGES, dirty)
    for rival in loaded(from_set(shared)):
        agrees(rival.merge(data), dirty, shared)
        agrees(rival.merge(data.view(np.uint64)), dirty, shared)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 512, 513, 1024])
def test_a_bitmap_of_every_length_splits(rng: np.random.Generator, size: int) -> None:
    shared = scene(rng, 70, 0.5)
    data = bitmap(size, range(size))
    for rival in loaded(from_set(shared)):
        agrees(rival.merge(data), range(size), shared)


@pytest.mark.parametrize("gap", [1, 2, 3, 5, 9, 17, 33, 65])
def test_the_sweep_finds_its_place_among_any_number_of_regions(gap: int) -> None:
    shared = set(range(0, NPAGES, 3))
    kvm = KvmList()
    kvm.load(ranges(*from_set(shared)))
    dirty = range(gap - 1, NPAGES, gap * 64)
    agrees(kvm.merge(bitmap(NPAGES, dirty)), dirty, shared)


@pytest.mark.parametrize("edge", [*range(447, 450), *range(510, 515), *range(1022, 1027)])
def test_a_status_that_flips_near_the_border_of_a_line_is_seen(edge: int) -> None:
    whole = range(NPAGES)
    flips = [set(range(edge)), {edge}, set(range(edge, NPAGES)), set(whole) - {edge}]
    for shared in flips:
        for rival in loaded(from_set(shared)):
            agrees(rival.merge(bitmap(NPAGES, whole)), whole, shared)


def conversions(rng: np.random.Generator, n: int) -> list[tuple[int, int, bool]]:
    """Random conversions, some empty, that often meet at borders of words and nodes."""
    drawn = []
    for _ in range(n):
        start = int(rng.integers(0, NPAGES))
        if rng.random() < 0.4:
            start = start // 64 * 64
        longest = NPAGES - start
        npages = int(rng.integers(0, min(longest, int(rng.choice([3, 64, 700]))) + 1))
        if rng.random() < 0.4:
            npages = min((start + npages) // 64 * 64 + 64 - start, longest)
        drawn.append((start, npages, bool(rng.random() < 0.5)))
    return drawn


@pytest.mark.parametrize("make", TRACKERS, ids=TRACKER_IDS)
def test_conversions_leave_what_the_oracle_has(
    rng: np.random.Generator, scale: float, make: Make
) -> None:
    whole = bitmap(NPAGES, range(NPAGES))
    for _ in range(max(1, round(10 * scale))):
        rival, oracle = make(), Tracker(NPAGES)
        for start, npages, shared in conversions(rng, 40):
            (rival.share if shared else rival.unshare)(start, npages)
            oracle.convert(start, npages, shared)
            if isinstance(rival, (KvmList, QemuList)):
                assert canonical(rival.ranges()) == oracle.shared
            split = rival.merge(whole)
            assert canonical(split.shared) == oracle.shared
            assert canonical(split.private) == difference([(0, NPAGES)], oracle.shared)


@pytest.mark.parametrize("make", TRACKERS, ids=TRACKER_IDS)
def test_a_batch_is_its_conversions_in_order(rng: np.random.Generator, make: Make) -> None:
    batch = conversions(rng, 200)
    rival, oracle = make(), Tracker(NPAGES)
    rival.apply(events(*batch))
    oracle.apply(batch)
    assert canonical(rival.merge(bitmap(NPAGES, range(NPAGES))).shared) == oracle.shared


@pytest.mark.parametrize("make", [KvmList, QemuList])
@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ([(10, 20)], (10, 2, False), [(12, 20)]),
        ([(10, 20)], (12, 3, False), [(10, 12), (15, 20)]),
        ([(10, 20)], (15, 5, False), [(10, 15)]),
        ([(10, 100)], (20, 10, True), [(10, 100)]),
        ([(0, 10), (20, 30)], (5, 20, True), [(0, 30)]),
        ([(0, 10), (20, 30), (40, 50)], (5, 40, False), [(0, 5), (45, 50)]),
        ([(0, 10), (20, 30)], (10, 10, True), [(0, 30)]),
        ([(0, 10), (20, 30)], (12, 5, False), [(0, 10), (20, 30)]),
        ([(2**52 - 4, 2**52)], (2**52 - 6, 2, True), [(2**52 - 6, 2**52)]),
    ],
)
def test_the_lists_have_lost_their_models_defects(
    make: type[KvmList] | type[QemuList],
    before: Ranges,
    change: tuple[int, int, bool],
    after: Ranges,
) -> None:
    rival = make()
    rival.load(ranges(*before))
    start, npages, shared = change
    (rival.share if shared else rival.unshare)(start, npages)
    assert canonical(rival.ranges()) == after


NODE = 32
"""Two links and two gfns; malloc rounds up."""
XA_NODE = 576


def test_a_list_costs_a_node_a_range() -> None:
    rival = KvmList()
    assert rival.nbytes == 0
    rival.load(ranges(*[(gfn, gfn + 1) for gfn in range(0, 200, 2)]))
    assert 100 * NODE <= rival.nbytes < 100 * 2 * NODE
    rival.unshare(0, 100)
    assert 50 * NODE <= rival.nbytes < 50 * 2 * NODE
    rival.load(ranges())
    assert rival.nbytes == 0


@pytest.mark.parametrize("limit", [1, 2, 7, 99, 100, 10**6])
def test_a_sample_of_look_ups_is_evenly_spread(limit: int) -> None:
    shared = {gfn for gfn in range(NPAGES) if gfn % 50 < 20}
    dirty = list(range(3, NPAGES, 25))
    rival = QemuList()
    rival.load(ranges(*from_set(shared)))
    sample = rival.sample(bitmap(NPAGES, dirty), limit)
    every = -(-len(dirty) // limit)
    agrees(Split(sample.shared, sample.private), dirty[::every], shared)
    assert sample.lookups == len(dirty[::every]) <= limit
    assert sample.ns_per_lookup > 0


def test_the_bitmap_costs_a_bit_a_page() -> None:
    assert NPAGES / 8 <= EncBitmap(NPAGES).nbytes < NPAGES / 8 + 64


@pytest.mark.parametrize("batched", [False, True])
def test_the_array_costs_a_node_for_64_pages_and_gives_it_back(batched: bool) -> None:
    rival = AttrArray(batched=batched)
    assert rival.nbytes == 0
    rival.unshare(100)
    assert 2 * XA_NODE <= rival.nbytes < 3 * XA_NODE
    rival.unshare(0, 4096)
    assert 65 * XA_NODE <= rival.nbytes < 68 * XA_NODE
    rival.share(64, 4032)
    assert 2 * XA_NODE <= rival.nbytes < 3 * XA_NODE
    rival.share(0, 64)
    assert rival.nbytes == 0


@pytest.mark.parametrize("batched", [False, True])
def test_the_array_reaches_every_gfn(batched: bool) -> None:
    rival = AttrArray(batched=batched)
    edges = [0, 63, 64, 2**16, 2**32 - 1, 2**32, GFN_LIMIT - 1]
    for gfn in edges:
        rival.unshare(gfn)
    for gfn in edges:
        assert rival.is_private(gfn)
        assert not rival.is_private(gfn ^ 2)
    rival.share(0, GFN_LIMIT)
    assert rival.nbytes == 0
    assert not any(rival.is_private(gfn) for gfn in edges)


HOST = 4096
SCATTER = [0, 1, 7, 64, 512]


def private_words(npages: int, shared: set[int]) -> NDArray[np.uint64]:
    """The bitmap of a guest's private pages."""
    return bitmap(npages, set(range(npages)) - shared).view(np.uint64)


@pytest.mark.parametrize("scatter", SCATTER)
@pytest.mark.parametrize("huge", [False, True])
def test_a_walk_finds_the_pages_of_one_guest(
    rng: np.random.Generator, scatter: int, huge: bool
) -> None:
    shared = scene(rng, 900, 0.5)
    other = set(range(0, 1500, 2))
    table = RmpTable(HOST, scatter=scatter)
    table.place(5, NPAGES, ranges(*from_set(shared)), huge=huge)
    table.place(1023, 1500, ranges(*from_set(other)), first_pfn=2560, huge=huge)
    assert (table.walk(5, NPAGES) == private_words(NPAGES, shared)).all()
    assert (table.walk(1023, 1500) == private_words(1500, other)).all()
    assert not table.walk(6, NPAGES).any()
    dirty = scene(rng, 5, 0.3)
    agrees(table.merge(5, bitmap(NPAGES, dirty)), dirty, shared)


def test_a_walk_stops_at_the_end_of_the_bitmap() -> None:
    for huge in (False, True):
        table = RmpTable(HOST)
        table.place(1, HOST, ranges((3, 5)), huge=huge)
        assert (table.walk(1, 640) == private_words(640, {3, 4})).all()
        assert table.walk(1, 0).size == 0


def test_the_table_is_16_kib_and_16_bytes_a_page() -> None:
    assert RmpTable(HOST).nbytes == 0x4000 + 16 * HOST
    assert RmpTable(1).nbytes == 0x4000 + 16


@pytest.mark.parametrize("nwords", [0, 1, 15, 16, 17, 100])
def test_a_read_pass_sees_every_word(nwords: int) -> None:
    assert rivals.read_pass(np.zeros(nwords, np.uint64)) == 0
    for word in range(nwords):
        data = np.zeros(nwords, np.uint64)
        data[word] = 1 << 63 | 5
        assert rivals.read_pass(data) == 1 << 63 | 5


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (3000, 2)])
def test_a_copy_is_equal_and_its_own(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    original = rng.integers(0, 2**60, shape).astype(np.uint64)
    kept = original.copy()
    copied = rivals.copy(original)
    original[:] = 7
    assert copied.dtype == kept.dtype
    assert (copied == kept).all()


def test_the_heap_counts_what_is_held_and_what_is_freed() -> None:
    gc.collect()
    before = rivals.heap_bytes()
    block = rivals.copy(np.zeros(1 << 20, np.uint64))
    held = rivals.heap_bytes()
    assert held - before >= block.nbytes
    del block
    gc.collect()
    assert rivals.heap_bytes() <= held - (1 << 23)


def test_what_came_out_outlives_its_rival() -> None:
    rival = KvmList()
    rival.load(ranges((1, 3), (9, 12)))
    split, exported = rival.merge(bitmap(64, range(64))), rival.ranges()
    del rival
    gc.collect()
    assert canonical(split.shared) == canonical(exported) == [(1, 3), (9, 12)]


@pytest.mark.parametrize(
    "wrong", [[(5, 5)], [(5, 3)], [(9, 12), (1, 3)], [(1, 3), (3, 5)], [(1, GFN_LIMIT + 1)]]
)
def test_ranges_that_are_not_canonical_are_refused(wrong: list[Range]) -> None:
    assert coalesce(wrong) != wrong or wrong[-1][1] > GFN_LIMIT
    rival = KvmList()
    with pytest.raises(ValueError, match="sorted, disjoint, coalesced"):
        rival.load(ranges(*wrong))
    assert canonical(rival.ranges()) == []


def test_what_lies_outside_is_refused() -> None:
    enc = EncBitmap(NPAGES)
    with pytest.raises(ValueError) as error:
        enc.share(NPAGES - 1, 2)
    names(error.value, [NPAGES + 1], [NPAGES])
    with pytest.raises(ValueError) as error:
        enc.apply(events((NPAGES, 1, True)))
    names(error.value, [NPAGES])
    with pytest.raises(ValueError) as error:
        enc.merge(bitmap(NPAGES + 64, ()))
    names(error.value, [41], [NPAGES])
    assert canonical(enc.merge(bitmap(NPAGES, range(NPAGES))).shared) == []
    table = RmpTable(HOST)
    with pytest.raises(ValueError) as error:
        table.place(1, HOST, ranges(), first_pfn=1)
    names(error.value, [HOST + 1], [HOST])
    with pytest.raises(ValueError) as error:
        table.walk(1024, HOST)
    names(error.value, [1024], [1023])


def test_a_bitmap_of_another_type_is_refused() -> None:
    rival = KvmList()
    with pytest.raises(TypeError, match="uint8 or uint64"):
        rival.merge(np.zeros(8, np.uint32))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="contiguous"):
        rival.merge(np.zeros(16, np.uint64)[::2])
    with pytest.raises(ValueError, match="7 bytes"):
        rival.merge(np.zeros(7, np.uint8))


def test_a_library_that_is_not_built_says_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import librivals

    monkeypatch.setenv("SP_RIVALS", str(tmp_path / "none.so"))
    librivals._functions.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"none\.so is not built: run `make"):
        rivals.heap_bytes()
    librivals._functions.cache_clear()
