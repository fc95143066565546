"""Guests whose migrations are forecast: twenty by name, and as many more as are asked for.

Pages are 4 KiB: the private path of most guests carries 76,294 of them a second, the shared one
four times that, and the first round takes three to four seconds. Rates are high enough for the
downtimes to be those of hundreds of writes: of a few no forecast could be right but by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from forecast_simulation import Behaviour, Conversions, Phases, Random, Scenario, Stream

GIB = 1 << 18
SHARED = (GIB - 40_000, GIB - 8_000)
"""A bounce buffer, near the end of memory."""


def _named(
    name: str,
    behaviours: Callable[[], Iterable[Behaviour]],
    downtime: float,
    *,
    shared_bps: float = 10e9,
    private_bps: float = 2.5e9,
    npages: int = GIB,
    parallel: bool = False,
) -> Scenario:
    seed = sum(map(ord, name))
    return Scenario(
        name, npages, (SHARED,), behaviours, shared_bps, private_bps, downtime, seed, parallel
    )


NAMED = [
    _named("even writes", lambda: [Random(0, 200_000, 30_000)], 0.03),
    _named("many even writes", lambda: [Random(0, 200_000, 60_000)], 0.3),
    _named("zipf", lambda: [Random(0, 1 << 17, 400_000, 1.0)], 0.15),
    _named("flat zipf", lambda: [Random(0, 200_000, 80_000, 0.7)], 0.2),
    _named("steep zipf", lambda: [Random(0, 200_000, 300_000, 1.3)], 0.1),
    _named("hot set", lambda: [Random(500, 4096, 200_000)], 0.04),
    _named(
        "hot set and stream", lambda: [Random(0, 2000, 90_000), Stream(9000, 90_000, 30_000)], 0.1
    ),
    _named(
        "hot set and cold", lambda: [Random(0, 3000, 50_000), Random(5000, 150_000, 20_000)], 0.06
    ),
    _named("stream over and over", lambda: [Stream(10_000, 60_000, 50_000)], 0.2),
    _named("stream beyond the link", lambda: [Stream(10_000, 150_000, 90_000)], 0.3),
    _named("writes beyond the link", lambda: [Random(0, 1 << 17, 120_000)], 0.3),
    _named(
        "bounce buffer",
        lambda: [Stream(SHARED[0], 16_000, 150_000), Random(0, 50_000, 20_000)],
        0.05,
    ),
    _named(
        "shared beyond the link",
        lambda: [Stream(SHARED[0], 30_000, 50_000), Random(0, 50_000, 5_000)],
        0.3,
        shared_bps=1e9,
    ),
    _named(
        "conversions one by one",
        lambda: [Conversions(0, 100_000, 1, 2_000), Random(100_000, 50_000, 20_000)],
        0.04,
    ),
    _named(
        "conversions in bursts",
        lambda: [Conversions(0, 64_000, 8, 1_600), Random(100_000, 50_000, 20_000)],
        0.05,
    ),
    _named(
        "conversions alone",
        lambda: [Conversions(0, 160_000, 4, 6_400, written=False)],
        0.04,
    ),
    _named("short phases", lambda: [Phases(Random(0, 40_000, 90_000), 0.008, 0.004)], 0.1),
    _named(
        "phases and zipf",
        lambda: [Phases(Stream(0, 80_000, 40_000), 0.01, 0.006), Random(90_000, 50_000, 99_000, 1)],
        0.15,
    ),
    _named(
        "both paths at once",
        lambda: [Stream(SHARED[0], 30_000, 120_000), Random(0, 150_000, 40_000)],
        0.08,
        parallel=True,
        shared_bps=5e9,
    ),
    _named(
        "all together",
        lambda: [
            Random(0, 150_000, 150_000, 1.0),
            Stream(150_000, 50_000, 9_000),
            Stream(SHARED[0], 16_000, 60_000),
            Conversions(200_000, 20_000, 8, 300),
            Phases(Random(100_000, 100_000, 9_000), 0.01, 0.005),
        ],
        0.1,
        npages=2 * GIB,
        private_bps=5e9,
        shared_bps=25e9,
    ),
]


def drawn(seed: int) -> Scenario:
    """A guest at random: one to four behaviours, of a tenth to one and a half times the link."""
    rng = np.random.default_rng(seed)
    npages = int(rng.choice([1 << 16, 1 << 17, 1 << 18]))
    size = int(npages * rng.uniform(0.03, 0.3))
    start = int(rng.integers(0, npages - size))
    private = npages / rng.uniform(2, 10)
    shared = private * float(rng.choice([1, 2, 5, 10]))
    rest = (0, start) if start > npages - start - size else (start + size, npages)
    load = rng.uniform(0.1, 1.5)
    makers = []
    for share in rng.dirichlet(np.ones(int(rng.integers(1, 5)))):
        is_shared = rng.random() < 0.3
        low, high = (start, start + size) if is_shared else rest
        area = int(np.clip((high - low) * 10 ** rng.uniform(-2, 0), 64, high - low))
        first = int(rng.integers(low, high - area + 1))
        makers.append(
            _behaviour(rng, first, area, load * share * (shared if is_shared else private))
        )
    return Scenario(
        f"drawn {seed}",
        npages,
        ((start, start + size),),
        lambda: [make() for make in makers],
        shared * 32768,
        private * 32768,
        float(rng.choice([0.05, 0.1, 0.2, 0.3, 0.5])),
        seed,
        parallel=bool(rng.integers(2)),
    )


def _behaviour(
    rng: np.random.Generator, first: int, area: int, rate: float
) -> Callable[[], Behaviour]:
    match int(rng.integers(6)):
        case 0:
            return lambda: Random(first, area, rate)
        case 1:
            skew = rng.uniform(0.6, 1.4)
            return lambda: Random(first, area, rate * 3, skew)
        case 2:
            return lambda: Random(first, max(16, area // 10), rate * 10)
        case 3:
            return lambda: Stream(first, area, rate)
        case 4:
            size, written = int(rng.choice([1, 8, 16])), bool(rng.integers(2))
            return lambda: Conversions(first, area, size, min(rate / 2 / size, 3000), written)
        case _:
            period, busy = rng.uniform(0.01, 0.2), rng.uniform(0.3, 0.9)
            return lambda: Phases(Random(first, area, rate), period, period * busy)
