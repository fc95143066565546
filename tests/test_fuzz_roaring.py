# tier: hostile
"""The seeds of the Roaring fuzz target, and each of them damaged, through the same target."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from abi_support import bit_flips

FUZZ = Path(__file__).resolve().parent / "fuzz"
sys.path.insert(0, str(FUZZ))

from roaring_target import check  # noqa: E402


def seeds() -> list[bytes]:
    found = [path.read_bytes() for path in sorted((FUZZ / "roaring_corpus").iterdir())]
    assert found
    return found


def test_seeds() -> None:
    for seed in seeds():
        check(seed)


def test_damaged_seeds(rng: np.random.Generator, scale: float) -> None:
    for seed in seeds():
        for damaged in list(bit_flips(seed))[:: max(1, round(len(seed) / 10 / scale))]:
            check(damaged)
        for _ in range(round(40 * scale)):
            mixed = bytearray(seed)
            for at in rng.integers(0, len(mixed), 4):
                mixed[at] = rng.choice([0, 1, 0x3A, 0x3B, 0x30, 0x7F, 0x80, 0xFF])
            check(bytes(mixed[: int(rng.integers(1, len(mixed) + 1))]))
