"""What a line is made of: steps, which one after the other read it from left to right.

A step reads in two ways. `scan` reads at many places of a `Text` at once, and says for each
whether it fits. `walk` reads one line, and where it does not fit raises `MisfitError` with the
column and what was expected: it explains a failed `scan`, and is its slow second implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pysharedpages.abi.traces.text import U64_DIGITS, Positions, Text, Values, among

__all__ = [
    "BLANKS",
    "Blank",
    "Choice",
    "End",
    "Literal",
    "MisfitError",
    "Number",
    "Scanned",
    "Step",
]

BLANKS: Final = among(b" \t")
MOST_BLANKS: Final = 64
"""Tools pad names and numbers to columns; none to more than this."""


class Scanned(NamedTuple):
    """Where a step fits, the positions after it, and the value it read, if it reads one."""

    fits: NDArray[np.bool_]
    after: Positions
    value: Values | None = None


class MisfitError(Exception):
    """A line is not what a step expects; `column` counts bytes from 0."""

    def __init__(self, column: int, expected: str) -> None:
        super().__init__(expected)
        self.column = column
        self.expected = expected


class Step(Protocol):
    """One step; `name` is that of the field it reads, empty if it reads none."""

    @property
    def name(self) -> str: ...
    def scan(self, text: Text, at: Positions) -> Scanned: ...
    def walk(self, line: bytes, at: int) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Literal:
    """These very bytes."""

    text: bytes
    name: str = ""

    def scan(self, text: Text, at: Positions) -> Scanned:
        return Scanned(text.matches(at, self.text), at + len(self.text))

    def walk(self, line: bytes, at: int) -> tuple[int, int]:
        if not line.startswith(self.text, at):
            raise MisfitError(at, repr(self.text.decode()))
        return at + len(self.text), 0


@dataclass(frozen=True)
class Blank:
    """Blanks, or none."""

    name: str = ""

    def scan(self, text: Text, at: Positions) -> Scanned:
        return Scanned(np.ones(len(at), np.bool_), text.skip(at, BLANKS, MOST_BLANKS))

    def walk(self, line: bytes, at: int) -> tuple[int, int]:
        rest = line[at : at + MOST_BLANKS]
        return at + len(rest) - len(rest.lstrip(b" \t")), 0


@dataclass(frozen=True)
class Number:
    """An unsigned number below 2^`bits`; with `digits`, of exactly so many."""

    name: str
    base: int = 16
    bits: int = 64
    digits: int | None = None

    def scan(self, text: Text, at: Positions) -> Scanned:
        value, digits = text.number(at, self.base)
        if self.digits is None:
            fits = (digits >= 1) & (digits <= U64_DIGITS[self.base])
        else:
            fits = digits == self.digits
        if self.bits < 64:
            fits &= value < np.uint64(1 << self.bits)
        return Scanned(fits, at + digits, value)

    def walk(self, line: bytes, at: int) -> tuple[int, int]:
        wanted = b"0123456789abcdefABCDEF" if self.base == 16 else b"0123456789"
        text = line[at : at + 64]
        text = text[: len(text) - len(text.lstrip(wanted))]
        kind = "hexadecimal" if self.base == 16 else "decimal"
        if not text or self.digits not in (None, len(text)):
            length = "" if self.digits is None else f"{self.digits} digits of "
            raise MisfitError(at, f"{length}a {kind} number for {self.name}")
        if len(text) > U64_DIGITS[self.base] or int(text, self.base) >> self.bits:
            raise MisfitError(at, f"{self.name} below 2^{self.bits}")
        return at + len(text), int(text, self.base)


@dataclass(frozen=True)
class Choice:
    """One of several words; the value is its index. Among words that begin alike the first wins."""

    name: str
    words: tuple[bytes, ...]

    def scan(self, text: Text, at: Positions) -> Scanned:
        value = np.full(len(at), len(self.words), np.uint64)
        length = np.zeros(len(at), np.int64)
        for index, word in reversed(list(enumerate(self.words))):
            here = text.matches(at, word)
            value[here] = index
            length[here] = len(word)
        return Scanned(value < len(self.words), at + length, value)

    def walk(self, line: bytes, at: int) -> tuple[int, int]:
        for index, word in enumerate(self.words):
            if line.startswith(word, at):
                return at + len(word), index
        shown = ", ".join(repr(word.decode()) for word in self.words)
        raise MisfitError(at, f"{self.name} to be one of {shown}")


@dataclass(frozen=True)
class End:
    """The end of the line, after blanks and a carriage return if there are such."""

    name: str = ""

    def scan(self, text: Text, at: Positions) -> Scanned:
        at = text.skip(at, BLANKS, MOST_BLANKS)
        at = at + (text.byte(at) == ord("\r"))
        return Scanned(text.byte(at) == ord("\n"), at)

    def walk(self, line: bytes, at: int) -> tuple[int, int]:
        at, _ = Blank().walk(line, at)
        if line[at : at + 1] == b"\r":
            at += 1
        if at != len(line):
            raise MisfitError(at, "the end of the line")
        return at, 0
