"""Fuzz the readers of Roaring files: `fuzz_roaring.py [libFuzzer options]`.

Needs atheris, and the installed package. Starts from the seeds in roaring_corpus and goes on for
ever (`-runs=1000000` ends it). A finding is written to the working directory, and the exit status
is not 0.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pysharedpages.io"]):
    from roaring_target import check

CORPUS = Path(__file__).resolve().parent / "roaring_corpus"


def main() -> None:
    """Run the target."""
    # What is found on the way goes into the first folder: the seeds stay what they are.
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([*sys.argv, found, str(CORPUS)], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
