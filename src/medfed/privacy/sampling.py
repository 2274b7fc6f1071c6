"""Poisson sampling: each row is in a batch with probability q, independently of all others and of other batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medfed.privacy.keystream import Keystream


def poisson_sample(rows: int, rate: float, keystream: Keystream) -> NDArray[np.int64]:
    """The indices of a batch, in order; there may be none.

    rate: q from 0 to 1. It is met to 2⁻⁶⁴ and never exceeded, so that the accounted q holds.
    """
    if rate >= 1.0:
        return np.arange(rows)
    return np.flatnonzero(keystream.words(rows) < np.uint64(int(rate * 2.0**64)))
