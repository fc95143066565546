# tier: hostile
"""The seeds of the ABI fuzz targets, and each of them damaged, through the same targets.

tests/fuzz/fuzz_abi.py runs a target under atheris; here it is the plain suite that does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from abi_support import bit_flips, truncations

FUZZ = Path(__file__).resolve().parent / "fuzz"
sys.path.insert(0, str(FUZZ))

from abi_targets import TARGETS  # noqa: E402


def seeds(name: str) -> list[bytes]:
    """The seeds of a target, of which there is at least one."""
    found = [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).iterdir())]
    assert found
    return found


def test_every_target_has_seeds_and_every_seed_a_target() -> None:
    assert {path.name for path in (FUZZ / "corpus").iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds(name: str, rng: np.random.Generator, scale: float) -> None:
    for seed in seeds(name)[:: max(1, round(4 / scale))]:
        for damaged in truncations(seed):
            TARGETS[name](damaged)
        for damaged in bit_flips(seed, 0, min(len(seed), 40)):
            TARGETS[name](damaged)
        for _ in range(round(20 * scale)):
            mixed = bytearray(seed + bytes(8))
            for at in rng.integers(0, len(mixed), 4):
                mixed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
            TARGETS[name](bytes(mixed))
