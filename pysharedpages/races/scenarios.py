"""The three races of the discussion, and what else a migration has to stand."""

from __future__ import annotations

from typing import Final

from pysharedpages.races.policies import POLICIES
from pysharedpages.races.scenario import PRESERVED, REWRITTEN, Hole, Kind, Log, Scenario, Step

__all__ = ["SCENARIOS"]


def _write(page: int = 0) -> Step:
    return Step(Kind.WRITE, page)


def _early(page: int = 0) -> Step:
    return Step(Kind.EARLY_WRITE, page)


def _share(page: int = 0) -> Step:
    return Step(Kind.SET_SHARED, page)


def _unshare(page: int = 0) -> Step:
    return Step(Kind.SET_PRIVATE, page)


_OLD_LIST: Final = Hole("list-then-dirty", "L is older than D")
_NOT_SENT: Final = Hole("without-r4", "a cleared page is in no dirty log", (REWRITTEN,))
_NO_DIFFERENCE: Final = Hole("dirty-then-diff", "two flips make no difference", (REWRITTEN,))

_WRITTEN_TOO_EARLY: Final = tuple(Hole(policy, "C comes after W") for policy in POLICIES)
_CONTENT_KEPT: Final = tuple(
    Hole(policy, "no host can know that lost content is used", (PRESERVED,)) for policy in POLICIES
)

_ALL: Final = (
    Scenario(
        "1",
        "the guest writes a page as shared and tells afterwards",
        ((_early(), _share()),),
        at_fault="R1",
        holes=_WRITTEN_TOO_EARLY,
    ),
    Scenario(
        "2",
        "a page is shared, and written, between the list and the harvest",
        ((_share(), _write()),),
        holes=(_OLD_LIST, _NOT_SENT),
    ),
    Scenario(
        "3",
        "a page is private, written, shared and private again, and its content is used",
        ((_unshare(), _write(), _share(), _unshare()),),
        shared=frozenset({0}),
        at_fault="R3",
        holes=(*_CONTENT_KEPT, _OLD_LIST, _NOT_SENT, _NO_DIFFERENCE),
    ),
    Scenario(
        "conversion in flight",
        "of two pages on their way one is converted and written, the other converted",
        ((_share(0), _write(0), _share(1)),),
        npages=2,
        holes=(_OLD_LIST, _NOT_SENT),
    ),
    Scenario(
        "flips twice",
        "a page is shared and private again, with no write",
        ((_share(), _unshare()),),
        holes=(_OLD_LIST, _NOT_SENT, _NO_DIFFERENCE),
    ),
    Scenario(
        "ring without kick",
        "a harvest misses the entries that wait in the CPU",
        ((_share(), _write(), _unshare(), _write()),),
        log=Log.UNKICKED_RING,
        holes=(_OLD_LIST, _NOT_SENT),
    ),
    Scenario(
        "aborted round",
        "the transport fails in any one round, at any point of it",
        ((_write(), _share(), _write()),),
        failures=1,
        holes=(_OLD_LIST, _NOT_SENT),
    ),
    Scenario(
        "two vCPUs",
        "one shares a page that the other writes, and makes private again",
        ((_share(0), _write(1)), (_write(0), _unshare(0))),
        npages=2,
        holes=(_OLD_LIST, _NOT_SENT, _NO_DIFFERENCE),
    ),
    Scenario(
        "final round",
        "one page is converted, another written, around the last round and the stop",
        ((_share(0), _write(1)),),
        npages=2,
        rounds=1,
        holes=(_OLD_LIST, _NOT_SENT),
    ),
    Scenario(
        "repeated status",
        "a page is written, and told to be what it is",
        ((_write(), _unshare(), _write()),),
    ),
    Scenario(
        "slow conversion",
        "the tracker has it before the platform has done it; then the VMM logs the page",
        (
            (
                Step(Kind.BEGIN_SHARED, 0),
                Step(Kind.FINISH_LOGGED, 0),
                Step(Kind.BEGIN_PRIVATE, 0),
                Step(Kind.FINISH_LOGGED, 0),
            ),
        ),
        holes=(_OLD_LIST,),
    ),
    Scenario(
        "MMIO",
        "page 1 is no RAM, and shared all the same",
        ((_share(1), _write(0), _unshare(1)),),
        npages=2,
        mmio=frozenset({1}),
        holes=(_OLD_LIST,),
    ),
)

SCENARIOS: Final = {scenario.name: scenario for scenario in _ALL}
"""By name, in the order of the table."""
