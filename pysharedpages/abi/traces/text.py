"""Bytes of many lines at once, read at many places at once.

A `Text` holds whole lines between two margins of line ends, so that a step back from the first
line or ahead of the last one stays inside it. Its methods take arrays of positions and answer with
arrays: each costs a few vector operations whatever the number of places.

Positions count from the start of the front margin. The margins are wider than anything that is read
in one go from a position inside the lines (the widest: a form of `lines`, below 1,024 bytes).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MARGIN", "U64_DIGITS", "Positions", "Text", "Values", "among"]

Positions = NDArray[np.int64]
Values = NDArray[np.uint64]

MARGIN: Final = 1024
U64_DIGITS: Final = {10: 19, 16: 16}
"""How many digits of a base always fit 64 bits."""

_NO_DIGIT: Final = 255


def among(characters: bytes) -> NDArray[np.bool_]:
    """A table of 256: whether a byte is one of `characters`."""
    table = np.zeros(256, np.bool_)
    table[list(characters)] = True
    return table


def _digits() -> NDArray[np.uint8]:
    table = np.full(256, _NO_DIGIT, np.uint8)
    for digits in (b"0123456789abcdef", b"0123456789ABCDEF"):
        table[list(digits)] = range(16)
    return table


_DIGITS: Final = _digits()


class Text:
    """Lines, each with its end; immutable, so safe in any thread."""

    def __init__(self, lines: bytes) -> None:
        margin = b"\n" * MARGIN
        raw = margin + lines + margin
        self._bytes = np.frombuffer(raw, np.uint8)
        self._words = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))
        self._end = MARGIN + len(lines)
        ends = np.flatnonzero(self._bytes[MARGIN : self._end] == ord("\n"))
        self._starts = np.concatenate(([0], ends + 1)) + MARGIN

    def find(self, word: bytes) -> Positions:
        """Where `word` stands, in ascending order."""
        lines = self._bytes[MARGIN : self._end]
        at = np.flatnonzero(lines == word[0]) + MARGIN
        return at[self.matches(at, word)]

    def matches(self, at: Positions, literal: bytes) -> NDArray[np.bool_]:
        """Whether `literal` stands at each position."""
        same = np.ones(len(at), np.bool_)
        for first in range(0, len(literal), 8):
            part = literal[first : first + 8]
            mask = np.uint64((1 << 8 * len(part)) - 1)
            word = np.uint64(int.from_bytes(part, "little"))
            same &= (self._words[at + first] & mask) == word
        return same

    def byte(self, at: Positions) -> NDArray[np.uint8]:
        """The byte at each position."""
        return self._bytes[at]

    def number(self, at: Positions, base: int) -> tuple[Values, Positions]:
        """The number that stands at each position, and how many digits it has.

        Reading stops one digit after what surely fits 64 bits: a value is meaningful if its digits
        are at least 1 and at most `U64_DIGITS[base]`.
        """
        values = np.zeros(len(at), np.uint64)
        digits = np.zeros(len(at), np.int64)
        going = np.ones(len(at), np.bool_)
        for step in range(U64_DIGITS[base] + 1):
            digit = _DIGITS[self._bytes[at + step]]
            going &= digit < base
            if not going.any():
                break
            np.copyto(values, values * np.uint64(base) + digit, where=going)
            digits += going
        return values, digits

    def skip(self, at: Positions, table: NDArray[np.bool_], most: int) -> Positions:
        """The positions after at most `most` bytes of the table's."""
        return self._walk(at, table, most, 1)

    def retreat(self, at: Positions, table: NDArray[np.bool_], most: int) -> Positions:
        """The positions before at most `most` bytes of the table's that end at each."""
        return self._walk(at - 1, table, most, -1) + 1

    def _walk(self, at: Positions, table: NDArray[np.bool_], most: int, step: int) -> Positions:
        at = at.copy()
        for _ in range(most):
            on = table[self._bytes[at]]
            if not on.any():
                break
            at += step * on
        return at

    def line(self, at: Positions) -> Positions:
        """The index of the line that each position lies in, from 0."""
        line: Positions = np.searchsorted(self._starts, at, side="right") - 1
        return line

    def line_length(self, at: Positions) -> Positions:
        """How long the line is that each position lies in, its end not counted."""
        line = self.line(at)
        length: Positions = self._starts[line + 1] - self._starts[line] - 1
        return length
