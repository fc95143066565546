"""Roaring files written by hand: each container as it is given, right or wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

PLAIN = 12346
WITH_RUNS = 12347


@dataclass(frozen=True)
class Container:
    """One container as its header tells of it, and its body."""

    key: int
    pages: int
    body: bytes
    runs: bool = False


def values(key: int, *members: int) -> Container:
    """A container of values."""
    return Container(key, len(members), struct.pack(f"<{len(members)}H", *members))


def bits(key: int, *members: int, pages: int | None = None) -> Container:
    """A container that is a bitmap."""
    body = bytearray(8192)
    for page in members:
        body[page // 8] |= 1 << page % 8
    return Container(key, len(members) if pages is None else pages, bytes(body))


def runs(key: int, *pairs: tuple[int, int], pages: int | None = None) -> Container:
    """A container of runs (first, length)."""
    told = sum(length for _, length in pairs) if pages is None else pages
    body = struct.pack("<H", len(pairs))
    body += b"".join(struct.pack("<HH", first, length - 1) for first, length in pairs)
    return Container(key, told, body, True)


def narrow(containers: Sequence[Container]) -> bytes:
    """A set of 32 bits."""
    n = len(containers)
    if any(each.runs for each in containers):
        flags = bytearray((n + 7) // 8)
        for i, each in enumerate(containers):
            flags[i // 8] |= each.runs << i % 8
        head = struct.pack("<I", WITH_RUNS | n - 1 << 16) + flags
        has_offsets = n >= 4
    else:
        head, has_offsets = struct.pack("<II", PLAIN, n), True
    head += b"".join(struct.pack("<HH", each.key, each.pages - 1) for each in containers)
    at = len(head) + 4 * n
    if has_offsets:
        for each in containers:
            head += struct.pack("<I", at)
            at += len(each.body)
    return head + b"".join(each.body for each in containers)


def wide(*parts: tuple[int, bytes]) -> bytes:
    """A set of 64 bits, of (high half, set of 32 bits)."""
    body = b"".join(struct.pack("<I", high) + part for high, part in parts)
    return struct.pack("<Q", len(parts)) + body
