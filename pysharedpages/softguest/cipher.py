"""The memory encryption of one host: AES-256-XTS, the gfn as tweak.

The same plaintext gives other ciphertext at another gfn and on another host, as memory
controllers make it. Both calls are stateless and safe in any thread.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["HostCipher", "PageCipher"]


class HostCipher(Protocol):
    """What a host does to the private pages in its memory."""

    def encrypt(self, gfn: int, page: bytes, /) -> bytes:
        """The ciphertext of `page` at `gfn`, as many bytes as came in."""

    def decrypt(self, gfn: int, page: bytes, /) -> bytes:
        """What `page` at `gfn` decrypts to: garbage unless this host encrypted it there."""


class PageCipher:
    """Encrypts and decrypts whole pages under one 64-byte key."""

    def __init__(self, key: bytes) -> None:
        self._algorithm = algorithms.AES(key)

    @classmethod
    def derived(cls, seed: int, name: str) -> PageCipher:
        """The cipher of the host called `name` in the run that `seed` starts."""
        return cls(hashlib.sha512(f"{seed}/{name}".encode()).digest())

    def encrypt(self, gfn: int, page: bytes) -> bytes:
        """The ciphertext of `page` at `gfn`, as many bytes as came in."""
        context = Cipher(self._algorithm, _tweak(gfn)).encryptor()
        return context.update(page) + context.finalize()

    def decrypt(self, gfn: int, page: bytes) -> bytes:
        """What `page` at `gfn` decrypts to: garbage unless this key encrypted it there."""
        context = Cipher(self._algorithm, _tweak(gfn)).decryptor()
        return context.update(page) + context.finalize()


def _tweak(gfn: int) -> modes.XTS:
    return modes.XTS(gfn.to_bytes(16, "little"))
