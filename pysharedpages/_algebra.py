"""Answers about many sets at once, made of answers about two: pure functions, safe in any thread.

The first set of a list is the one that was asked.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Protocol, Self, TypeVar

__all__ = ["difference", "intersection", "ratio", "symmetric_difference", "union"]


class Set(Protocol):
    """What is asked of a set; PageSet has it."""

    def __len__(self) -> int: ...
    def __or__(self, other: Self, /) -> Self: ...
    def __and__(self, other: Self, /) -> Self: ...
    def __sub__(self, other: Self, /) -> Self: ...
    def __xor__(self, other: Self, /) -> Self: ...


SetT = TypeVar("SetT", bound=Set)


def union(sets: list[SetT]) -> SetT:
    """What any of the sets has."""
    return _by_pairs(operator.or_, sets)


def symmetric_difference(sets: list[SetT]) -> SetT:
    """What an odd number of the sets has."""
    return _by_pairs(operator.xor, sets)


def intersection(sets: list[SetT]) -> SetT:
    """What all of the sets have; the smallest first, as no step is larger than what it has left."""
    return reduce(operator.and_, sorted(sets, key=len))


def difference(sets: list[SetT]) -> SetT:
    """What the first of the sets has and no other."""
    return reduce(operator.sub, sets)


def ratio(part: int, whole: int) -> float:
    """part / whole; NaN where both are 0."""
    return part / whole if whole else math.nan


def _by_pairs(operation: Callable[[SetT, SetT], SetT], sets: list[SetT]) -> SetT:
    """Neighbours are joined, and the results again: each page is read log2(n) times, not n."""
    while len(sets) > 1:
        rest = sets[-1:] if len(sets) % 2 else []
        sets = [operation(a, b) for a, b in zip(sets[::2], sets[1::2], strict=False)] + rest
    return sets[0]
