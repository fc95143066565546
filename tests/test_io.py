# tier: hostile
"""Sets in files: what is written, by whom it is read, replacing, damage, reading in part."""

from __future__ import annotations

import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from abi_support import bit_flips, truncations
from model import GFN_LIMIT, canonical, ranges
from roaring_files import bits, narrow, runs, values, wide

from pysharedpages import ClosedError, FormatError, PageSet, RangeError, SharedPages
from pysharedpages import io as pageio

MAGIC = bytes.fromhex("d1d33964")
SMALL = PageSet.from_ranges(ranges((1, 2), (5, 6), (70_000, 70_010), (1 << 40, (1 << 40) + 3)))
MIXED = wide(
    (0, narrow([values(0, 1, 5), bits(1, *range(0, 9000, 2)), runs(7, (3, 9), (50, 1))])),
    (3, narrow([values(2, 9)])),
    (9, narrow([runs(i, (i, 4), (100, 60)) for i in range(6)])),
)


def blob(vector: bytes) -> bytes:
    """A vector in the framing of deletion-vector-v1."""
    body = MAGIC + vector
    return struct.pack(">I", len(body)) + body + struct.pack(">I", zlib.crc32(body))


def puffin(payload: bytes, *blobs: bytes, flags: int = 0) -> bytes:
    """A Puffin file with any footer."""
    tail = struct.pack("<iI", len(payload), flags)
    return b"PFA1" + b"".join(blobs) + b"PFA1" + payload + tail + b"PFA1"


def entry(offset: int, length: int, **more: Any) -> dict[str, Any]:
    """What a footer says of a blob."""
    return {"type": "deletion-vector-v1", "offset": offset, "length": length} | more


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pages.puffin"


# What is written


def test_the_file_by_its_specification(path: Path) -> None:
    pageio.save(path, SMALL, data_file="guest-7")
    data = path.read_bytes()
    assert data[:4] == data[-4:] == b"PFA1"
    size, flags = struct.unpack("<iI", data[-12:-4])
    assert flags == 0
    assert data[-16 - size : -12 - size] == b"PFA1"
    (told,) = json.loads(data[-12 - size : -12])["blobs"]
    expected = blob(SMALL.to_roaring(64))
    assert data[4 : -16 - size] == expected
    assert (told["type"], told["offset"], told["length"]) == (
        "deletion-vector-v1",
        4,
        len(expected),
    )
    assert (told["snapshot-id"], told["sequence-number"]) == (-1, -1)
    assert told["properties"] == {
        "referenced-data-file": "guest-7",
        "cardinality": str(len(SMALL)),
    }
    assert "compression-codec" not in told


@pytest.mark.parametrize("pages", [PageSet(), SMALL, PageSet.from_roaring(MIXED)])
def test_round_trip(path: Path, pages: PageSet) -> None:
    pageio.save(path, pages)
    assert pageio.load(path) == pages
    with pageio.load(path, mmap=True) as mapped:
        assert mapped.pageset() == pages
        mapped.verify()


def test_a_snapshot_is_saved(path: Path) -> None:
    pages = SharedPages("1GiB")
    pages.share(10, 20)
    with pages.snapshot() as snapshot:
        pageio.save(path, snapshot)
        assert pageio.load(path) == snapshot


def test_the_blob_alone_is_read(path: Path) -> None:
    path.write_bytes(blob(SMALL.to_roaring(64)))
    assert pageio.load(path) == SMALL


def test_other_blobs_are_passed_over(path: Path) -> None:
    vector = blob(MIXED)
    other = {"type": "apache-datasketches-theta-v1", "offset": 4, "length": 9}
    footer = {"blobs": [other, entry(13, len(vector))]}
    path.write_bytes(puffin(json.dumps(footer).encode(), b"sketching", vector))
    assert pageio.load(path) == PageSet.from_roaring(MIXED)


# Replacing


def test_a_file_is_replaced_whole(path: Path) -> None:
    path.write_bytes(b"what was there")
    path.chmod(0o640)
    with path.open("rb") as before:
        pageio.save(path, SMALL)
        assert before.read() == b"what was there"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == [path.name]


def test_a_new_file_has_the_permissions_of_any(path: Path) -> None:
    other = path.with_name("other")
    other.touch()
    pageio.save(path, SMALL)
    assert path.stat().st_mode == other.stat().st_mode


def test_a_link_stays_a_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path.name)
    pageio.save(link, SMALL)
    assert link.is_symlink()
    assert pageio.load(path) == SMALL


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "fchmod"])
def test_failing_leaves_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path.write_bytes(b"what was there")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if call == "write":
        monkeypatch.setattr("pysharedpages.io.framing.zlib.crc32", lambda *_: 1 << 40)
        with pytest.raises(struct.error):
            pageio.save(path, SMALL)
    else:
        monkeypatch.setattr(f"pysharedpages.io.replacing.os.{call}", fail)
        with pytest.raises(OSError, match="No space"):
            pageio.save(path, SMALL)
    assert path.read_bytes() == b"what was there"
    assert os.listdir(path.parent) == [path.name]


def test_what_is_no_regular_file_is_left_alone(path: Path) -> None:
    os.mkfifo(path)
    for attempt in (
        lambda: pageio.save(path, SMALL),
        lambda: pageio.load(path),
        lambda: pageio.load(path, mmap=True),
        lambda: pageio.load(path.parent),
        lambda: pageio.save(path.parent, SMALL),
        lambda: pageio.load(path.with_name("nothing")),
        lambda: pageio.save(path / "below", SMALL),
    ):
        with pytest.raises(OSError, match=r"regular|No such|Not a directory"):
            attempt()
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_folder_that_cannot_be_read_is_saved_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the file is in its place, saving has not failed."""
    real = os.open

    def unreadable(name: Any, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied", name)
        return real(name, flags, *rest)

    monkeypatch.setattr("pysharedpages.io.replacing.os.open", unreadable)
    pageio.save(path, SMALL)
    assert pageio.load(path) == SMALL


def test_errors_name_the_file_that_was_asked_for(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        pageio.save(path / "below", SMALL)
    assert caught.value.filename == str(path / "below")


def test_the_name_of_a_data_file_is_text(path: Path) -> None:
    with pytest.raises(TypeError, match="data_file must be str, not int"):
        pageio.save(path, SMALL, data_file=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="surrogate"):
        pageio.save(path, SMALL, data_file="\udc80")
    assert not path.exists()


def test_a_set_that_no_file_can_hold(path: Path) -> None:
    """It is refused by its size, before a byte of it is made."""
    for most in (1 << 44, GFN_LIMIT):
        with pytest.raises(RangeError, match=f"more than {(1 << 31) - 5}"):
            pageio.save(path, PageSet.from_ranges(ranges((0, most))))
    assert os.listdir(path.parent) == []


def test_what_is_no_set_is_not_saved(path: Path) -> None:
    for given in ([1, 2], None, b"", ranges((1, 2))):
        with pytest.raises(TypeError, match="PageSet"):
            pageio.save(path, given)  # type: ignore[arg-type]
    assert not path.exists()


# Damage


def loads(path: Path) -> Iterator[Any]:
    """Every way to read all of a file: each gives the set, or raises."""
    yield pageio.load
    yield lambda path: verified(pageio.load(path, mmap=True))


def verified(mapped: pageio.MappedSet) -> PageSet:
    with mapped:
        mapped.verify()
        return mapped.pageset()


@pytest.mark.parametrize("whole", [True, False])
def test_damage(path: Path, whole: bool, scale: float) -> None:
    """At every byte cut off, every bit flipped: the same set, or a FormatError with an offset.

    The footer is long: of a whole file some bits are flipped, at scale 8 all.
    """
    pageio.save(path, SMALL)
    good = path.read_bytes() if whole else blob(SMALL.to_roaring())
    cut, flipped = list(truncations(good)), list(bit_flips(good))
    if whole:
        flipped = flipped[:: max(1, round(8 / scale))]
    same = 0
    for i, damaged in enumerate(cut + flipped):
        path.write_bytes(damaged)
        for load in loads(path):
            try:
                assert load(path) == SMALL
                assert i >= len(cut)
                same += 1
            except FormatError as error:
                assert error.offset is not None
                assert error.offset <= len(damaged)
    # Of a footer, names and numbers that nobody needs may change.
    assert (same > 0) is whole
    assert same < 2 * 8 * (len(good) - len(blob(SMALL.to_roaring())) + 1)


@pytest.mark.parametrize(
    ("footer", "what"),
    [
        (b"", "JSON"),
        (b"[", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "JSON"),
        (json.dumps({"blobs": [entry(4, 30)]}).encode("utf-16"), "JSON"),
        (b'{"blobs": 7}', "JSON"),
        (b'{"blobs": "deletion-vector-v1"}', "JSON"),
        (b'{"blobs": []}', "no blob"),
        (json.dumps({"blobs": [entry(4, 30)] * 2}).encode(), "which is meant"),
        (json.dumps({"blobs": [entry(4, 10**30)]}).encode(), "bytes from byte 4"),
        (json.dumps({"blobs": [entry(-4, 30)]}).encode(), "from byte -4"),
        (json.dumps({"blobs": [entry(4, -30)]}).encode(), "-30 bytes"),
        (json.dumps({"blobs": [entry(4, True)]}).encode(), "no integer"),
        (json.dumps({"blobs": [entry(4, 4)]}).encode(), "too few"),
        (json.dumps({"blobs": [{"type": "deletion-vector-v1"}]}).encode(), "no integer"),
        (json.dumps({"blobs": [entry(4, 30) | {"compression-codec": "lz4"}]}).encode(), "compress"),
        (json.dumps({"blobs": [entry(4, 30, properties={"cardinality": "x"})]}).encode(), "count"),
        (json.dumps({"blobs": [entry(4, 42, properties={"cardinality": "3"})]}).encode(), "has 1"),
    ],
)
def test_footers_that_lie(path: Path, footer: bytes, what: str) -> None:
    vector = blob(wide((0, narrow([values(0, 7)]))))
    path.write_bytes(puffin(footer, vector))
    for mmap in (False, True):
        with pytest.raises(FormatError, match=what) as caught:
            pageio.load(path, mmap=mmap)
        assert caught.value.offset is not None


def test_a_compressed_footer_is_told_of(path: Path) -> None:
    path.write_bytes(puffin(b"{}", flags=1))
    with pytest.raises(FormatError, match="compressed"):
        pageio.load(path)


@pytest.mark.parametrize(
    "vector",
    [
        b"",
        narrow([values(0, 7)]),
        struct.pack("<Q", 1 << 40),
        wide((1, narrow([values(0, 7)])), (1, narrow([]))),
        wide((GFN_LIMIT >> 32, narrow([]))),
        wide((0, b"\x77" * 12)),
        wide((0, struct.pack("<II", 12346, 65537))),
        wide((0, narrow([values(3, 7), values(3, 8)]))),
        wide((0, narrow([values(3, 7, 7)]))),
        wide((0, narrow([runs(3, (7, 2), pages=9)]))),
        wide((0, narrow([values(3, 7)]))) + b"\x00",
        struct.pack("<Q", 2) + wide((0, narrow([values(3, 7)])))[8:],
    ],
)
def test_vectors_that_lie(path: Path, vector: bytes) -> None:
    path.write_bytes(blob(vector))
    for load in loads(path):
        with pytest.raises(FormatError, match=r"byte \d+ of \d+: ") as caught:
            load(path)
        assert caught.value.offset is not None
        assert 0 <= caught.value.offset <= len(vector) + 12


def test_offsets_are_those_of_the_file(path: Path) -> None:
    path.write_bytes(blob(wide((0, narrow([values(3, 7), values(4, 8, 8)])))))
    for load in loads(path):
        with pytest.raises(FormatError, match="not above the one before it") as caught:
            load(path)
        assert caught.value.offset == 8 + 12 + 8 + 16 + 2 + 2


# Reading in part


def test_a_mapped_set_answers_as_the_set(
    path: Path, rng: np.random.Generator, scale: float
) -> None:
    for _ in range(round(8 * scale)):
        starts = rng.integers(0, 1 << int(rng.integers(17, 53)), 40, dtype=np.uint64)
        lengths = rng.integers(1, 1 << int(rng.integers(1, 19)), 40, dtype=np.uint64)
        stops = np.minimum(starts + lengths, np.uint64(GFN_LIMIT))
        pages = PageSet.from_ranges(np.stack([starts, stops], 1)) | PageSet.from_roaring(MIXED)
        pageio.save(path, pages)
        with pageio.load(path, mmap=True) as mapped:
            assert len(mapped) == len(pages)
            borders = [0, GFN_LIMIT, *pages.ranges().reshape(-1)[rng.integers(0, 80, 8)].tolist()]
            for start in borders:
                for stop in borders:
                    if start <= stop:
                        assert mapped.count(start, stop) == pages.count(start, stop)
                        table = mapped.ranges(start, stop)
                        assert canonical(table) == canonical(pages.ranges(start, stop))
                if start < GFN_LIMIT:
                    assert (start in mapped) == (start in pages)
            low, high = sorted(borders[2:4])
            window = PageSet.from_ranges(ranges((low, high)))
            assert mapped.pageset(low, high) == pages & window


def test_a_mapped_set_reads_what_it_is_asked_for(path: Path) -> None:
    """The rest of the file may be anything, until it is verified."""
    data = bytearray(blob(MIXED))
    data[-20] ^= 0xFF
    path.write_bytes(data)
    with pageio.load(path, mmap=True) as mapped:
        assert len(mapped) == len(PageSet.from_roaring(MIXED))
        assert canonical(mapped.ranges(0, 16)) == [(1, 2), (5, 6)]
        assert mapped.nbytes < 1000
        with pytest.raises(FormatError, match="CRC"):
            mapped.verify()


def test_a_file_cut_off_under_a_mapped_set(path: Path) -> None:
    pageio.save(path, PageSet.from_roaring(MIXED))
    with pageio.load(path, mmap=True) as mapped:
        os.truncate(path, 100)
        assert 1 in mapped
        for attempt in (mapped.pageset, mapped.verify, lambda: mapped.ranges(65536, 90_000)):
            with pytest.raises(FormatError, match="shorter"):
                attempt()
        assert mapped.count() == len(mapped)


def test_a_file_replaced_under_a_mapped_set(path: Path) -> None:
    pageio.save(path, SMALL)
    with pageio.load(path, mmap=True) as mapped:
        pageio.save(path, PageSet())
        assert mapped.pageset() == SMALL
        path.unlink()
        mapped.verify()


def test_a_mapped_set_that_is_closed(path: Path) -> None:
    pageio.save(path, SMALL)
    mapped = pageio.load(path, mmap=True)
    mapped.close()
    mapped.close()
    for attempt in (mapped.pageset, mapped.verify, mapped.ranges, lambda: 5 in mapped):
        with pytest.raises(ClosedError, match="closed"):
            attempt()


def test_windows_out_of_bounds(path: Path) -> None:
    pageio.save(path, SMALL)
    with pageio.load(path, mmap=True) as mapped:
        windows = [((5, 4), r"\[5, 4\)"), ((-1, 4), "start is -1"), ((0, GFN_LIMIT + 1), "stop is")]
        for window, what in windows:
            for attempt in (mapped.count, mapped.ranges, mapped.pageset):
                with pytest.raises(RangeError, match=what):
                    attempt(*window)
        for gfn in (-1, GFN_LIMIT):
            with pytest.raises(RangeError, match="gfn"):
                assert gfn in mapped
        others: list[Any] = [1.0, "1", [1], np.float64(1), np.bool_(True)]
        asked: list[Callable[[Any], object]] = [
            *(mapped.count, mapped.ranges, mapped.pageset, mapped.__contains__)
        ]
        for given in others:
            for ask in asked:
                with pytest.raises(TypeError, match="must be an integer, not"):
                    ask(given)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.uint64])
def test_windows_of_numpy_integers(path: Path, kind: Any) -> None:
    """They are what ranges() is made of, and wrap where Python's do not."""
    pageio.save(path, SMALL)
    with pageio.load(path, mmap=True) as mapped:
        window = kind(0), kind(100)
        assert mapped.count(*window) == 2
        assert mapped.ranges(*window).tolist() == [[1, 2], [5, 6]]
        assert len(mapped.pageset(*window)) == 2
        assert kind(5) in mapped
        assert kind(6) not in mapped
