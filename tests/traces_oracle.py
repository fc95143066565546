"""A slow reader of traces, line by line and one byte after the other, and the fast one against it.

The steps of a line are the library's own, read by `walk` where the library uses `scan`; what the
lines mean is tested against literals elsewhere.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from pysharedpages.abi import traces
from pysharedpages.abi.traces.lines import FORMS, OPENING, Form
from pysharedpages.abi.traces.steps import MisfitError

Row = tuple[Any, ...]


def slow_walk(form: Form, tail: bytes) -> dict[str, int] | int | None:
    """The fields after a name, or the column that is wrong, or None for a mention."""
    at, fields = 0, {}
    for index, step in enumerate(form.steps):
        try:
            at, value = step.walk(tail, at)
        except MisfitError as misfit:
            rest = tail[at:].rstrip(b"\r")
            ours = index > OPENING or (index == OPENING and form.opening.startswith(rest))
            return misfit.column if ours else None
        fields[step.name] = value
    return fields


def slow_parse(data: bytes) -> tuple[list[list[Row]], list[tuple[int, int]]]:
    """The rows of each array without time and cpu, and (line, offset) of what is malformed."""
    rows: list[list[Row]] = [[], [], [], [], []]
    errors, offset = [], 0
    for number, line in enumerate(data.split(b"\n"), 1):
        found = []
        if len(line) > traces.LONGEST_LINE:
            offset += len(line) + 1
            continue
        for form in (form for form in FORMS if form.name in line):
            pattern = rb"(?:(?<=[ \t:])|^)" + form.name
            for match in re.finditer(pattern, line):
                meaning = slow_walk(form, line[match.end() :])
                if isinstance(meaning, dict):
                    add_rows(rows, form, meaning, number)
                elif meaning is not None:
                    found.append((match.start(), (number, offset + match.end() + meaning)))
        errors += [where for _, where in sorted(found)]
        offset += len(line) + 1
    return rows, errors


def add_rows(rows: list[list[Row]], form: Form, fields: dict[str, int], line: int) -> None:
    columns = {name: np.array([value], np.uint64) for name, value in fields.items()}
    where = {
        "time": np.array([0]),
        "cpu": np.array([0]),
        "origin": np.array([form.origin]),
        "line": np.array([line]),
    }
    for kept, array in zip(rows, form.means(columns, where), strict=True):
        kept += without_stamp(array)


def without_stamp(array: Any) -> list[Row]:
    names = [name for name in array.dtype.names if name not in ("time", "cpu")]
    rows: list[Row] = array[names].tolist()
    return rows


def check_reader(data: bytes) -> None:
    """The reader's answer to any bytes is the slow one's, in one piece or cut as they pick."""
    rows, errors = slow_parse(data)
    reader = traces.TraceReader(malformed="skip")
    cut = sum(data[:2]) if data[:1] > b"M" else len(data)
    pieces = [data[:cut], data[cut:]]
    batch = traces.Batch.joined([*map(reader.feed, pieces), reader.finish()])
    assert [without_stamp(array) for array in batch] == rows
    assert (reader.malformed, len(reader.errors)) == (len(errors), min(16, len(errors)))
    assert [(error.line, error.offset) for error in reader.errors] == errors[:16]
    assert reader.lines == len(data.removesuffix(b"\n").split(b"\n")) - (not data)
    start, npages = batch.events["start"], batch.events["npages"]
    assert (npages >= 1).all() and (start <= 2**52 - npages).all()
    if errors:
        try:
            traces.parse(data)
        except traces.TraceError as error:
            assert (error.line, error.offset) == errors[0]
        else:
            raise AssertionError("a malformed line was not raised")
