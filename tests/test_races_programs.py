# tier: model
"""Every short guest, and long ones by chance: which policies lose a page of which of them."""

from __future__ import annotations

from itertools import islice

import pytest

from pysharedpages.races import (
    BYTES,
    Explorer,
    every_program,
    random_programs,
    survey,
)

ALL_363 = 5


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    """Keeps what it learned of each policy."""
    return Explorer()


def test_there_are_363_guests_of_up_to_five_steps() -> None:
    guests = list(every_program(5))
    assert len(guests) == len({guest.vcpus for guest in guests}) == 363
    assert all(guest.npages == 1 and not guest.at_fault for guest in guests)


@pytest.mark.parametrize(
    ("policy", "bytes_model", "corrupts"),
    [
        ("list-then-dirty", "preserved", True),
        ("list-then-dirty", "rewritten", True),
        ("list-then-dirty-since", "preserved", False),
        ("list-then-dirty-since", "rewritten", False),
        ("without-r4", "preserved", False),
        ("without-r4", "rewritten", True),
        ("dirty-then-diff", "preserved", False),
        ("dirty-then-diff", "rewritten", True),
        ("pysharedpages", "preserved", False),
        ("pysharedpages", "rewritten", False),
    ],
)
def test_verdicts_over_all_short_guests(
    explorer: Explorer, scale: float, policy: str, bytes_model: str, corrupts: bool
) -> None:
    most = ALL_363 if scale >= 2 or policy == "pysharedpages" else ALL_363 - 1
    found = survey(policy, bytes_model, most, explorer)
    assert found.safe + found.corrupt == {4: 120, 5: 363}[most]
    assert bool(found.corrupt) == corrupts
    assert found.is_expected


def test_a_difference_misses_a_page_that_flips_twice_and_nothing_less(explorer: Explorer) -> None:
    verdicts = [
        explorer.explore(guest, "dirty-then-diff", "rewritten") for guest in every_program(2)
    ]
    lost = [verdict.scenario.name for verdict in verdicts if not verdict.is_safe]
    assert lost == ["set_shared set_private"]


def test_no_guest_that_keeps_the_rules_loses_a_page(
    explorer: Explorer, seed: int, scale: float
) -> None:
    guests = list(islice(random_programs(seed), max(1, round(12 * scale))))
    lost = [
        (guest, bytes_model)
        for guest in guests
        for bytes_model in BYTES
        if not explorer.explore(guest, "pysharedpages", bytes_model).is_safe
    ]
    assert lost == []


def test_random_guests_are_long_and_of_every_kind(seed: int) -> None:
    guests = list(islice(random_programs(seed), 400))
    lengths = {sum(map(len, guest.vcpus)) for guest in guests}
    assert lengths == set(range(6, 13))
    shapes = {(guest.npages, len(guest.vcpus)) for guest in guests}
    assert shapes == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert {guest.failures for guest in guests} == {0, 1}
    assert {guest.rounds for guest in guests} == {1, 2}
    assert len({guest.log for guest in guests}) == 3
    assert not any(guest.at_fault for guest in guests)
