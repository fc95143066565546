# tier: unit
"""Forecasts of histories written by hand, on paths that carry 1,000 pages of 4 KiB a second."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysharedpages import DirtyLog, GuestMemory, RangeError, SharedPages
from pysharedpages.migration import Forecast, Migration, RoundRecord, Sample
from pysharedpages.migration.curve import DirtyCurve, Observation
from pysharedpages.migration.forecast import forecast

THOUSAND = 1000 * 4096 * 8
"""Bits per second that are 1,000 pages a second."""


def record(
    number: int, harvested: float, committed: float, shared: int, private: int, final: bool = False
) -> RoundRecord:
    """A round of which nothing else is known: its other instants are that of the harvest."""
    known: dict[str, Any] = {
        "number": number,
        "is_final": final,
        "committed": committed,
        "shared_pages": shared,
        "private_pages": private,
        "converted_pages": 0,
        "rerouted_pages": 0,
    }
    names = [each.name for each in dataclasses.fields(RoundRecord)]
    return RoundRecord(**{name: known.get(name, harvested) for name in names})


def records(*rounds: tuple[float, int, int], first: int = 10_000) -> list[RoundRecord]:
    """A first round of so many private pages, and those of (seconds since the last, S, P).

    Each is committed when the next harvests, the last when its pages have been sent.
    """
    pages = [(0, first), *((shared, private) for _, shared, private in rounds)]
    starts = list(itertools.accumulate((seconds for seconds, _, _ in rounds), initial=0.0))
    ends = [*starts[1:], starts[-1] + sum(pages[-1]) / 1000]
    return [
        record(number, start, end, *each)
        for number, (start, end, each) in enumerate(zip(starts, ends, pages, strict=True), 1)
    ]


def said(history: Sequence[RoundRecord], now: float, **given: Any) -> Forecast:
    """The forecast `now` seconds after the last harvest."""
    at = now + (history[-1].harvested if history else 0.0)
    given = {"shared_bps": THOUSAND, "private_bps": THOUSAND, "downtime": 0.1} | given
    return forecast(history, given.pop("samples", []), now=at, page_size=4096, **given)


def near(value: float, rel: float = 0.05) -> Any:
    """About so much: curves smooth what they are fitted to."""
    return pytest.approx(value, rel=rel, abs=1e-6)


HOT = records((10.0, 0, 500), (0.5, 0, 500), (0.5, 0, 500))
"""A working set of 500 pages, full at any interval seen."""
LINEAR = records((10.0, 0, 5000), (5.0, 0, 2500), (2.5, 0, 1250))
"""500 new pages a second: each round takes half as long as the one before."""


def test_a_working_set_is_the_least_downtime() -> None:
    hot = said(HOT, 0.5)
    assert (hot.verdict, hot.rounds, hot.downtime_then, hot.seconds_left) == (
        "stalled",
        None,
        None,
        None,
    )
    assert hot.downtime_now == near(0.5)
    assert hot.downtime_least == near(0.5)
    assert hot.downtime_private == near(0.5)
    assert (hot.shared_rate, hot.private_rate) == (0.0, near(1000))
    assert hot.pace == near(1.0)


def test_a_working_set_that_fits_is_ready() -> None:
    hot = said(HOT, 0.5, downtime=0.6)
    assert (hot.verdict, hot.rounds, hot.throttle) == ("ready", 0, 0.0)
    assert hot.downtime_then == hot.downtime_now == hot.seconds_left == near(0.5)
    assert hot.recommendation.startswith("Stop now: the rest takes 0.5 s of the 0.6 s allowed.")


def test_rounds_are_counted_until_the_rest_fits() -> None:
    linear = said(LINEAR, 1.25, downtime=0.2)
    assert (linear.verdict, linear.rounds) == ("converging", 2)
    assert linear.downtime_now == near(0.625)
    assert linear.downtime_then == near(0.156, 0.1)
    assert linear.seconds_left == near(0.625 + 0.3125 + 0.156, 0.1)
    assert linear.recommendation.startswith("Go on for 2 rounds, ")


def test_bandwidths_are_bits_per_second() -> None:
    assert said(HOT, 0.5, private_bps=THOUSAND / 8).downtime_now == near(4.0)
    assert said(HOT, 0.5, private_bps=THOUSAND * 8).downtime_now == near(0.0625)


def test_paths_follow_each_other_or_send_at_once() -> None:
    both = records((10.0, 300, 200), (0.5, 300, 200), (0.5, 300, 200))
    assert said(both, 0.5).downtime_now == near(0.5)
    assert said(both, 0.5, parallel=True).downtime_now == near(0.3)
    assert said(both, 0.5, shared_bps=3 * THOUSAND).downtime_now == near(0.3)
    assert said(both, 0.5).downtime_private == near(0.2)


def test_what_would_help_a_stalled_migration() -> None:
    samples = [Sample(4, 0.1, 0, 200), Sample(4, 0.05, 0, 100), Sample(4, 0.2, 0, 400)]
    hot = said(HOT, 0.5, samples=samples)
    assert (hot.verdict, hot.is_extrapolated) == ("stalled", False)
    assert hot.private_bps_needed == near(2 * THOUSAND, 0.1)
    assert hot.shared_bps_needed is None
    assert hot.throttle == near(0.5, 0.1)
    assert "Throttle the vCPUs by 5" in hot.recommendation
    assert "or give the private path 6" in hot.recommendation
    assert "Mbit/s." in hot.recommendation


def test_shared_pages_may_follow_after_the_switch() -> None:
    shared = records((10.0, 500, 50), (0.55, 500, 50), (0.55, 500, 50))
    said_ = said(shared, 0.55).recommendation
    assert "send shared pages after the switch (0.05 s without)" in said_


def test_nothing_helps() -> None:
    both = [Sample(1, 1e-3, 900, 900), Sample(1, 1e-2, 900, 900), Sample(1, 2.0, 900, 900)]
    stuck = said(records((2.0, 900, 900), (2.0, 900, 900)), 2.0, samples=both)
    assert stuck.verdict == "stalled"
    assert (stuck.throttle, stuck.shared_bps_needed, stuck.private_bps_needed) == (None,) * 3
    assert "allow a longer downtime." in stuck.recommendation


def test_the_gap_between_rounds_is_dirtied_too() -> None:
    history = [
        record(1, 0.0, 10.0, 0, 10_000),
        record(2, 10.5, 11.0, 0, 500),
        record(3, 11.5, 12.0, 0, 500),
    ]
    samples = [Sample(2, 0.5, 0, 250), Sample(2, 0.1, 0, 50), Sample(2, 2.0, 0, 500)]
    # 500 pages a second: of an interval x, x/2 is sent, and 0.5 is added: x is 1 in the end.
    assert said(history, 1.0, samples=samples).downtime_least == near(0.5, 0.1)


@pytest.mark.parametrize("history", [[], records(first=10)], ids=["no round", "one"])
def test_without_measurements_it_is_unknown(history: list[RoundRecord]) -> None:
    nothing = said(history, 1.0)
    assert (nothing.verdict, nothing.downtime_now, nothing.rounds) == ("unknown", None, None)
    assert "nothing was measured" in str(nothing)


def test_a_guess_is_not_called_stalled() -> None:
    shrinking = said(records((10.0, 0, 4000), (4.0, 0, 3000)), 3.0, downtime=0.01)
    assert (shrinking.verdict, shrinking.rounds) == ("unknown", None)
    assert shrinking.is_extrapolated
    assert "Take samples, of 0.01 s and more" in shrinking.recommendation


def test_many_samples_do_not_displace_rounds() -> None:
    samples = [Sample(4, 0.001, 0, 1)] * 5000
    assert said(HOT, 0.5, samples=samples).downtime_now == near(0.5)


def test_final_rounds_and_rounds_without_time_tell_nothing() -> None:
    last = HOT[-1]
    final = [
        record(5, last.harvested + 0.5, last.harvested + 1, 0, 77, final=True),
        record(6, last.harvested + 0.5, last.harvested + 1, 0, 7),
    ]
    assert said([*HOT, *final], 0.5).downtime_now == near(0.5)
    assert said(records((0.0, 5, 5)), 1.0).verdict == "unknown"


def test_rounds_that_took_longer_than_said_are_remarked_on() -> None:
    slow = said(HOT, 0.5, private_bps=4 * THOUSAND)
    assert slow.pace == near(4.0)
    assert slow.recommendation.endswith("Rounds took 4 times what these bandwidths say.")


@pytest.mark.parametrize("name", ["shared_bps", "private_bps", "downtime"])
@pytest.mark.parametrize("value", [0, -1.5, math.nan, math.inf, -math.inf, 10**400])
def test_bad_values(name: str, value: float) -> None:
    with pytest.raises(RangeError, match=rf"{name} is {value} (bits per )?second.*above 0"):
        said(HOT, 0.5, **{name: value})


@pytest.mark.parametrize("value", [None, "fast", "0.5", [1]])
def test_values_of_other_types(value: Any) -> None:
    with pytest.raises(TypeError):
        said(HOT, 0.5, downtime=value)


def test_as_dict_is_json() -> None:
    for each in (said(HOT, 0.5), said(LINEAR, 1.0), said([], 1.0)):
        shown = json.loads(json.dumps(each.as_dict(), allow_nan=False))
        assert shown["verdict"] == each.verdict
        assert shown["recommendation"] == each.recommendation
        assert str(each) == f"{each.verdict}: {each.recommendation}"


def test_a_migration_forecasts_with_its_own_page_size_and_clock() -> None:
    now = 0.0
    pages = SharedPages(1000, page_size=65536)
    migration = Migration(pages, DirtyLog(GuestMemory([(0, 0, 1000)])), [], clock=lambda: now)
    for _ in range(4):
        for _ in migration.rounds(1):
            migration.log.add_ranges([(0, 100)])
            now += 1.0
    assert migration.forecast(1e9, 100 * 65536 * 8, 0.5).downtime_now == near(1.0)
    with pytest.raises(RangeError, match=r"private_bps is 0 bits per second"):
        migration.forecast(1e9, 0, 0.5)


COUNTS = st.integers(0, 2**40)
ROUNDS = st.lists(st.tuples(st.floats(0, 1e6), COUNTS, COUNTS), max_size=3)
POSITIVE = st.floats(1e-6, 1e15)


@given(
    ROUNDS,
    st.lists(st.tuples(st.floats(0, 1e3), COUNTS, COUNTS), max_size=2),
    POSITIVE,
    POSITIVE,
    POSITIVE,
    st.floats(0, 1e6),
    st.booleans(),
)
def test_any_history_is_answered(
    rounds: list[tuple[float, int, int]],
    taken: list[tuple[float, int, int]],
    shared_bps: float,
    private_bps: float,
    downtime: float,
    now: float,
    parallel: bool,
) -> None:
    history = records(*rounds)
    samples = [Sample(len(history), *each) for each in taken]
    found = said(
        history,
        now,
        samples=samples,
        shared_bps=shared_bps,
        private_bps=private_bps,
        downtime=downtime,
        parallel=parallel,
    )
    json.dumps(found.as_dict(), allow_nan=False)
    assert (found.rounds is None) == (found.verdict in ("stalled", "unknown"))
    assert (found.rounds is None) == (found.downtime_then is None) == (found.seconds_left is None)
    if found.downtime_then is not None:
        assert found.downtime_then <= downtime


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 2.5, 9.0])
def test_a_curve_between_its_observations(seconds: float) -> None:
    def pages(t: float) -> float:
        return 20_000 * (1 - math.exp(-t / 0.4)) + min(9000 * t, 18_000)

    seen = [Observation(t, round(pages(t)), 0) for t in (0.03, 0.1, 0.2, 0.5, 1.5, 4.0, 12.0)]
    assert DirtyCurve(seen, 1 << 20)(seconds) == pytest.approx(pages(seconds), rel=0.05)


def test_a_curve_is_concave_begins_at_0_and_keeps_to_the_most(rng: np.random.Generator) -> None:
    for _ in range(20):
        spans = np.sort(rng.uniform(0.01, 10, 6))
        counts = rng.integers(0, 50_000, 6)
        curve = DirtyCurve(
            [Observation(float(t), int(n), 0) for t, n in zip(spans, counts, strict=True)], 30_000
        )
        values = np.array([curve(t) for t in np.linspace(0, 40, 400)])
        assert values[0] == 0.0
        assert values.max() <= 30_000
        assert np.diff(values).min() >= -1e-6
        assert np.diff(values, 2).max() <= 1e-6


def test_recent_observations_weigh_more() -> None:
    seen = [Observation(1.0, 1000, 8), Observation(1.0, 5000, 0)]
    assert 4500 < DirtyCurve(seen, 10_000)(1.0) < 5000
