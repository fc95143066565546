"""What a guest does while it is migrated: an endless run of steps for each vCPU.

Every pattern is scaled into the pages it is given. A step that converts also writes, since the
content of a page is lost when it is converted; a pattern asks for there-and-back flips by naming
several types in one step. All randomness comes from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Final, NamedTuple

__all__ = ["WORKLOADS", "Step", "Workload"]


class Step(NamedTuple):
    """A run of indices, the types it takes in turn (shared is True), then a write to each page."""

    start: int
    stop: int
    types: tuple[bool, ...] = ()


class Workload(NamedTuple):
    """A named pattern: what is shared when the guest is up, and what its vCPUs do from then on."""

    summary: str
    shared_at_boot: Callable[[range, Random], Iterator[range]]
    steps: Callable[[range, Random], Iterator[Step]]


# Linux gives the bounce buffer 6 % of memory in one run; here each vCPU has its part of that.
_BOUNCE_SHARE: Final = 16
_BUFFERS: Final = 24
_RUN_PAGES: Final = 16


def _boot_shared(owned: range, rng: Random) -> Iterator[range]:
    yield owned[: len(owned) // _BOUNCE_SHARE]
    for _ in range(len(owned) // 64):
        yield _run(owned, rng, 1)


def _boot_steps(owned: range, rng: Random) -> Iterator[Step]:
    """Firmware toggles the same few buffers; bounce buffer and hot set are written."""
    bounce = owned[: max(1, len(owned) // _BOUNCE_SHARE)]
    hot = _hot(owned)
    buffers = [_run(owned, rng, 4) for _ in range(_BUFFERS)]
    mapped = [False] * _BUFFERS
    while True:
        number = rng.randrange(_BUFFERS)
        mapped[number] = not mapped[number]
        yield _step(buffers[number], mapped[number])
        yield _step(_run(bounce, rng, 1))
        yield _step(_run(hot, rng, 1))


def _churn_shared(owned: range, rng: Random) -> Iterator[range]:
    for _ in range(len(owned) // (4 * _RUN_PAGES)):
        yield _run(owned, rng, _RUN_PAGES)


def _churn_steps(owned: range, rng: Random) -> Iterator[Step]:
    """Short runs anywhere change type, half of them there and back without a write between."""
    hot = _hot(owned)
    while True:
        shared = rng.random() < 0.5
        types = (shared,) if rng.random() < 0.5 else (not shared, shared)
        yield _step(_run(owned, rng, _RUN_PAGES), *types)
        yield _step(_run(hot, rng, 1))
        yield _step(_run(hot, rng, 1))


def _hostile_shared(owned: range, rng: Random) -> Iterator[range]:
    for index in owned[::2]:
        yield range(index, index + 1)


def _hostile_steps(owned: range, rng: Random) -> Iterator[Step]:
    """Alternate pages flip, one a step, up to three times before the page is written again."""
    while True:
        window = _run(owned, rng, 4 * _RUN_PAGES)
        shared = rng.random() < 0.5
        flips = rng.choice(((shared,), (not shared, shared), (shared, not shared, shared)))
        for index in window[::2]:
            yield Step(index, index + 1, flips)
            yield _step(_run(window, rng, 1))


def _step(run: range, *types: bool) -> Step:
    return Step(run.start, run.stop, types)


def _run(within: range, rng: Random, most: int) -> range:
    """A run of 1 to `most` pages, cut at the end of `within`."""
    first = rng.randrange(len(within))
    return within[first : first + rng.randint(1, most)]


def _hot(owned: range) -> range:
    """The sixteenth of the pages that takes most writes, as in any guest that converges."""
    middle = len(owned) // 2
    return owned[middle : middle + max(1, len(owned) // 16)]


WORKLOADS: Final[Mapping[str, Workload]] = {
    "boot": Workload(
        "a bounce buffer, and firmware that toggles DMA buffers", _boot_shared, _boot_steps
    ),
    "churn": Workload("short runs converted anywhere, there and back", _churn_shared, _churn_steps),
    "hostile": Workload(
        "every other page shared, and flipped in turn", _hostile_shared, _hostile_steps
    ),
}
