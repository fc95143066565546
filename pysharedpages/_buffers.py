"""What callers hand in, as arrays the C core can read: checked for type and shape, not for values.

Any buffer of native uint64 is taken as it is, without a copy where it is contiguous. Bytes-like
objects are read as raw native uint64. Signed integers are taken if none is negative, smaller
unsigned ones are widened; lists and tuples are converted for convenience. Everything else - floats,
booleans, objects, foreign byte order - is a `TypeError`. Pure functions, safe in any thread.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.errors import FormatError, RangeError

__all__ = [
    "EVENT_DTYPE",
    "RING_DTYPE",
    "as_bits",
    "as_events",
    "as_pages",
    "as_positions",
    "as_ranges",
    "as_ring",
    "is_array",
]

EVENT_DTYPE: Final = np.dtype([("start", "<u8"), ("npages", "<u8"), ("shared", "u1")], align=True)
"""One conversion of pages [start, start + npages); shared is 1 or 0. 24 bytes."""

RING_DTYPE: Final = np.dtype([("flags", "<u4"), ("slot", "<u4"), ("offset", "<u8")])
"""struct kvm_dirty_gfn of <linux/kvm.h>. 16 bytes."""


def as_ranges(given: Any) -> NDArray[np.uint64]:
    """`given` as a C-contiguous (n, 2) array of uint64."""
    words = _as_words(given, "ranges")
    if words.ndim == 1 and words.size % 2 == 0:
        words = words.reshape(-1, 2)
    if words.ndim != 2 or words.shape[1] != 2:
        raise FormatError(f"ranges have shape (n, 2), not {words.shape}: {words.size} values")
    return np.ascontiguousarray(words)


def as_pages(given: Any) -> NDArray[np.uint64]:
    """`given` as a contiguous one-dimensional array of uint64."""
    words = _as_words(given, "pages")
    if words.ndim != 1:
        raise FormatError(f"pages have one dimension, not {words.ndim}")
    return np.ascontiguousarray(words)


def is_array(given: Any) -> bool:
    """True for what holds many integers: a list, a tuple, a buffer of one dimension or more."""
    if isinstance(given, (int, np.generic)):
        return False
    if isinstance(given, (list, tuple)):
        return True
    try:
        return memoryview(given).ndim > 0
    except TypeError:
        return False


def as_positions(given: Any, count: int) -> NDArray[np.uint64]:
    """Positions in a sequence of `count`, negative ones from its end, as `as_pages` gives them.

    IndexError, with the position, for one that is not in it.
    """
    data = np.asarray(given) if isinstance(given, (list, tuple)) else _as_array(given, "positions")
    if data.dtype.kind != "i" or not data.dtype.isnative:
        positions = as_pages(given)
        beyond = positions >= count
    else:
        signed = data.astype(np.int64)
        beyond = (signed >= count) | (signed < -count)
        positions = as_pages(np.where(beyond, 0, signed + np.where(signed < 0, count, 0)))
    if beyond.any():
        at = int(beyond.argmax())
        raise IndexError(f"index {at} is {int(data[at])}: the set has {count} pages")
    return positions


def as_events(given: Any) -> NDArray[np.void]:
    """`given` as a contiguous array of EVENT_DTYPE."""
    if isinstance(given, np.ndarray) and given.dtype is EVENT_DTYPE and given.ndim == 1:
        return np.ascontiguousarray(given)
    return _as_records(given, EVENT_DTYPE, "events")


def as_ring(given: Any) -> NDArray[np.void]:
    """`given` as a contiguous array of RING_DTYPE; raw bytes are whole entries."""
    if not isinstance(given, (np.ndarray, list, tuple)):
        data = _as_array(given, "ring entries")
        if data.dtype.kind in "uib" and data.ndim == 1:
            if data.nbytes % RING_DTYPE.itemsize:
                size = RING_DTYPE.itemsize
                text = f"{data.nbytes} bytes are not whole ring entries of {size} bytes"
                raise FormatError(text, offset=data.nbytes)
            return np.ascontiguousarray(data).view(RING_DTYPE)
    return _as_records(given, RING_DTYPE, "ring entries")


def as_bits(given: Any) -> NDArray[np.uint8]:
    """`given` as the bytes of a little-endian bitmap."""
    data = _as_array(given, "a bitmap")
    if data.dtype.kind not in "ui" or not data.dtype.isnative:
        raise TypeError(f"a bitmap is a buffer of native integers, not of {data.dtype}")
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


def _as_array(given: Any, what: str) -> NDArray[Any]:
    if isinstance(given, np.ndarray):
        return given
    if isinstance(given, str):
        raise TypeError(f"{what} must be a buffer, not str")
    try:
        return np.asarray(memoryview(given))
    except TypeError:
        raise TypeError(f"{what} must be a buffer, not {type(given).__name__}") from None


def _as_words(given: Any, what: str) -> NDArray[np.uint64]:
    data = _of_list(given, what) if isinstance(given, (list, tuple)) else _as_array(given, what)
    kind = data.dtype.kind
    if kind not in "ui" or not data.dtype.isnative:
        raise TypeError(f"{what} must be native uint64, not {data.dtype}")
    if kind == "i":
        if data.size and int(data.min()) < 0:
            raise RangeError(f"{what} hold {int(data.min())}, which is below 0")
        return data.astype(np.uint64)
    if data.dtype.itemsize == 1 and not isinstance(given, np.ndarray):
        if data.nbytes % 8:
            text = f"{data.nbytes} bytes are not whole 8-byte values"
            raise FormatError(text, offset=data.nbytes)
        return np.ascontiguousarray(data).reshape(-1).view(np.uint64)
    return data.astype(np.uint64, copy=False)


def _of_list(given: list[Any] | tuple[Any, ...], what: str) -> NDArray[Any]:
    try:
        data = np.array(given) if len(given) else np.empty(0, np.uint64)
    except OverflowError as error:
        raise RangeError(f"{what}: {error}") from None
    except ValueError as error:
        raise FormatError(f"{what} are rows of different lengths: {error}") from None
    if data.dtype.kind in "fO":  # what NumPy makes of integers that no one type of its own holds
        flat = np.array(given, np.object_).reshape(-1).tolist()
        for value in flat if all(type(each) is int for each in flat) else ():
            if not 0 <= value < 1 << 64:
                raise RangeError(f"{what} hold {value}, not in [0, {1 << 64})")
    return data


def _as_records(given: Any, dtype: np.dtype[np.void], what: str) -> NDArray[np.void]:
    if isinstance(given, (list, tuple)):
        try:
            given = np.array([tuple(record) for record in given], dtype=dtype)
        except OverflowError as error:
            raise RangeError(f"{what}: {error}") from None
    data = _as_array(given, what)
    fields, wanted = data.dtype.fields, dtype.fields
    assert wanted is not None
    same = fields is not None and data.dtype.names == dtype.names
    if not same or any(fields[name][0] != wanted[name][0] for name in wanted):  # type: ignore[index]
        raise TypeError(f"{what} must have dtype {dtype}, not {data.dtype}")
    if data.ndim != 1:
        raise FormatError(f"{what} have one dimension, not {data.ndim}")
    return np.ascontiguousarray(data.astype(dtype, copy=False))
