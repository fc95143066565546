# tier: unit
"""engine="auto": the smaller of the two holds the set, and nobody who holds a snapshot notices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from model import canonical, events
from numpy.typing import NDArray

from pysharedpages import PageSet, SharedPages

Ranges = NDArray[np.uint64]

EVERY_OTHER = np.arange(40_000, dtype=np.uint64).reshape(-1, 2)
FAR_APART = np.arange(1500, dtype=np.uint64).reshape(-1, 1) * np.uint64(2**21) + np.array(
    [[0, 3]], np.uint64
)


def engine_of(pages: SharedPages) -> str:
    return str(pages.stats()["engine"])


def apply_all(pages: SharedPages, table: Ranges, shared: bool) -> None:
    """Converts the ranges, some thousand in a call."""
    triples = [(start, stop - start, shared) for start, stop in table.tolist()]
    for at in range(0, len(triples), 4000):
        pages.apply(events(*triples[at : at + 4000]))


def set_all(pages: SharedPages, table: Ranges, shared: bool) -> None:
    pages.set_list(table if shared else np.empty((0, 2), np.uint64))


WAYS = pytest.mark.parametrize("convert", [apply_all, set_all])


def test_a_new_tracker_holds_runs() -> None:
    with SharedPages() as pages:
        assert engine_of(pages) == "interval"
        assert pages.share(5, 3) == 3
        assert engine_of(pages) == "interval"


@WAYS
def test_snapshots_outlive_a_change_of_engine(
    convert: Callable[[SharedPages, Ranges, bool], None],
) -> None:
    with SharedPages() as pages:
        convert(pages, FAR_APART, True)
        sparse = pages.snapshot()
        assert engine_of(pages) == "interval"
        convert(pages, FAR_APART, False)
        convert(pages, EVERY_OTHER, True)
        dense = pages.snapshot()
        assert engine_of(pages) == "roaring"
        assert sparse.stats()["leaves"]["narrow"] and not dense.stats()["leaves"]["narrow"]
        convert(pages, EVERY_OTHER, False)
        convert(pages, FAR_APART, True)
        again = pages.snapshot()
        assert engine_of(pages) == "interval"
        assert again == sparse and hash(again) == hash(sparse) and again != dense
        assert np.array_equal(sparse.ranges(), FAR_APART)
        assert np.array_equal(dense.ranges(), EVERY_OTHER)
        both = PageSet.from_ranges(np.concatenate([FAR_APART, EVERY_OTHER]))
        assert dense.converted_since(sparse) | again.converted_since(dense) == both
        assert again.converted_since(sparse) == both
        before = pages.stats()["live_bytes"]
        del sparse, dense
        assert pages.stats()["live_bytes"] < before
        assert canonical(pages.get_list()) == canonical(again.ranges())


@pytest.mark.parametrize("seed", range(3))
def test_never_much_more_than_the_better_engine(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for spread in (2, 20, 300, 5000, 100_000):
        gaps = rng.integers(1, spread + 1, 6000, dtype=np.uint64)
        lengths = rng.integers(1, 17, 6000, dtype=np.uint64)
        starts = np.cumsum(gaps + lengths) - lengths
        table = np.stack([starts, starts + lengths], axis=1)
        used = {}
        for engine in ("roaring", "interval", "auto"):
            with SharedPages(engine=engine) as pages:
                apply_all(pages, table[rng.permutation(len(table))], True)
                used[engine] = pages.stats()["bytes"]
        assert used["auto"] <= 1.15 * min(used["roaring"], used["interval"]), (spread, used)
