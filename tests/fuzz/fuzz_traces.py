# tier: hostile
"""Fuzzes the reader of traces: `python tests/fuzz/fuzz_traces.py CORPUS [libFuzzer options]`.

Needs atheris. The plain suite runs the same check on tests/fuzz/trace_corpus and on mutations of
it, in tests/test_fuzz_traces.py.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["pysharedpages.abi.traces"]):
    from traces_oracle import check_reader

if __name__ == "__main__":
    atheris.Setup(sys.argv, check_reader)
    atheris.Fuzz()
