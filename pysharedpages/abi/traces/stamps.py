"""When and where a line was traced: what stands before an event's name, read backwards from it.

| who wrote the line | what stands before the name |
|---|---|
| QEMU, plain log | nothing |
| QEMU, log with a prefix | `TID@seconds.microseconds:` |
| QEMU, `-msg timestamp=on` | `2026-11-22T18:00:01.250000Z ` (the fraction is left out if it is 0) |
| ftrace, trace-cmd report | `comm-PID   [cpu] flags  seconds.fraction: `; a `(TGID)`, or no flags |
| perf script | `comm PID [cpu] seconds.fraction:   kvm:`; or no cpu |
| QEMU through ftrace | as ftrace, then `tracing_mark_write: ` |

A clock without a point counts ticks, and they are taken as nanoseconds. A prefix of another shape
carries no time and no cpu; its line counts all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi.traces.rows import NO_CPU, NO_TIME
from pysharedpages.abi.traces.steps import BLANKS, MOST_BLANKS
from pysharedpages.abi.traces.text import Positions, Text, among

__all__ = ["stamps"]

_Mask = NDArray[np.bool_]

_SYSTEMS: Final = (b"kvm:", b"tracing_mark_write: ")
_CLOCK: Final = among(b"0123456789.")
_CALENDAR: Final = among(b"0123456789-:T.")
_DIGITS: Final = among(b"0123456789")
_FLAGS: Final = ~among(b" \t\r\n[]")
_WIDEST: Final = 32
_MOST_FLAGS: Final = 16
# Well below 2^63 nanoseconds, so that sums of a time and a span fit too.
_MOST_TICKS: Final = 2**62
_MOST_SECONDS: Final = _MOST_TICKS // 10**9 - 1
_TENS: Final = np.array([10 ** (9 - digits) for digits in range(10)], np.int64)
# Where a calendar time has its parts: offset, digits, what stands before, and least and greatest.
_PARTS: Final = (
    (0, 4, None, 1970, 2199),
    (5, 2, b"-", 1, 12),
    (8, 2, b"-", 1, 31),
    (11, 2, b"T", 0, 23),
    (14, 2, b":", 0, 59),
    (17, 2, b":", 0, 60),
)
_CALENDAR_BYTES: Final = 19


def stamps(text: Text, at: Positions) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The time in nanoseconds and the cpu of the events whose names start at `at`."""
    time = np.full(len(at), NO_TIME, np.int64)
    cpu = np.full(len(at), NO_CPU, np.int32)
    for system in _SYSTEMS:
        at = at - len(system) * text.matches(at - len(system), system)
    close = text.byte(at - 1) == ord(":")
    _fill(time, close, _thread_time, text, at - 1)
    end = text.retreat(at, BLANKS, MOST_BLANKS) - 1
    apart = ~close & (end + 1 < at)
    last = text.byte(end)
    _fill(time, apart & (last == ord("Z")), _calendar_time, text, end)
    kernel = apart & (last == ord(":"))
    if kernel.any():
        time[kernel], cpu[kernel] = _kernel_time(text, end[kernel])
    return time, cpu


def _fill(
    time: NDArray[np.int64],
    where: _Mask,
    read: Callable[[Text, Positions], NDArray[np.int64]],
    text: Text,
    end: Positions,
) -> None:
    if where.any():
        time[where] = read(text, end[where])


def _thread_time(text: Text, end: Positions) -> NDArray[np.int64]:
    start = text.retreat(end, _CLOCK, _WIDEST)
    time, pointed = _clock(text, start, end)
    good = pointed & (text.byte(start - 1) == ord("@"))
    return np.where(good, time, NO_TIME)


def _kernel_time(text: Text, end: Positions) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    start = text.retreat(end, _CLOCK, _WIDEST)
    before = text.retreat(start, BLANKS, MOST_BLANKS)
    time, _ = _clock(text, start, end)
    good = (time != NO_TIME) & ((before < start) | (text.byte(start - 1) == ord("\n")))
    cpu = np.where(good, _cpu(text, before), NO_CPU)
    return np.where(good, time, NO_TIME), cpu.astype(np.int32)


def _cpu(text: Text, end: Positions) -> NDArray[np.int64]:
    """The number in the brackets that end at `end`, or before one word of flags that does."""
    flags = text.retreat(end, _FLAGS, _MOST_FLAGS)
    bracket = text.retreat(flags, BLANKS, MOST_BLANKS)
    end = np.where((flags < end) & (bracket < flags), bracket, end)
    start = text.retreat(end - 1, _DIGITS, 6)
    value, digits = text.number(start, 10)
    good = (text.byte(end - 1) == ord("]")) & (text.byte(start - 1) == ord("["))
    good &= (digits >= 1) & (digits <= 5)
    return np.where(good, value.astype(np.int64), NO_CPU)


def _clock(text: Text, start: Positions, end: Positions) -> tuple[NDArray[np.int64], _Mask]:
    """Nanoseconds of `seconds.fraction` or ticks that fill [start, end), and which have a point."""
    whole, digits = text.number(start, 10)
    point = start + digits
    pointed = (text.byte(point) == ord(".")) & (point < end)
    nanoseconds, after = _fraction(text, point)
    seconds_fit = pointed & (after == end) & (whole <= np.uint64(_MOST_SECONDS))
    ticks_fit = (point == end) & (whole < np.uint64(_MOST_TICKS))
    some = (digits >= 1) & (digits <= 19)
    whole = np.where(some & (seconds_fit | ticks_fit), whole, 0).astype(np.int64)
    time = np.where(pointed, whole * np.where(pointed, 10**9, 0) + nanoseconds, whole)
    return np.where(some & (seconds_fit | ticks_fit), time, NO_TIME), pointed


def _fraction(text: Text, point: Positions) -> tuple[NDArray[np.int64], Positions]:
    """Nanoseconds of the one to nine digits after each point; else it ends at the point itself."""
    value, digits = text.number(point + 1, 10)
    good = (text.byte(point) == ord(".")) & (digits >= 1) & (digits <= 9)
    digits = np.where(good, digits, 0)
    nanoseconds = np.where(good, value, 0).astype(np.int64) * _TENS[digits]
    return nanoseconds, np.where(good, point + 1 + digits, point)


def _calendar_time(text: Text, end: Positions) -> NDArray[np.int64]:
    start = text.retreat(end, _CALENDAR, _WIDEST)
    good = np.ones(len(end), np.bool_)
    parts = []
    for offset, width, before, least, most in _PARTS:
        value, digits = text.number(start + offset, 10)
        good &= (digits == width) & (value >= least) & (value <= most)
        if before is not None:
            good &= text.matches(start + offset - 1, before)
        parts.append(np.where(good, value, least).astype(np.int64))
    year, month, day, hour, minute, second = parts
    nanoseconds, after = _fraction(text, start + _CALENDAR_BYTES)
    good &= after == end
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    return np.where(good, seconds * 10**9 + nanoseconds, NO_TIME)
