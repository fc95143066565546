# tier: unit, hostile
"""Sets as buffers, pickles, pyroaring's bitmaps, and the layouts of the proposed ioctls."""

from __future__ import annotations

import array
import io
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyroaring
import pytest
from model import GFN_LIMIT, canonical, gfns, ranges

from pysharedpages import (
    ClosedError,
    FormatError,
    PageSet,
    RangeError,
    SharedPages,
    Snapshot,
)
from pysharedpages._core import unpickled
from pysharedpages.abi import lists

PAIRS = [(3, 7), (2**32, 2**32 + 5), (GFN_LIMIT - 1, GFN_LIMIT)]
FEW = PageSet.from_ranges(ranges(*PAIRS))
MANY = PageSet.from_pages(np.arange(0, 2**18, 2, dtype=np.uint64))  # a bitmap is shorter
FULL = PageSet.from_ranges(ranges((0, GFN_LIMIT)))
SETS = {"empty": PageSet(), "few": FEW, "many": MANY, "full": FULL}

# ---- buffers ----

WORDS = array.array("Q", [20, 30, 3, 7])
BUFFERS: dict[str, Any] = {
    "array": WORDS,
    "memoryview": memoryview(WORDS),
    "two-dimensional": memoryview(WORDS).cast("B").cast("Q", (2, 2)),
    "signed": array.array("q", WORDS),
    "readonly": memoryview(WORDS.tobytes()).cast("Q"),
    "narrow": np.array([[20, 30], [3, 7]], np.uint16),
    "strided": np.array([[20, 0, 30], [3, 0, 7]], np.uint64)[:, ::2],
    "int64": np.array([[20, 30], [3, 7]], np.int64),
    "list": [(20, 30), (3, 7)],
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_ranges_of_any_buffer(kind: str) -> None:
    assert canonical(PageSet.from_ranges(BUFFERS[kind]).ranges()) == [(3, 7), (20, 30)]


@pytest.mark.parametrize("kind", [kind for kind in BUFFERS if kind not in ("list", "narrow")])
def test_gfns_of_any_buffer(kind: str) -> None:
    words = np.asarray(BUFFERS[kind]).reshape(-1)
    for given in (words, words.data, words.tolist()):
        assert PageSet.from_pages(given).pages().tolist() == [3, 7, 20, 30]


def test_arrays_out_are_the_caller_s_and_are_lent_on() -> None:
    made = FEW.ranges()
    view = made.data
    assert (view.format, view.shape, view.c_contiguous) == ("L", (3, 2), True)
    assert np.asarray(view).ctypes.data == made.ctypes.data
    made[0, 0] = 0
    assert canonical(FEW.ranges()) == PAIRS


# ---- pyroaring ----

BITMAPS = [pyroaring.BitMap, pyroaring.FrozenBitMap, pyroaring.BitMap64]


@pytest.mark.parametrize("kind", BITMAPS)
def test_pyroaring_bitmaps(kind: Any) -> None:
    given = kind([1, 2, 3, 70000, 2**32 - 1])
    for made in (PageSet.from_roaring(given), PageSet.from_pages(given)):
        assert canonical(made.ranges()) == [(1, 4), (70000, 70001), (2**32 - 1, 2**32)]
    assert kind.deserialize(made.to_roaring(64 if kind is pyroaring.BitMap64 else 32)) == given


def test_what_serializes_into_something_else_is_refused() -> None:
    class Odd:
        def __init__(self, data: Any) -> None:
            self.serialize = lambda: data

    with pytest.raises(FormatError):
        PageSet.from_roaring(Odd(b"odd"))
    with pytest.raises(TypeError, match="str"):
        PageSet.from_roaring(Odd("odd"))
    with pytest.raises(FormatError, match="byte"):
        PageSet.from_roaring(pyroaring.BitMap64([GFN_LIMIT]))


# ---- pickles ----


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", SETS)
def test_pickles(name: str, protocol: int) -> None:
    given = SETS[name]
    data = pickle.dumps(given, protocol)
    made = pickle.loads(data)
    assert made == given and hash(made) == hash(given) and type(made) is PageSet
    # Not a list where bits are shorter, nor 2^36 containers for what is one range; before
    # protocol 3 a pickle has no bytes, and spells them out.
    assert protocol < 3 or len(data) < min(200 + 16 * given.nranges, 1.7 * 2**18 / 8 + 200)


@pytest.mark.parametrize("name", SETS)
def test_out_of_band_pickles(name: str) -> None:
    given, buffers = SETS[name], list[pickle.PickleBuffer]()
    data = pickle.dumps(given, 5, buffer_callback=buffers.append)
    assert len(data) < 100 and len(buffers) == 1
    for sent in (buffers, [bytes(buffers[0].raw())], [bytearray(buffers[0].raw())]):
        made = pickle.loads(data, buffers=sent)
        assert made == given and hash(made) == hash(given)


def test_a_snapshot_s_pickle_is_a_page_set(engine: str) -> None:
    with SharedPages(engine=engine) as pages:
        pages.share(5, 5)
        snap = pages.snapshot()
        for protocol in (2, 5):
            made = pickle.loads(pickle.dumps(snap, protocol))
            assert made == snap and type(made) is PageSet and not isinstance(made, Snapshot)
        snap.close()
        with pytest.raises(ClosedError):
            pickle.dumps(snap)


@pytest.mark.parametrize("name", ["few", "many"])
def test_tampered_pickles(name: str) -> None:
    buffers = list[pickle.PickleBuffer]()
    data = pickle.dumps(SETS[name], 5, buffer_callback=buffers.append)
    good = bytes(buffers[0].raw())
    for cut in [*range(min(len(good), 64)), len(good) - 1]:
        try:
            made = pickle.loads(data, buffers=[good[:cut]])
        except (FormatError, RangeError):
            continue
        assert cut % 16 == 0 and made != SETS[name]
    outcomes = set()
    for bit in range(8 * min(len(good), 128)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            outcomes.add(pickle.loads(data, buffers=[bad]) == SETS[name])
        except (FormatError, RangeError) as error:
            outcomes.add(type(error))
    assert outcomes >= {FormatError if name == "many" else RangeError} and True not in outcomes


def test_pickles_of_no_known_form() -> None:
    with pytest.raises(FormatError, match="'ranges', not 'odd'"):
        unpickled("odd", b"")
    with pytest.raises(FormatError, match="17 bytes are not whole") as caught:
        unpickled("ranges", bytes(17))
    assert caught.value.offset == 17
    with pytest.raises(TypeError):
        unpickled("ranges", "text")  # type: ignore[arg-type]


def test_pickles_name_nothing_but_one_function() -> None:
    class Asked(pickle.Unpickler):
        names: list[tuple[str, str]] = []  # noqa: RUF012

        def find_class(self, module: str, name: str) -> Any:
            self.names.append((module, name))
            return super().find_class(module, name)

    asked = Asked(io.BytesIO(pickle.dumps([FEW, MANY], 4)))
    assert asked.load() == [FEW, MANY]
    assert set(asked.names) == {("pysharedpages._core", "unpickled")}


def test_sets_cross_to_another_process(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        textwrap.dedent("""
        import pickle, sys
        given = pickle.load(sys.stdin.buffer)
        pickle.dump((given, [len(each) for each in given]), sys.stdout.buffer, 5)
        """)
    )
    ran = subprocess.run(
        [sys.executable, "-P", str(script)],
        input=pickle.dumps([FEW, MANY], 5),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert pickle.loads(ran.stdout) == ([FEW, MANY], [10, 2**17])


def test_multiprocessing() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert canonical(pool.apply(PageSet.ranges, (FEW,))) == PAIRS
        assert pool.apply(PageSet.union_count, (FEW, MANY)) == FEW.union_count(MANY)


# ---- the proposed ioctls ----


def test_get_list_is_the_v10_list() -> None:
    with SharedPages() as pages:
        pages.set_list(ranges((1, 3), (0x40000, 0x80000)))
        octets = pages.get_list().tobytes()
        assert octets.hex() == (
            "01000000000000000300000000000000" + "00000400000000000000080000000000"
        )
        assert lists.decode_list(octets) == pages.snapshot()
        answer = lists.get_list(pages.snapshot(), 4096)
        assert (answer.status, answer.nents, answer.buffer) == (0, 2, octets)
        pages.reset()
        pages.set_list(lists.decode_list(octets).ranges())
        assert pages.get_list().tobytes() == octets


@pytest.mark.parametrize(("first", "npages"), [(0, 128), (0, 70), (3, 64), (5, 1), (2**32 - 9, 20)])
def test_the_bitmap_of_private_pages_is_v8_s(first: int, npages: int) -> None:
    shared = PageSet.from_pages(gfns(1, 4, 5, 66, 67, 2**32 - 1, 2**32))
    private = PageSet.from_ranges(shared.gaps(first, first + npages))
    octets = private.to_bitmap(first, npages).tobytes()
    size = lists.bitmap_bytes(npages)
    assert octets == lists.encode_bitmap(shared, first, npages, bytes(size))
    with SharedPages(initial="shared") as pages:
        pages.apply(lists.PageEncBitmap(first, npages, 0).events(octets))
        window = PageSet.from_ranges(ranges((first, first + npages)))
        assert pages.snapshot() & window == shared & window
        assert len(window - shared) == len(private) == int.from_bytes(octets, "little").bit_count()


def test_the_v8_bitmap_by_hand() -> None:
    shared = PageSet.from_pages(gfns(1, 4, 5))
    private = PageSet.from_ranges(shared.gaps(0, 8))
    assert private.to_bitmap(0, 8).tobytes().hex() == "cd00000000000000"


@pytest.mark.parametrize("shift", [0, 1, 4, 8])
def test_a_bitmap_is_written_to_where_it_is_asked(shift: int) -> None:
    """At any address, aligned or not, and into nothing around it."""
    pages = PageSet.from_ranges([(0, 1), (63, 70), (127, 128)])
    room = np.full(64, 0xAA, np.uint8)
    out = room[shift : shift + 24]
    assert pages.to_bitmap(0, 100, out=out) is out
    assert out[:16].tobytes() == pages.to_bitmap(0, 100).tobytes()
    assert np.delete(room, slice(shift, shift + 16)).tolist() == [0xAA] * 48


def test_a_bitmap_into_a_buffer_takes_no_memory() -> None:
    pages, out = PageSet.from_ranges([(5, 1 << 20)]), np.empty(1 << 20, np.uint8)
    tracemalloc.start()
    pages.to_bitmap(0, 1 << 23, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16
