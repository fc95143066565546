# tier: model
"""Forecasts against simulated migrations that are then carried out, stopped now and when foretold.

A forecast is asked for after the third round (or as said), of guests whose behaviours it is not
told, and compared with the seconds that the final rounds really take: once with the guest stopped
there and then, and once in a second run that goes on for as many live rounds as were foretold; or
for forty where it says that no number of them will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from forecast_scenarios import NAMED, drawn
from forecast_simulation import Between, Random, Scenario, Stream, World

from pysharedpages.migration import Forecast

WITHIN = 0.15


def carried_out(
    scenario: Scenario, after: int, *, sampled: bool = True
) -> tuple[Forecast, float, float]:
    """The forecast after some rounds, and what the two downtimes that it foretells really are."""
    world = World(scenario, sampled=sampled)
    world.go_on(after)
    forecast = world.forecast()
    now = world.stop()
    if forecast.rounds == 0:
        return forecast, now, now
    world = World(scenario, sampled=sampled)
    world.go_on(after + (40 if forecast.rounds is None else forecast.rounds))
    return forecast, now, world.stop()


def foretold(forecast: Forecast) -> tuple[float, float]:
    """The downtime now, and after the rounds to come."""
    assert forecast.downtime_now is not None and forecast.downtime_least is not None
    if forecast.downtime_then is None:
        return forecast.downtime_now, forecast.downtime_least
    return forecast.downtime_now, forecast.downtime_then


def verdicts(scenario: Scenario, rounds: Sequence[int], *, sampled: bool = True) -> list[str]:
    """What one migration is said to do after each of so many rounds."""
    world = World(scenario, sampled=sampled)
    found, done = [], 0
    for count in rounds:
        world.go_on(count - done)
        done = count
        found.append(str(world.forecast().verdict))
    return found


@pytest.mark.parametrize("scenario", NAMED, ids=[each.name for each in NAMED])
def test_the_downtime_is_foretold(scenario: Scenario) -> None:
    forecast, now, then = carried_out(scenario, 3)
    assert not forecast.is_extrapolated
    assert foretold(forecast) == pytest.approx((now, then), rel=WITHIN)
    assert (forecast.verdict == "stalled") is (then > scenario.downtime * (1 + WITHIN))


def test_most_are_foretold_some_rounds_ahead() -> None:
    ahead = []
    for scenario in NAMED:
        world = World(scenario)
        world.go_on(3)
        ahead.append(world.forecast().rounds)
    assert len(ahead) == 20
    assert sum(rounds is None for rounds in ahead) == 5
    assert sum(rounds is not None and rounds >= 2 for rounds in ahead) >= 8


def test_rounds_alone_foretell_what_stopping_now_costs() -> None:
    errors = []
    for scenario in NAMED:
        world = World(scenario, sampled=False)
        world.go_on(4)
        now = world.forecast().downtime_now
        assert now is not None
        errors.append(abs(now / world.stop() - 1))
    assert np.quantile(errors, 0.8) <= WITHIN
    assert max(errors) <= 2 * WITHIN


def test_guests_drawn_at_random(rng: np.random.Generator, scale: float) -> None:
    errors = []
    for _ in range(max(10, round(40 * scale))):
        scenario = drawn(int(rng.integers(1 << 40)))
        forecast, *happened = carried_out(scenario, 3)
        for said, was in zip(foretold(forecast), happened, strict=True):
            # Far below what is asked for, a downtime is that of a handful of pages.
            if was > scenario.downtime / 5:
                errors.append(abs(said / was - 1))
    quantiles = {
        each: round(float(np.quantile(errors, each)), 3) for each in (0.5, 0.8, 0.9, 0.95, 1)
    }
    print(f"{len(errors)} downtimes, error by quantile: {quantiles}")
    assert quantiles[0.5] <= WITHIN / 2
    assert quantiles[0.8] <= WITHIN


STALLING = [each for each in NAMED if each.name.endswith("beyond the link")]


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "by rounds alone"])
@pytest.mark.parametrize("scenario", STALLING, ids=[each.name for each in STALLING])
def test_a_guest_beyond_the_link_is_stalled(scenario: Scenario, sampled: bool) -> None:
    found = verdicts(scenario, [3, 4, 5, 8], sampled=sampled)
    assert "converging" not in found and "ready" not in found
    assert found[-1] == "stalled"
    if sampled:
        assert found == ["stalled"] * 4


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "by rounds alone"])
@pytest.mark.parametrize("load", [0.6, 0.75, 0.85])
def test_a_guest_that_converges_slowly_is_not(load: float, sampled: bool) -> None:
    slow = partial(Stream, 0, 200_000, load * 76_294)
    scenario = dataclasses.replace(NAMED[0], name="slow", behaviours=lambda: [slow()], downtime=0.1)
    found = verdicts(scenario, range(3, 30), sampled=sampled)
    assert "stalled" not in found
    assert found[0] in ("converging", "unknown") and found[-1] == "ready"
    if sampled:
        assert "unknown" not in found


def test_a_guest_that_becomes_busy() -> None:
    calm, busy = partial(Random, 0, 150_000, 40_000), partial(Stream, 0, 200_000, 110_000)
    scenario = dataclasses.replace(
        NAMED[0], behaviours=lambda: [calm(), Between(busy(), 5.0, 1e9)], downtime=0.03
    )
    world = World(scenario)
    world.go_on(2)
    assert world.now < 5.0 and world.forecast().verdict == "converging"
    while world.now < 5.0:
        world.go_on(1)
    world.go_on(3)
    assert world.forecast().verdict == "stalled"


def test_a_guest_that_becomes_calm() -> None:
    calm, busy = partial(Random, 0, 150_000, 40_000), partial(Stream, 0, 200_000, 110_000)
    scenario = dataclasses.replace(
        NAMED[0], behaviours=lambda: [calm(), Between(busy(), 0.0, 10.0)], downtime=0.03
    )
    world = World(scenario)
    world.go_on(3)
    assert world.now < 10.0 and world.forecast().verdict == "stalled"
    while world.now < 10.0:
        world.go_on(1)
    world.go_on(3)
    assert world.forecast().verdict in ("converging", "ready")


def test_the_throttle_advised_is_enough_and_not_too_much() -> None:
    scenario = next(each for each in NAMED if each.name == "stream beyond the link")
    world = World(scenario)
    world.go_on(3)
    throttle = world.forecast().throttle
    assert throttle is not None
    for speed, reached in ((1 - throttle - 0.03, True), (1 - throttle + 0.03, False)):
        world = World(scenario, speed=speed)
        world.go_on(120)
        assert (world.stop() <= scenario.downtime) is reached


@pytest.mark.parametrize(
    ("name", "path"),
    [("writes beyond the link", "private_bps"), ("shared beyond the link", "shared_bps")],
)
def test_the_bandwidth_advised_is_enough_and_not_too_much(name: str, path: str) -> None:
    scenario = next(each for each in NAMED if each.name == name)
    world = World(scenario)
    world.go_on(3)
    needed = getattr(world.forecast(), f"{path}_needed")
    assert needed > getattr(scenario, path)
    for bps, reached in ((needed * 1.1, True), (needed * 0.9, False)):
        world = World(dataclasses.replace(scenario, **{path: bps}))
        world.go_on(80)
        assert (world.stop() <= scenario.downtime) is reached


def test_conversions_that_nobody_writes_to_are_foretold() -> None:
    scenario = next(each for each in NAMED if each.name == "conversions alone")
    world = World(scenario)
    world.go_on(3)
    assert not world.guest.dirty.any()
    forecast = world.forecast()
    assert forecast.shared_rate is not None and forecast.private_rate is not None
    assert forecast.shared_rate + forecast.private_rate == pytest.approx(25_600, rel=WITHIN)
