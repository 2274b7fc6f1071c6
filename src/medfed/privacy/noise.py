"""Gaussian noise that an adversary can neither predict nor read off its last bits.

Words of a :class:`~medfed.privacy.keystream.Keystream` become normal deviates by Box and Muller 1958 in float64, with
uniforms of 53 bits: z = √(−2 ln u₁) (cos 2πu₂, sin 2πu₂), so that |z| ≤ 8.6, beyond which lies a mass of 1e-17.

Mironov 2012 ("On significance of the least significant bits for differential privacy") shows that a sum of a secret
and floating-point noise can give the secret away: not every float can come from every secret. So the noisy total is
rounded to a fixed grid, a power of two of at most 2⁻²⁰ of the noise's scale and independent of the data, before anybody
sees it: some 2³⁰ float64 sums fall into each point of the grid. This hides the pattern; it is no proof for finite
precision, which only a discrete mechanism has.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medfed.privacy.keystream import Keystream

_GRID_BITS = 20
_AT_A_TIME = 2**16
"""Deviates formed at a time, so that what is between stays in the processor's cache; even, for they come in pairs."""


def normals(keystream: Keystream, count: int) -> NDArray[np.float64]:
    """Standard normal deviates, float64 of shape (count,)."""
    found = np.empty(count + count % 2)
    for start in range(0, found.size, _AT_A_TIME):
        part = found[start : start + _AT_A_TIME]
        half = part.size // 2
        uniform = keystream.words(part.size) >> np.uint64(11)
        radius = np.sqrt(-2.0 * np.log((uniform[:half] + np.uint64(1)) * 2.0**-53))
        angle = uniform[half:] * (2.0 * math.pi * 2.0**-53)
        np.multiply(radius, np.cos(angle), out=part[:half])
        np.multiply(radius, np.sin(angle), out=part[half:])
    return found[:count]


def add_noise(total: NDArray[np.float64], scale: float, keystream: Keystream) -> None:
    """Add noise of standard deviation ``scale`` to a vector in place, and round it to the grid; 0 changes nothing."""
    if scale == 0:
        return
    total += scale * normals(keystream, total.size)
    grid = grid_of(scale)
    np.rint(total / grid, out=total)
    total *= grid


def grid_of(scale: float) -> float:
    """The grid to which a total with noise of this scale is rounded: a power of two."""
    return float(2.0 ** (math.floor(math.log2(scale)) - _GRID_BITS))
