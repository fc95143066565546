"""Settings and fixtures that the whole suite shares: the seed, the scale and the engines.

SP_TEST_SEED picks every random choice and SP_TEST_SCALE (a float, default 1) how many are made.
Both are printed in the header and beside each failure, so that a failure can be run once more.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# --import-mode=importlib leaves sys.path alone: the oracle is found from here, and the source tree,
# whose package is not compiled, must not be found although `python -m pytest` puts it there.
HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE.parent]
sys.path.insert(0, str(HERE))

from pysharedpages import SharedPages  # noqa: E402

ENGINES = ["roaring", "interval", "auto"]
SEED = int(os.environ.get("SP_TEST_SEED", "1"))
SCALE = float(os.environ.get("SP_TEST_SCALE", "1"))

hypothesis.settings.register_profile(
    "pysharedpages",
    max_examples=max(5, round(60 * SCALE)),
    stateful_step_count=40,
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("pysharedpages")


def pytest_report_header() -> str:
    """State the seed and the scale of this run."""
    return f"SP_TEST_SEED={SEED} SP_TEST_SCALE={SCALE:g}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print the seed and the scale beside every failure."""
    report = yield
    if report.failed:
        report.sections.append(("seed", f"SP_TEST_SEED={SEED} SP_TEST_SCALE={SCALE:g}"))
    return report


@pytest.fixture
def seed() -> int:
    """The run's seed, for hypothesis."""
    return SEED


@pytest.fixture
def scale() -> float:
    """The run's scale: the factor on how many random cases a test draws."""
    return SCALE


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of the test's own: running it alone draws the same numbers as running all."""
    return np.random.default_rng(
        [SEED, zlib.crc32(request.node.nodeid.rpartition("/")[2].encode())]
    )


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine by name: a test that takes it runs once for each."""
    return str(request.param)


@pytest.fixture
def tracker(engine: str) -> Iterator[Callable[..., SharedPages]]:
    """A factory of trackers on the engine under test, closed when the test ends."""
    made: list[SharedPages] = []

    def make(
        npages: int | str | None = None, *, initial: str = "private", page_size: int = 4096
    ) -> SharedPages:
        pages = SharedPages(npages, initial=initial, engine=engine, page_size=page_size)
        made.append(pages)
        return pages

    yield make
    for pages in made:
        pages.close()
