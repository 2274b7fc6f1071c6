"""Masks from seeds: the keystream of AES-256 in counter mode, added to rows of a ring a piece at a time.

The whole 256-bit seed is the key, and each seed masks one sum only, so the counter begins at zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from medfed.privacy.wide import add_rows

Ring: TypeAlias = NDArray[np.uint32] | NDArray[np.uint64]
"""Elements of Z/2^32 or Z/2^64, of shape (n,), or of Z/2^256, (n, 4); what is added wraps around."""

SEED_BYTES = 32

_PIECE = 2**18
"""Bytes of keystream at a time: they and the sum they go to stay in the processor's cache."""


class Mask:
    """The mask of one seed, with its sign: the keystream, read on from where it was."""

    def __init__(self, seed: bytes, sign: int) -> None:
        """Raises ValueError where the seed has not 32 bytes, or the sign is neither 1 nor −1."""
        if len(seed) != SEED_BYTES or sign not in (1, -1):
            raise ValueError("a mask has a seed of 32 bytes and the sign 1 or -1")
        self._stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
        self._sign = sign

    def fill(self, stream: memoryview) -> None:
        """Write the next bytes of the keystream."""
        self._stream.update_into(_ZEROS[: len(stream)], stream)

    def apply(self, values: NDArray[Any], elements: NDArray[Any]) -> None:
        """Add elements of the mask to as many values of their ring, in place."""
        if values.ndim > 1:
            add_rows(values, elements, self._sign)
        elif self._sign > 0:
            np.add(values, elements, out=values)
        else:
            np.subtract(values, elements, out=values)


def apply_masks(parts: Iterable[Ring], masks: Sequence[Mask]) -> None:
    """Add masks to the parts of a contribution, in place: each mask runs over all parts, in their order."""
    scratch = memoryview(bytearray(_PIECE))
    for part in parts:
        elements = np.frombuffer(scratch, part.dtype).reshape(-1, *part.shape[1:])
        for start in range(0, len(part), len(elements)):
            piece = part[start : start + len(elements)]
            stream, added = scratch[: piece.nbytes], elements[: len(piece)]
            for mask in masks:
                mask.fill(stream)
                mask.apply(piece, added)


_ZEROS = memoryview(bytes(_PIECE))
