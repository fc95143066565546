# tier: model, unit
"""How often pages flipped, and how conversions went over time, against counts made one by one."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from pysharedpages.abi import traces
from pysharedpages.replay.flips import Flips
from pysharedpages.replay.timeline import Timeline

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))


def test_flips_are_swept_together(rng: np.random.Generator) -> None:
    flips = Flips()
    counts: Counter[int] = Counter()
    for _ in range(round(200 * SCALE) + 10):
        starts = rng.integers(0, 500, rng.integers(0, 2_000))
        ranges = np.stack((starts, starts + rng.integers(1, 5, len(starts))), axis=1)
        flips.add(ranges)
        for start, stop in ranges.tolist():
            counts.update(range(start, stop))
    found = {p: row.flips for row in flips.top(10_000) for p in range(row.start, row.stop)}
    assert found == dict(counts)


def points(seed: int, count: int) -> Iterator[tuple[int, int, bool, int]]:
    pick = random.Random(seed)
    time = 0
    for line in range(1, count + 1):
        time += pick.randrange(3)
        yield time, line, pick.random() < 0.5, pick.randrange(1000)


@pytest.mark.parametrize("timed", [True, False])
def test_timeline_against_sums(timed: bool) -> None:
    rows = list(points(SEED, 5_000))
    timeline = Timeline()
    for part in range(0, len(rows), 700):
        time, line, changed, shared = map(np.array, zip(*rows[part : part + 700], strict=True))
        if not timed:
            time[0] = traces.NO_TIME
        timeline.add(time, line, changed, shared)
    strip = timeline.strip(60)
    assert strip is not None
    where = [row[0 if timed else 1] for row in rows]
    assert (strip.axis, strip.first, strip.last) == (
        "time" if timed else "line",
        where[0],
        where[-1],
    )
    width = -(-(where[-1] - where[0] + 1) // 60)
    columns = [(place - where[0]) // width for place in where]
    for column in range(60):
        within = [row for row, at in zip(rows, columns, strict=True) if at == column]
        upto = [row for row, at in zip(rows, columns, strict=True) if at <= column]
        assert strip.conversions[column] == sum(row[2] for row in within)
        assert strip.shared[column] == upto[-1][3]


def test_a_timeline_of_two_clocks_goes_by_lines() -> None:
    timeline = Timeline()
    time = np.array([10**18, 5 * 10**9, 10**18 + 1, 6 * 10**9])
    timeline.add(time, np.arange(1, 5), np.ones(4, bool), np.arange(4))
    strip = timeline.strip(4)
    assert strip is not None
    assert strip == ("line", 1, 4, [1, 1, 1, 1], [0, 1, 2, 3])


def test_a_timeline_too_long_is_halved() -> None:
    timeline = Timeline()
    step, total = (1 << 18) - 1, 0
    for part in range(12):
        line = np.arange(part * step, (part + 1) * step)
        timeline.add(line, line, np.ones(step, bool), line)
        total += step
    strip = timeline.strip(60)
    assert strip is not None
    assert sum(strip.conversions) == total
    assert strip.shared[-1] == strip.last == total - 1
    assert max(strip.conversions) - min(strip.conversions) <= total // 60
