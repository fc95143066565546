"""The key of a host, as the guest's program applies it: word by word, with the gfn as tweak."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from pysharedpages.testing.assembler import TWEAK, WORD_FACTOR

__all__ = ["WordCipher"]

_MASK: Final = (1 << 64) - 1
_INVERSE: Final = pow(WORD_FACTOR, -1, 1 << 64)


class WordCipher:
    """A permutation of 64-bit words for each gfn under one 64-bit key; no word has the same image
    under two keys. It hides nothing from anybody: it makes the wrong key useless, in the few
    instructions that an emulated guest can afford.

    `encrypt` is what `Stamp` computes. Stateless, safe in any thread.
    """

    def __init__(self, key: int) -> None:
        self.key = key & _MASK

    @classmethod
    def derived(cls, seed: int, name: str) -> WordCipher:
        """The cipher of the host called `name` in the run that `seed` starts."""
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        return cls(int.from_bytes(digest[:8], "little"))

    def encrypt(self, gfn: int, page: bytes) -> bytes:
        """The ciphertext of `page`, whole 8-byte words, at `gfn`."""
        words = np.frombuffer(page, np.uint64)
        return ((words ^ self._pad(gfn)) * np.uint64(WORD_FACTOR)).tobytes()

    def decrypt(self, gfn: int, page: bytes) -> bytes:
        """What `page` at `gfn` decrypts to: garbage unless this key encrypted it there."""
        words = np.frombuffer(page, np.uint64)
        return (words * np.uint64(_INVERSE) ^ self._pad(gfn)).tobytes()

    def _pad(self, gfn: int) -> np.uint64:
        return np.uint64(gfn * TWEAK & _MASK ^ self.key)
