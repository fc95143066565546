"""How many distinct pages a guest dirties in an interval of a given length.

A page that is written at the rate 1/tau, independently of others, is dirty after t seconds with
the probability 1 - exp(-t/tau); one of an area that is written from end to end, over and over, in
tau seconds with min(t/tau, 1). A guest that behaves the same all the time is a mixture of both:

    D(t) = sum of v_j (1 - exp(-t/tau_j)) + w_j min(t/tau_j, 1),   v_j, w_j >= 0.

A hot working set is a class of small tau, which is full at once; a stream of new pages one of
large tau. The weights are found by non-negative least squares on a grid of tau; whatever they are,
D is concave and begins at 0. Below the shortest interval observed that leaves room between a
straight line to 0 and no decline at all: there the fit is a guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DirtyCurve", "Observation"]

Floats = NDArray[np.float64]

_REACH: Final = 30.0
"""How far the grid of tau goes below the shortest and above the longest interval, as a factor."""
_FINEST: Final = 1e-12
"""The least tau, as a part of the greatest: what bounds the grid, whatever the clock says."""
_PER_OCTAVE: Final = 2
_MODEL_ERROR: Final = 0.05
"""Relative: guests do not quite do what the model says, however many pages were counted."""
_DEFINITE: Final = 1e-12
_SMOOTHING: Final = 0.03
"""Of many mixtures that fit, the one of the least sum of squares: no class without evidence."""


@dataclass(frozen=True)
class Observation:
    """`pages` distinct pages were dirtied within `seconds`; `age` is how many rounds ago."""

    seconds: float
    pages: int
    age: int


class DirtyCurve:
    """D(t), fitted to observations; never more than `most` pages. Immutable."""

    def __init__(self, observations: Sequence[Observation], most: int) -> None:
        self.most = most
        self._tau = np.ones(1)
        self._weight = np.zeros(2)
        if any(each.pages for each in observations):
            self._fit(observations)

    def __call__(self, seconds: float) -> float:
        """Distinct pages dirtied in an interval of that length. O(1)."""
        return min(float(_full(np.array([seconds]), self._tau)[0] @ self._weight), self.most)

    def _fit(self, observations: Sequence[Observation]) -> None:
        seconds = np.array([each.seconds for each in observations])
        pages = np.array([each.pages for each in observations], dtype=float)
        # Each round back, an observation has half the weight: a guest may have changed since.
        doubt = np.sqrt(2.0) ** np.array([each.age for each in observations])
        high = seconds.max() * _REACH
        low = max(seconds.min() / _REACH, high * _FINEST)
        self._tau = np.geomspace(low, high, math.ceil(_PER_OCTAVE * math.log2(high / low)))
        # A column is scaled to what all of the pages would be, so that smoothing has no unit.
        scale = pages.max() / _full(np.array([seconds.max()]), self._tau)[0]
        columns = _full(seconds, self._tau) * scale
        expected = pages
        for _ in range(2):
            # The spread is that of the expected count: by its own a low count would seem sure.
            spread = np.sqrt((_MODEL_ERROR * expected) ** 2 + expected + 1.0) * doubt
            scaled = columns / spread[:, None]
            normal = scaled.T @ scaled
            # Beside counts of all magnitudes, smoothing is also what keeps this definite.
            smoothing = max(_SMOOTHING**2, _DEFINITE * float(normal.diagonal().max()))
            weights = _non_negative(
                normal + np.eye(len(scale)) * smoothing, scaled.T @ (pages / spread)
            )
            expected = columns @ weights
        self._weight = weights * scale


def _full(seconds: Floats, tau: Floats) -> Floats:
    """The share of each class (column) that is dirty after each interval (row): random, streams."""
    ratio = seconds[:, None] / tau
    return np.hstack([-np.expm1(-ratio), np.minimum(ratio, 1.0)])


def _non_negative(normal: Floats, target: Floats) -> Floats:
    """x >= 0 with the least x' normal x / 2 - target' x; `normal` is positive definite.

    Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23, algorithm NNLS, on the
    normal equations. It ends after three changes a column, with an x >= 0 in any case.
    """
    x = np.zeros(len(target))
    free = np.zeros(len(target), dtype=bool)
    enough = 1e-9 * float(np.abs(target).max())
    for _ in range(3 * len(target)):
        gain = np.where(free, -np.inf, target - normal @ x)
        best = int(gain.argmax())
        if gain[best] <= enough:
            break
        free[best] = True
        trial = _solution(normal, target, free)
        while trial[free].min() <= 0.0:
            worse = free & (trial <= 0.0)
            step = float((x[worse] / np.maximum(x[worse] - trial[worse], 1e-300)).min())
            x += step * (trial - x)
            free &= x > 1e-12 * x.max(initial=0.0)
            x[~free] = 0.0
            if not free.any():
                return x
            trial = _solution(normal, target, free)
        x = trial
    return x


def _solution(normal: Floats, target: Floats, free: NDArray[np.bool_]) -> Floats:
    x = np.zeros(len(free))
    x[free] = np.linalg.solve(normal[np.ix_(free, free)], target[free])
    return x
