"""The C library of the rivals: found, loaded, called, and its memory taken over as arrays.

Everything here serves `rivals`. Arrays that go in are checked, because the library believes them;
arrays that come out own the memory that the library filled.
"""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

GFN_LIMIT: Final = 1 << 52
EVENT_BYTES: Final = 24

Ranges = NDArray[np.uint64]
Bitmap = NDArray[np.uint8] | NDArray[np.uint64]


class RangesOut(ctypes.Structure):
    """`rival_ranges`."""

    _fields_ = [("gfns", ctypes.c_void_p), ("n", ctypes.c_size_t), ("room", ctypes.c_size_t)]


class SplitOut(ctypes.Structure):
    """`rival_split`."""

    _fields_ = [("shared", RangesOut), ("private", RangesOut)]


class LookupsOut(ctypes.Structure):
    """`rival_lookups`."""

    _fields_ = [("pages", ctypes.c_uint64), ("ns", ctypes.c_uint64)]


_POINTER: Final = ctypes.c_void_p
_U64: Final = ctypes.c_uint64
_SIZE: Final = ctypes.c_size_t
_FLAG: Final = ctypes.c_bool
_ARRAY: Final = (ctypes.c_void_p, ctypes.c_size_t)

_SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "free": (None, (_POINTER,)),
    "list_new": (_POINTER, ()),
    "list_free": (None, (_POINTER,)),
    "list_load": (_FLAG, (_POINTER, *_ARRAY)),
    "list_convert": (_FLAG, (_POINTER, _U64, _U64, _FLAG)),
    "list_apply": (_FLAG, (_POINTER, *_ARRAY)),
    "list_export": (_FLAG, (_POINTER, _POINTER)),
    "list_bytes": (_SIZE, (_POINTER,)),
    "kvm_merge": (_FLAG, (_POINTER, *_ARRAY, _POINTER)),
    "qemu_merge": (_FLAG, (_POINTER, *_ARRAY, _U64, _POINTER, _POINTER)),
    "enc_new": (_POINTER, (_U64,)),
    "enc_free": (None, (_POINTER,)),
    "enc_load": (None, (_POINTER, *_ARRAY)),
    "enc_convert": (None, (_POINTER, _U64, _U64, _FLAG)),
    "enc_apply": (None, (_POINTER, *_ARRAY)),
    "enc_bytes": (_SIZE, (_POINTER,)),
    "enc_merge": (_FLAG, (_POINTER, *_ARRAY, _POINTER)),
    "attr_new": (_POINTER, (_FLAG,)),
    "attr_free": (None, (_POINTER,)),
    "attr_load": (_FLAG, (_POINTER, _U64, *_ARRAY)),
    "attr_convert": (_FLAG, (_POINTER, _U64, _U64, _FLAG)),
    "attr_apply": (_FLAG, (_POINTER, *_ARRAY)),
    "attr_is_private": (ctypes.c_uint8, (_POINTER, _U64)),
    "attr_bytes": (_SIZE, (_POINTER,)),
    "attr_merge": (_FLAG, (_POINTER, *_ARRAY, _POINTER)),
    "rmp_new": (_POINTER, (_U64, _U64)),
    "rmp_free": (None, (_POINTER,)),
    "rmp_place": (None, (_POINTER, ctypes.c_uint, _U64, _U64, *_ARRAY, _FLAG)),
    "rmp_bytes": (_SIZE, (_POINTER,)),
    "rmp_walk": (None, (_POINTER, ctypes.c_uint, *_ARRAY)),
    "rmp_merge": (_FLAG, (_POINTER, ctypes.c_uint, *_ARRAY, _POINTER)),
    "pins_new": (_POINTER, ()),
    "pins_free": (None, (_POINTER,)),
    "pins_epoch": (None, (_POINTER, _U64)),
    "pins_snapshot": (None, (_POINTER, _U64)),
    "pins_lock": (None, (_POINTER, _U64)),
    "pins_count": (None, (_POINTER, _U64)),
    "read_pass": (_U64, _ARRAY),
    "copy": (_POINTER, _ARRAY),
    "heap_bytes": (_SIZE, ()),
}


def library_path() -> Path:
    """Where the library is looked for: $SP_RIVALS, else build/bench/librivals.so of this tree."""
    built = Path(__file__).resolve().parents[1] / "build" / "bench" / "librivals.so"
    return Path(os.environ.get("SP_RIVALS", built))


@functools.cache
def _functions() -> dict[str, Any]:
    path = library_path()
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not built: run `make build/bench/librivals.so`, or set SP_RIVALS to it"
        )
    library = ctypes.CDLL(str(path))
    functions = {name: getattr(library, f"rival_{name}") for name in _SIGNATURES}
    for name, (result, arguments) in _SIGNATURES.items():
        functions[name].restype = result
        functions[name].argtypes = arguments
    return functions


def call(name: str, *arguments: Any) -> Any:
    """The result of rival_`name`; `MemoryError` where that is false, or NULL for a pointer."""
    function = _functions()[name]
    result = function(*arguments)
    if result is False or (result is None and function.restype is not None):
        raise MemoryError(f"rival_{name}")
    return result


def freed_with(owner: object, free: str, address: int | None) -> None:
    """Call rival_`free` for what is at the address once its owner is gone; not at exit."""
    weakref.finalize(owner, _functions()[free], address).atexit = False


class Memory:
    """Memory of the library's as NumPy takes it; the array keeps it alive, and it frees itself."""

    def __init__(self, address: int | None, shape: tuple[int, ...], typestr: str) -> None:
        freed_with(self, "free", address)
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": shape,
            "typestr": typestr,
        }


def taken(ranges: RangesOut) -> Ranges:
    """Ranges that the library filled, as an array that owns them."""
    if not ranges.n:
        _functions()["free"](ranges.gfns)
        return np.empty((0, 2), np.uint64)
    return np.asarray(Memory(ranges.gfns, (ranges.n // 2, 2), "<u8"))


def words_of(bitmap: Bitmap) -> tuple[int, int]:
    """Address and words of a bitmap, which the caller keeps alive."""
    flags = bitmap.flags
    if bitmap.dtype not in (np.uint8, np.uint64) or not (flags.c_contiguous and flags.aligned):
        raise TypeError(f"a bitmap is a contiguous array of uint8 or uint64, not {bitmap.dtype}")
    if bitmap.nbytes % 8 or bitmap.ctypes.data % 8:
        raise ValueError(f"a bitmap is whole aligned words of 8 bytes, not {bitmap.nbytes} bytes")
    return bitmap.ctypes.data, bitmap.nbytes // 8


def pairs_of(ranges: Ranges, limit: int = GFN_LIMIT) -> Ranges:
    """Ranges that the library may take as they are."""
    array = np.ascontiguousarray(ranges)
    if array.dtype != np.uint64 or array.ndim != 2 or array.shape[1] != 2:
        raise TypeError(f"ranges are (n, 2) uint64, not {array.shape} {array.dtype}")
    gfns = array.reshape(-1)
    if gfns.size and not ((gfns[1:] > gfns[:-1]).all() and int(gfns[-1]) <= limit):
        raise ValueError(f"ranges are sorted, disjoint, coalesced and end by {limit}")
    return array


def events_of(events: NDArray[np.void], limit: int = GFN_LIMIT) -> NDArray[np.void]:
    """Events that the library may take as they are."""
    array = np.ascontiguousarray(events)
    if array.dtype.itemsize != EVENT_BYTES or array.dtype.names != ("start", "npages", "shared"):
        raise TypeError(f"events are an array of EVENT_DTYPE, not of {array.dtype}")
    start, npages = array["start"], array["npages"]
    if array.size and not ((start <= limit) & (npages <= limit - np.minimum(start, limit))).all():
        raise ValueError(f"events end by {limit}")
    return array
