# tier: unit
"""Arrow data out of sets and into them: pyarrow, polars, DuckDB, and the capsules by hand."""

from __future__ import annotations

import doctest
import gc
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow
import pytest
from arrow_support import Arrays, Recorder, Streams, array_of, empty_capsule, stream_of, values
from model import GFN_LIMIT, canonical, gfns, ranges

from pysharedpages import FormatError, PageSet, RangeError, SharedPages, SharedPagesError, Snapshot
from pysharedpages._core import arrow_held

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "interop.md"
PAIRS = [(1, 5), (100, 2000), (2**40, GFN_LIMIT)]
BATCH = 65536


@pytest.fixture(autouse=True)
def _everything_is_released() -> Iterator[None]:
    gc.collect()
    before = arrow_held()
    yield
    gc.collect()
    assert arrow_held() == before


@pytest.fixture
def sample() -> PageSet:
    return PageSet.from_ranges(ranges(*PAIRS))


def comb(n: int) -> PageSet:
    """n ranges of one page each."""
    return PageSet.from_pages(np.arange(0, 2 * n, 2, dtype=np.uint64))


def resident() -> int:
    """Resident bytes of this process."""
    text = Path("/proc/self/statm").read_text().split()[1]
    return int(text) * os.sysconf("SC_PAGE_SIZE")


def run(*arguments: str) -> str:
    """What Python prints of these arguments, in a process of its own that ends well."""
    command = [sys.executable, "-P", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr
    return ran.stdout


# ---- out ----

CONSUMERS: dict[str, Callable[[Any], Any]] = {
    "pyarrow table": pyarrow.table,
    "pyarrow batch": pyarrow.record_batch,
    "pyarrow array": pyarrow.array,
    "pyarrow chunks": pyarrow.chunked_array,
    "polars frame": polars.DataFrame,
    "polars series": polars.Series,
}


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_consumers_and_the_way_back(consumer: str, sample: PageSet) -> None:
    for given in (sample, PageSet(), comb(5), comb(BATCH + 1)):
        assert PageSet.from_arrow(CONSUMERS[consumer](given)) == given


def test_the_schema(sample: PageSet) -> None:
    field = pyarrow.schema(sample)
    assert field.names == ["start", "stop"]
    assert field.types == [pyarrow.uint64()] * 2
    assert not any(column.nullable for column in field)
    assert pyarrow.table(sample).schema == pyarrow.record_batch(sample).schema == field
    # One schema is all there is: another that is asked for is passed over.
    other = pyarrow.schema([("start", pyarrow.int64())]).__arrow_c_schema__()
    stream = pyarrow.table(Streams(sample.__arrow_c_stream__(requested_schema=other)))
    assert stream.schema == field
    capsules = sample.__arrow_c_array__(requested_schema=other)
    assert pyarrow.record_batch(Arrays(capsules)).to_pydict() == {
        "start": [1, 100, 2**40],
        "stop": [5, 2000, GFN_LIMIT],
    }


def test_an_array_is_handed_over_by_its_address(sample: PageSet) -> None:
    capsules = sample.__arrow_c_array__()
    array = array_of(capsules[1])
    wanted = [values(array, 0), values(array, 1)]
    batch = pyarrow.record_batch(Arrays(capsules))
    assert [batch[name].buffers()[1].address for name in ("start", "stop")] == wanted
    frame = polars.from_arrow(batch)
    assert isinstance(frame, polars.DataFrame)
    for name, address in zip(("start", "stop"), wanted, strict=True):
        assert frame[name].to_numpy(allow_copy=False).ctypes.data == address
    view = batch["start"].to_numpy(zero_copy_only=True)
    assert view.ctypes.data == wanted[0]
    assert view.tolist() == [1, 100, 2**40]


def test_tables_of_a_snapshot_are_its_stream_s_columns(engine: str) -> None:
    with SharedPages(engine=engine) as pages:
        pages.set_list(comb(2 * BATCH + 9).ranges())
        snap = pages.snapshot()
        for_pyarrow, for_polars = Recorder(snap), Recorder(snap)
        table = pyarrow.table(for_pyarrow)
        assert [len(batch) for batch in table.to_batches()] == [BATCH, BATCH, 9]
        for name, wanted in (("start", for_pyarrow.starts), ("stop", for_pyarrow.stops)):
            chunks = table[name].chunks
            assert [chunk.buffers()[1].address for chunk in chunks] == wanted
        frame = polars.DataFrame(for_polars)
        for name, wanted in (("start", for_polars.starts), ("stop", for_polars.stops)):
            chunks = frame[name].get_chunks()
            assert [each.to_numpy(allow_copy=False).ctypes.data for each in chunks] == wanted
        assert PageSet.from_arrow(frame) == PageSet.from_arrow(table) == snap


def test_a_stream_outlives_the_snapshot_and_its_tracker(engine: str) -> None:
    pages = SharedPages(engine=engine)
    pages.share(7, 5)
    snap = pages.snapshot()
    capsule = snap.__arrow_c_stream__()
    pages.unshare(0, 2**30)
    snap.close()
    pages.close()
    del pages, snap
    assert PageSet.from_arrow(Streams(capsule)) == PageSet.from_ranges([(7, 12)])


def test_a_closed_snapshot_exports_nothing() -> None:
    with SharedPages() as pages:
        snap = pages.snapshot()
        snap.close()
        for method in (snap.__arrow_c_array__, snap.__arrow_c_stream__):
            with pytest.raises(SharedPagesError, match="closed"):
                method()


def test_a_stream_makes_a_batch_when_it_is_asked() -> None:
    hostile = comb(2**22)  # 64 MiB of ranges
    reader = pyarrow.RecordBatchReader.from_stream(hostile)
    reader.read_next_batch()
    before, rows = resident(), 0
    for batch in reader:
        rows += len(batch)
        assert arrow_held() < 10
    assert rows == 2**22 - BATCH
    assert resident() - before < 16 << 20


# ---- release ----


def test_capsules_that_nobody_consumes_release(sample: PageSet, scale: float) -> None:
    def export(n: int) -> None:
        for _ in range(n):
            sample.__arrow_c_schema__()
            sample.__arrow_c_array__()
            sample.__arrow_c_stream__()

    export(100)
    tracemalloc.start()
    base, traced = resident(), tracemalloc.get_traced_memory()[0]
    export(round(10_000 * max(scale, 1)))
    grown, growth = tracemalloc.get_traced_memory()[0] - traced, resident() - base
    tracemalloc.stop()
    assert grown < 16 << 10
    assert growth < 4 << 20


def test_tables_that_come_and_go_leave_nothing(sample: PageSet) -> None:
    for _ in range(1000):
        assert len(pyarrow.record_batch(sample)) == 3
        assert PageSet.from_arrow(pyarrow.table(sample)) == sample


def test_columns_are_released_by_any_thread(sample: PageSet) -> None:
    held = [pyarrow.table(sample) for _ in range(50)]
    assert arrow_held() >= 100
    threads = [threading.Thread(target=held.pop) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held == []


def test_a_child_outlives_its_batch(sample: PageSet) -> None:
    column = pyarrow.record_batch(sample)["stop"]
    gc.collect()
    assert column.to_pylist() == [5, 2000, GFN_LIMIT]


def test_a_stream_is_consumed_once(sample: PageSet) -> None:
    capsule = sample.__arrow_c_stream__()
    assert PageSet.from_arrow(Streams(capsule)) == sample
    with pytest.raises(FormatError, match="released"):
        PageSet.from_arrow(Streams(capsule))
    assert not stream_of(capsule).release
    capsules = sample.__arrow_c_array__()
    assert PageSet.from_arrow(Arrays(capsules)) == sample
    with pytest.raises(FormatError, match="released"):
        PageSet.from_arrow(Arrays(capsules))


# ---- in ----


def table(start: Any, stop: Any, kind: Any = None) -> pyarrow.Table:
    """Two columns as a table."""
    columns = [pyarrow.array(each, kind) for each in (start, stop)]
    return pyarrow.table(columns, names=["start", "stop"])


INTEGERS = [
    getattr(pyarrow, sign + width)()
    for sign in ("int", "uint")
    for width in ["8", "16", "32", "64"]
]


@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_integers_of_any_width(kind: Any) -> None:
    expected = [(3, 8), (100, 127)]
    assert canonical(PageSet.from_arrow(table([100, 3, 5], [127, 7, 8], kind)).ranges()) == expected
    pages = PageSet.from_pages(pyarrow.array([9, 3, 9, 4], kind))
    assert canonical(pages.ranges()) == [(3, 5), (9, 10)]


def test_columns_by_name_and_gfns_by_any() -> None:
    swapped = pyarrow.table({"stop": [5, 12], "start": [1, 10]})
    assert canonical(PageSet.from_ranges(swapped).ranges()) == [(1, 5), (10, 12)]
    for given in (pyarrow.table({"gfn": [7, 8]}), polars.Series([8, 7]), pyarrow.array([7, 8])):
        assert canonical(PageSet.from_arrow(given).ranges()) == [(7, 9)]
        assert PageSet.from_pages(given) == PageSet.from_arrow(given)
        with pytest.raises(FormatError, match="1 columns: 'start' and 'stop' are needed"):
            PageSet.from_ranges(given)
    with pytest.raises(FormatError, match="2 columns: one, of gfns, is needed"):
        PageSet.from_pages(swapped)


def test_slices_and_chunks() -> None:
    whole = table(range(0, 1000, 10), range(5, 1005, 10))
    parts = pyarrow.concat_tables([whole.slice(50, 3), whole.slice(7, 0), whole.slice(3, 2)])
    expected = [(30, 35), (40, 45), (500, 505), (510, 515), (520, 525)]
    assert canonical(PageSet.from_arrow(parts).ranges()) == expected
    struct = whole.to_struct_array().chunk(0).slice(50, 3)
    assert canonical(PageSet.from_arrow(struct).ranges()) == expected[2:]


def test_what_takes_ranges_takes_sets_and_arrow(sample: PageSet, engine: str) -> None:
    with SharedPages(engine=engine) as pages:
        pages.share(2, 2)
        snap = pages.snapshot()
        for given in (sample, pyarrow.table(sample), polars.DataFrame(sample)):
            assert snap.merge(given).shared.tolist() == [[2, 4]]
        same = PageSet.from_ranges(snap)
        assert same == snap and not isinstance(same, Snapshot)
    assert PageSet.from_ranges(sample) is sample
    assert PageSet.from_pages(sample) is sample
    assert PageSet.from_arrow(sample) is sample


NULL_START = table([1, None], [2, 3])
DICTIONARY = pyarrow.array([1, 2]).dictionary_encode()
REFUSED = [
    (NULL_START, FormatError, "row 1 of the Arrow start is null"),
    (
        pyarrow.array([{"start": 1, "stop": 2}, None]),
        FormatError,
        "row 1 of the Arrow array is null",
    ),
    (table([1, 5], [2, 4]), RangeError, r"row 1: \[5, 4\) is inverted"),
    (table([1, -5], [2, 4]), RangeError, "row 1: the start is -5, below 0"),
    (table([1], [2**52 + 1]), RangeError, "row 0: the stop is 4503599627370497, above"),
    (pyarrow.array([2**52]), RangeError, "row 0: the gfn is 4503599627370496, above"),
    (table([1.0], [2.0]), TypeError, "'start' is of Arrow type float64"),
    (table(["a"], ["b"]), TypeError, "'start' is of Arrow type utf8"),
    (table([True], [True]), TypeError, "'start' is of Arrow type bool"),
    (pyarrow.array([None, None]), TypeError, "Arrow type null"),
    (pyarrow.array([[1, 2]]), TypeError, "Arrow type list"),
    (DICTIONARY, TypeError, "Arrow type dictionary"),
    (pyarrow.table({"start": DICTIONARY, "stop": DICTIONARY}), TypeError, "'start' .* dictionary"),
    (pyarrow.table({"start": [1], "npages": [1]}), FormatError, "'start' and 'npages'"),
    (pyarrow.table({"a": [1], "b": [1], "c": [1]}), FormatError, "3 columns"),
    (pyarrow.table({}), FormatError, "0 columns"),
    (polars.DataFrame({"start": ["a"], "stop": ["b"]}), TypeError, "utf8"),
    (polars.Series([1.5]), TypeError, "float64"),
    (7, TypeError, "int has no __arrow_c_stream__"),
    (gfns(1), TypeError, "ndarray has no"),
    (Streams(7), TypeError, "'arrow_array_stream' is needed, not 7"),
    (Streams(pyarrow.schema([]).__arrow_c_schema__()), TypeError, "'arrow_array_stream' is needed"),
    (Arrays(7), TypeError, "two capsules"),
    (Arrays((7, 7)), TypeError, "'arrow_schema' is needed, not 7"),
]


@pytest.mark.parametrize(("given", "error", "words"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PageSet.from_arrow(given)


def test_capsules_of_nothing() -> None:
    stream, stream_memory = empty_capsule("stream")
    with pytest.raises(FormatError, match="released"):
        PageSet.from_arrow(Streams(stream))
    schema, schema_memory = empty_capsule("schema")
    array, array_memory = empty_capsule("array")
    with pytest.raises(FormatError, match="released"):
        PageSet.from_arrow(Arrays((schema, array)))
    good = PageSet().__arrow_c_schema__()
    with pytest.raises(FormatError, match="array is released"):
        PageSet.from_arrow(Arrays((good, array)))
    assert not any(stream_memory.raw + schema_memory.raw + array_memory.raw)


def test_a_stream_that_fails_says_why() -> None:
    def batches() -> Iterator[Any]:
        yield from table([1], [2]).to_batches()
        raise RuntimeError("the disk is gone")

    reader = pyarrow.RecordBatchReader.from_batches(table([1], [2]).schema, batches())
    with pytest.raises(SharedPagesError, match="the disk is gone"):
        PageSet.from_arrow(reader)


def test_a_producer_s_own_exception_passes() -> None:
    class Fails:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        PageSet.from_arrow(Fails())


# DuckDB reports leaks of its own binding when a process ends in which Hypothesis has looked at it.

DUCKDB = """
import duckdb
from pysharedpages import PageSet, SharedPages

sample = PageSet.from_ranges([(1, 5), (100, 2000), (2**40, 2**52)])
assert PageSet.from_arrow(duckdb.from_arrow(sample)) == sample
sizes = duckdb.sql("select stop - start from sample order by start").fetchall()
assert sizes == [(4,), (1900,), (2**52 - 2**40,)]
short = duckdb.sql("select stop, start from sample where stop - start < 10000")
assert PageSet.from_arrow(short).ranges().tolist() == [[1, 5], [100, 2000]]
even = PageSet.from_pages(duckdb.sql("select range * 2 as gfn from range(200000)"))
assert (len(even), even.nranges, even.max()) == (200000, 200000, 399998)
assert duckdb.sql("select count(*), sum(start) from even").fetchall() == [(200000, 39999800000)]
with SharedPages() as pages:
    pages.share(7, 3)
    snap = pages.snapshot()
    assert duckdb.sql("from snap").fetchall() == [(7, 10)]
print("done")
"""


def test_duckdb_both_ways(tmp_path: Path) -> None:
    (tmp_path / "both_ways.py").write_text(DUCKDB)
    assert run(str(tmp_path / "both_ways.py")).endswith("done\n")


def test_the_document_s_examples() -> None:
    examples = doctest.DocTestParser().get_examples(DOCUMENT.read_text())
    assert len(examples) > 30
    assert f"{len(examples)} passed" in run("-m", "doctest", "-v", str(DOCUMENT))
