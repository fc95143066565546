# tier: hostile
"""The corpus of the trace fuzzer, and mutations of it: no crash, and what the slow reader says."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from traces_oracle import check_reader

SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))
CORPUS = sorted((Path(__file__).parent / "fuzz" / "trace_corpus").iterdir())


def mutated(data: bytes, pick: random.Random) -> bytes:
    """The data with a few bytes replaced, taken out, put in twice, or cut off."""
    for _ in range(pick.randrange(1, 4)):
        at, length = pick.randrange(len(data) + 1), pick.choice((1, 1, 2, 8, 40))
        middle = data[at : at + length]
        middle = pick.choice((
            b"", middle * 2, pick.randbytes(length), b"\n", b"\r", b"\0", b" " * 65,
            b"kvm_msr: ", b"f" * 17,
        ))  # fmt: skip
        data = data[:at] + middle + (b"" if pick.random() < 0.1 else data[at + length :])
    return data


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus_and_mutations(path: Path) -> None:
    data = path.read_bytes()
    check_reader(data)
    pick = random.Random(f"{SEED} {path.name}")
    for _ in range(round(60 * SCALE)):
        check_reader(mutated(data, pick))
