"""Tags that add up as contributions do, so that a total shows whether it is that of these contributions, of no others.

A universal hash under a one-time pad (Wegman & Carter 1981, section 3), linear in what it hashes, as in the homomorphic
authenticator of Agrawal & Boneh 2009 (ACNS, section 3): of words x of site i, in the field of p = 2^127 − 1 elements,

    t_i = ⟨r, x_i⟩ + k_i,        Σ t_i = ⟨r, Σ x_i⟩ + Σ k_i

with r and k_i from a seed that the sites share. Who has not the seed, and sees all t_i, gives a sum other than Σ x_i
that still passes with a chance of 2^-126 at most.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from medfed.privacy.agreement import derived
from medfed.privacy.he.messages import framed

PRIME = 2**127 - 1
TAG_BYTES = 16

_AT_A_TIME = 2**14
"""Words whose products are added at a time: of pieces of 16 bits they stay below 2^46, which doubles hold exactly."""

_PIECE, _PIECES = 16, 8
"""Bits of a piece, and the pieces of an element of r, which is the keystream's next 128 bits."""


class Authenticator:
    """The tags of one sum. seed: of 32 bytes, the sites' secret; roster: what the sum is about."""

    def __init__(self, seed: bytes, roster: bytes) -> None:
        self._seed, self._roster = seed, roster

    def tag(self, site: str, words: NDArray[np.uint32]) -> bytes:
        """t_i, of 16 bytes."""
        return ((self._hash(words) + self._pad(site)) % PRIME).to_bytes(TAG_BYTES, "little")

    def fits(self, sums: NDArray[np.uint64], tags: Iterable[tuple[str, bytes]]) -> bool:
        """Whether sums of words, below 2^39, are those of the sites with these tags."""
        expected = sum(int.from_bytes(tag, "little") - self._pad(site) for site, tag in tags)
        return (self._hash(sums) - expected) % PRIME == 0

    def _hash(self, words: NDArray[np.uint32] | NDArray[np.uint64]) -> int:
        """⟨r, x⟩."""
        key = derived(self._seed, framed("hash", self._roster))
        stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        zeros = bytes(_AT_A_TIME * _PIECES * _PIECE // 8)
        total = 0
        for start in range(0, len(words), _AT_A_TIME):
            few = words[start : start + _AT_A_TIME].astype(np.uint64)
            drawn = stream.update(zeros[: len(few) * _PIECES * _PIECE // 8])
            factors = np.frombuffer(drawn, "<u2").reshape(len(few), _PIECES).astype(np.float64)
            pieces = few.astype("<u8").view("<u2").reshape(len(few), 4).astype(np.float64)
            products = factors.T @ pieces
            total += sum(
                int(product) << (_PIECE * (left + right))
                for left, row in enumerate(products)
                for right, product in enumerate(row)
            )
        return total % PRIME

    def _pad(self, site: str) -> int:
        """k_i."""
        return int.from_bytes(derived(self._seed, framed("pad", self._roster, site.encode())), "little") % PRIME
