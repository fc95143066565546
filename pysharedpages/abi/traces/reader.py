"""Reads trace text in pieces: finds the events in it, and what of it is malformed.

Every event name that stands as a word of its own is looked at once, all of one name together. A
line is malformed if the event's opening follows its name, whole or cut off by the line's end, and
the rest is not as its form has it. A name with anything else after it is only a mention.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi.traces.lines import FORMS, OPENING, Fields, Form, Where
from pysharedpages.abi.traces.rows import EMPTY, Batch
from pysharedpages.abi.traces.stamps import stamps
from pysharedpages.abi.traces.steps import MisfitError
from pysharedpages.abi.traces.text import MARGIN, Positions, Text, among
from pysharedpages.errors import FormatError

__all__ = ["LONGEST_LINE", "TraceError", "TraceReader", "parse", "read"]

LONGEST_LINE: Final = 1 << 16
"""A longer line is no event, whatever it holds, and is not kept in memory."""

_BLOCK: Final = 1 << 21
"""Bytes looked at in one go: less costs more calls a line, more falls out of the cache."""

_LONGEST_EVENT: Final = 1024
_BEFORE_NAME: Final = among(b"\n \t:")
_KEPT_ERRORS: Final = 16


class TraceError(FormatError):
    """A malformed line: its number from 1, and the offset of the byte that is wrong."""

    def __init__(self, line: int, offset: int, problem: str) -> None:
        super().__init__(f"line {line}, byte {offset}: {problem}", offset=offset)
        self.line = line
        self._problem = problem

    def __reduce__(self) -> tuple[type[TraceError], tuple[int, int | None, str]]:
        return type(self), (self.line, self.offset, self._problem)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


class TraceReader:
    """Reads a trace that comes in pieces, cut anywhere.

    With `malformed="skip"` a malformed line is counted and passed over. Memory is bounded by the
    pieces given, whatever the lines hold. Time is linear in the bytes. One thread at a time.
    """

    def __init__(self, *, malformed: Literal["raise", "skip"] = "raise") -> None:
        if malformed not in ("raise", "skip"):
            raise ValueError(f"malformed is 'raise' or 'skip', not {malformed!r}")
        self._raises = malformed == "raise"
        self._rest = b""
        self._in_long_line = False
        self._offset = 0
        self.lines = 0
        """Lines read so far, of any content."""
        self.malformed = 0
        """Malformed lines passed over."""
        self.errors: tuple[TraceError, ...] = ()
        """The first of them, at most sixteen."""

    def feed(self, data: bytes) -> Batch:
        """The rows of the lines that `data` completes.

        Raises `TraceError` for the first malformed line; the reader is then as before the call.
        """
        before = vars(self).copy()
        try:
            pieces = range(0, len(data), _BLOCK)
            return Batch.joined([self._take(data[at : at + _BLOCK]) for at in pieces])
        except TraceError:
            vars(self).update(before)
            raise

    def finish(self) -> Batch:
        """The rows of the last line, if no line end followed it; the end of the trace."""
        missing_end = bool(self._rest) or self._in_long_line
        return self.feed(b"\n") if missing_end else EMPTY

    def _take(self, data: bytes) -> Batch:
        if self._in_long_line:
            head, end, data = data.partition(b"\n")
            self._offset += len(head) + len(end)
            if not end:
                return EMPTY
            self._in_long_line = False
            self.lines += 1
        whole, end, rest = data.rpartition(b"\n")
        batch = EMPTY
        if end:
            batch = self._lines(self._rest + whole + end)
            self._rest = b""
        self._rest += rest
        if len(self._rest) > LONGEST_LINE:
            self._offset += len(self._rest)
            self._rest, self._in_long_line = b"", True
        return batch

    def _lines(self, lines: bytes) -> Batch:
        text = Text(lines)
        batches = []
        lost: list[tuple[int, Form]] = []
        for form in FORMS:
            if form.name not in lines:
                continue
            at = _names(text, form.name)
            fits, fields = _scanned(text, form, at)
            at, unfit = at[fits], at[~fits]
            if len(at):
                fields = {name: value[fits] for name, value in fields.items()}
                batches.append(form.means(fields, self._where(text, form, at)))
            lost.extend((place, form) for place in unfit.tolist())
        self._explain(text, lines, lost)
        self._offset += len(lines)
        self.lines += lines.count(b"\n")
        return Batch.joined(batches)

    def _where(self, text: Text, form: Form, at: Positions) -> Where:
        time, cpu = stamps(text, at)
        line = text.line(at) + self.lines + 1
        return {"time": time, "cpu": cpu, "line": line, "origin": np.full(len(at), form.origin)}

    def _explain(self, text: Text, lines: bytes, lost: list[tuple[int, Form]]) -> None:
        """Tell malformed lines from mentions of a name: by opening; count them or raise."""
        for place, form in sorted(lost, key=lambda pair: pair[0]):
            first = place - MARGIN + len(form.name)
            stop = lines.find(b"\n", first, first + _LONGEST_EVENT)
            misfit = _misfit(form, lines[first : stop if stop >= 0 else first + _LONGEST_EVENT])
            if misfit is None:
                continue
            line = int(text.line(np.array([place]))[0]) + self.lines + 1
            offset = self._offset + first + misfit.column
            error = TraceError(line, offset, f"{form.origin.event}: expected {misfit.expected}")
            if self._raises:
                raise error
            self.malformed += 1
            if len(self.errors) < _KEPT_ERRORS:
                self.errors = (*self.errors, error)


def _names(text: Text, name: bytes) -> Positions:
    """Where an event's name stands as a word of its own, in lines that are not too long."""
    at = text.find(name)
    at = at[_BEFORE_NAME[text.byte(at - 1)]]
    return at[text.line_length(at) <= LONGEST_LINE]


def _scanned(text: Text, form: Form, at: Positions) -> tuple[NDArray[np.bool_], Fields]:
    """Which of the names have all of the form's steps after them, and what those read."""
    fields: Fields = {}
    fits = np.ones(len(at), np.bool_)
    at = at + len(form.name)
    for step in form.steps:
        if not fits.any():
            break
        good, at, value = step.scan(text, at)
        fits &= good
        if value is not None:
            fields[step.name] = value
    return fits, fields


def _misfit(form: Form, tail: bytes) -> MisfitError | None:
    """What is wrong with an event's line after its name; None if it is no such event's line."""
    at = 0
    for index, step in enumerate(form.steps):
        try:
            at, _ = step.walk(tail, at)
        except MisfitError as misfit:
            cut_off = form.opening.startswith(tail[at:].rstrip(b"\r"))
            ours = index > OPENING or (index == OPENING and cut_off)
            return misfit if ours else None
    return None


def read(source: _Readable, *, malformed: Literal["raise", "skip"] = "raise") -> Iterator[Batch]:
    """The rows of a binary file, a batch for every few thousand lines; bounded memory.

    Raises `TraceError` for the first malformed line, unless `malformed` is "skip".
    """
    reader = TraceReader(malformed=malformed)
    while data := source.read(_BLOCK):
        yield reader.feed(data)
    yield reader.finish()


def parse(lines: bytes, *, malformed: Literal["raise", "skip"] = "raise") -> Batch:
    """The rows of a whole trace; raises as `read`."""
    reader = TraceReader(malformed=malformed)
    return Batch.joined([reader.feed(lines), reader.finish()])
