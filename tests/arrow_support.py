"""Arrow capsules by hand: their addresses, producers that break the rules, the count of releases.

The structures are those of arrow.apache.org/docs/format/CDataInterface.html, as ctypes.
"""

from __future__ import annotations

import ctypes as ct
from typing import Any

_NAMES = {"array": b"arrow_array", "schema": b"arrow_schema", "stream": b"arrow_array_stream"}

_pointer = ct.pythonapi.PyCapsule_GetPointer
_pointer.restype = ct.c_void_p
_pointer.argtypes = [ct.py_object, ct.c_char_p]
_new = ct.pythonapi.PyCapsule_New
_new.restype = ct.py_object
_new.argtypes = [ct.c_void_p, ct.c_char_p, ct.c_void_p]


class Array(ct.Structure):
    """ArrowArray."""


Array._fields_ = [
    *((name, ct.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ct.POINTER(ct.c_void_p)),
    ("children", ct.POINTER(ct.POINTER(Array))),
    ("dictionary", ct.POINTER(Array)),
    ("release", ct.CFUNCTYPE(None, ct.POINTER(Array))),
    ("private_data", ct.c_void_p),
]


class Stream(ct.Structure):
    """ArrowArrayStream, whose get_next alone is called here."""

    _fields_ = (
        ("get_schema", ct.c_void_p),
        ("get_next", ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.POINTER(Array))),
        ("get_last_error", ct.c_void_p),
        ("release", ct.c_void_p),
        ("private_data", ct.c_void_p),
    )


def array_of(capsule: object) -> Array:
    """What an `arrow_array` capsule points to."""
    return Array.from_address(_pointer(capsule, _NAMES["array"]))


def stream_of(capsule: object) -> Stream:
    """What an `arrow_array_stream` capsule points to."""
    return Stream.from_address(_pointer(capsule, _NAMES["stream"]))


def values(array: Array, column: int) -> int:
    """The address of a child's values."""
    child = array.children[column].contents
    assert child.offset == 0
    return int(child.buffers[1])


def empty_capsule(kind: str) -> tuple[object, ct.Array[ct.c_char]]:
    """A capsule of a structure that is released already, and its memory, to be kept."""
    memory = ct.create_string_buffer(256)
    return _new(ct.addressof(memory), _NAMES[kind], None), memory


class Recorder:
    """A producer that hands on another's stream and notes the address of every column in it."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.starts: list[int] = []
        self.stops: list[int] = []
        self._kept: list[object] = []

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        capsule = self.source.__arrow_c_stream__(requested_schema)
        stream = stream_of(capsule)
        real = type(stream.get_next)(ct.cast(stream.get_next, ct.c_void_p).value)

        def get_next(held: int, out: Any) -> int:
            error = int(real(held, out))
            if not error and out.contents.release:
                self.starts.append(values(out.contents, 0))
                self.stops.append(values(out.contents, 1))
            return error

        hook = type(stream.get_next)(get_next)
        stream.get_next = hook
        self._kept.append(hook)
        return capsule


class Streams:
    """A producer of one stream capsule, whatever it is."""

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.capsule


class Arrays:
    """A producer of an array, whatever it is: two capsules are right."""

    def __init__(self, capsules: Any) -> None:
        self.capsules = capsules

    def __arrow_c_array__(self, requested_schema: object = None) -> Any:
        return self.capsules
