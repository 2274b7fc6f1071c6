"""Cryptographic randomness in bulk: AES-256 in counter mode (NIST SP 800-38A) under a key of the system's generator."""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

_WORDS = 2**16
"""Words drawn at a time, so that the plaintext of zeros stays in the cache."""


class Keystream:
    """A stream of uniform 64-bit words. Its key is drawn when it is made, kept nowhere, and never a task's seed.

    Unless ``key`` is given, 32 bytes that are used for nothing else: then it is the same stream again.
    """

    def __init__(self, key: bytes | None = None) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        nonce = secrets.token_bytes(16) if key is None else bytes(16)
        self._cipher = Cipher(algorithms.AES256(key or secrets.token_bytes(32)), modes.CTR(nonce)).encryptor()
        self._zeros = bytes(8 * _WORDS)

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next words, uint64 of shape (count,)."""
        drawn = bytearray(8 * count)
        view = memoryview(drawn)
        for start in range(0, 8 * count, 8 * _WORDS):
            part = view[start : start + 8 * _WORDS]
            part[:] = self._cipher.update(self._zeros[: len(part)])
        return np.frombuffer(drawn, np.uint64)
