# tier: unit
"""Sets of two engines that meet: every operation, in every mixture of engines."""

from __future__ import annotations

import operator as op
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from model import GFN_LIMIT, canonical, ranges
from numpy.typing import NDArray

from pysharedpages import DirtyLog, GuestMemory, PageSet, SharedPages

Ranges = NDArray[np.uint64]
Shape = tuple[str, str]

SHAPES: dict[str, Ranges] = {
    "empty": ranges(),
    "everything": ranges((0, GFN_LIMIT)),
    "few": ranges((3, 7), (10, 11), (20, 30)),
    "far": ranges((5, 25), (2**32 - 3, 2**32 + 3), (GFN_LIMIT - 1, GFN_LIMIT)),
    "many": np.arange(6000, dtype=np.uint64).reshape(-1, 2) * np.uint64(5),
    "half": np.arange(4, 3004, dtype=np.uint64).reshape(-1, 2) * np.uint64(7),
}
KINDS = list(product(("roaring", "interval", "auto"), ("snapshot", "set")))
OPERATIONS: dict[str, tuple[Callable[..., PageSet], Callable[[bool, bool], bool], str]] = {
    "or": (op.or_, lambda a, b: a or b, "union_count"),
    "and": (op.and_, lambda a, b: a and b, "intersection_count"),
    "sub": (op.sub, lambda a, b: a and not b, "difference_count"),
    "xor": (op.xor, lambda a, b: a != b, "symmetric_difference_count"),
}


def held(shape: Ranges, kind: Shape) -> PageSet:
    """These pages as a snapshot of a tracker of an engine, or as a set made of one."""
    engine, form = kind
    with SharedPages(engine=engine) as pages:
        pages.set_list(shape)
        snapshot = pages.snapshot()
    return snapshot if form == "snapshot" else snapshot & snapshot


def combined(left: Ranges, right: Ranges, truth: Callable[[bool, bool], bool]) -> list[Any]:
    """The ranges of left and right, combined page by page at each border."""
    borders = np.unique(np.concatenate([left.ravel(), right.ravel()])).tolist()
    pairs: list[list[int]] = []
    for start, stop in pairwise(borders):
        inside = [bool(np.any((t[:, 0] <= start) & (start < t[:, 1]))) for t in (left, right)]
        if truth(*inside):
            if pairs and pairs[-1][1] == start:
                pairs[-1][1] = stop
            else:
                pairs.append([start, stop])
    return [tuple(pair) for pair in pairs]


@pytest.mark.parametrize("names", list(product(SHAPES, SHAPES)), ids=lambda names: "-".join(names))
def test_every_operation_of_every_mixture(names: tuple[str, str]) -> None:
    left, right = (SHAPES[name] for name in names)
    wanted = {name: combined(left, right, truth) for name, (_, truth, _) in OPERATIONS.items()}
    for one, two in product(KINDS, KINDS):
        a, b = held(left, one), held(right, two)
        for name, (infix, _, counter) in OPERATIONS.items():
            result = infix(a, b)
            assert canonical(result.ranges()) == wanted[name], (name, one, two)
            assert len(result) == getattr(a, counter)(b)
        assert a.isdisjoint(b) == (not wanted["and"])
        assert (a == b) == (names[0] == names[1])
        assert (a <= b, a >= b) == (not wanted["sub"], len(b - a) == 0)
        assert (a < b, a > b) == (a <= b and a != b, a >= b and a != b)
        assert a != b or hash(a) == hash(b)


@pytest.mark.parametrize(
    "kinds", list(product(KINDS, KINDS)), ids=lambda kinds: "-".join(map("-".join, kinds))
)
def test_merges_and_lists_of_every_mixture(kinds: tuple[Shape, Shape]) -> None:
    shared, dirty = SHAPES["many"], SHAPES["half"]
    with SharedPages(engine=kinds[0][0]) as pages:
        pages.set_list(shared)
        before = pages.snapshot()
        pages.unshare(1, 2)
        pages.share(6, 3)
        after = pages.snapshot()
        memory = GuestMemory([(0, 0, 40000)])
        log = DirtyLog(memory)
        log.add_ranges(SHAPES["far"][:1])
        plain = after.merge(dirty, since=before, memory=memory)
        mixed = after.merge(held(dirty, kinds[1]), since=before, memory=memory)
        assert np.array_equal(plain.shared, mixed.shared)
        assert np.array_equal(plain.private, mixed.private)
        assert plain.shared_pages and plain.private_pages
        assert after.converted_since(before) == held(ranges((1, 3), (6, 9)), kinds[1])
        both = after.merge(log.take(), since=before)
        assert both.converted == after.converted_since(before)
        assert pages.set_list(held(dirty, kinds[1]).ranges()) > 0
        assert pages.snapshot() == held(dirty, kinds[1])
