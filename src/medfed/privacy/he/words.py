"""Rings as words: an element of 32, 64 or 256 bits is 1, 2 or 8 words of 32 bits, whose sums over sites carry over.

So totals are the elements that masking would give (:mod:`medfed.privacy.ring`), to the bit, for fields of any bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medfed.privacy import wide
from medfed.privacy.masks import Ring

_WORD = 32


def words_of(rings: dict[int, Ring]) -> NDArray[np.uint32]:
    """The words of all rings' elements, the narrowest ring first and of each element the least word first."""
    parts = [np.ascontiguousarray(ring, ring.dtype.newbyteorder("<")) for ring in rings.values()]
    return np.concatenate([part.view("<u4").reshape(-1) for part in parts]).astype(np.uint32, copy=False)


def words_in(sizes: dict[int, tuple[int, ...]]) -> int:
    """The words of rings of these shapes."""
    return sum(_per_row(bits) * shape[0] for bits, shape in sizes.items())


def rings_of(sums: NDArray[np.uint64], sizes: dict[int, tuple[int, ...]]) -> dict[int, Ring]:
    """The elements of rings of these shapes whose words add up to these sums, each modulo its ring."""
    rings: dict[int, Ring] = {}
    start = 0
    for bits, shape in sizes.items():
        end = start + shape[0] * _per_row(bits)
        rings[bits] = _elements(sums[start:end].reshape(shape[0], _per_row(bits)), bits)
        start = end
    return rings


def _elements(words: NDArray[np.uint64], bits: int) -> Ring:
    if bits == _WORD:
        return words[:, 0].astype(np.uint32)
    if bits == 2 * _WORD:
        return words[:, 0] + (words[:, 1] << np.uint64(_WORD))
    whole = [sum(int(word) << (_WORD * place) for place, word in enumerate(row)) for row in words]
    return np.array([wide.row_of(each) for each in whole], np.uint64).reshape(-1, wide.LIMBS)


def _per_row(bits: int) -> int:
    return bits // _WORD
