"""Fuzz one decoder of the conversion ABIs: `fuzz_abi.py TARGET [libFuzzer options]`.

Needs atheris, and the installed package. Starts from the seeds in corpus/TARGET and goes on for
ever (`-runs=1000000` ends it). A finding is written to the working directory, and the exit status
is not 0.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pysharedpages.abi"]):
    from abi_targets import TARGETS

CORPUS = Path(__file__).resolve().parent / "corpus"


def main() -> None:
    """Run the target that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: {sys.argv[0]} TARGET [options]; targets: {' '.join(TARGETS)}")
    name = sys.argv.pop(1)
    # What is found on the way goes into the first folder: the seeds stay what they are.
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([*sys.argv, found, str(CORPUS / name)], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
