"""Elements of Z/2^256, for sums of statistics that no machine word holds: rows of four limbs, the least first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMBS = 4
BITS = 64 * LIMBS


def row_of(value: int) -> NDArray[np.uint64]:
    """The row of a whole number, modulo 2^256."""
    return np.frombuffer((value % 2**BITS).to_bytes(BITS // 8, "little"), "<u8").astype(np.uint64)


def signed(row: NDArray[Any]) -> int:
    """The whole number from −2^255 on that a row stands for."""
    return int.from_bytes(row.astype("<u8").tobytes(), "little", signed=True)


def add_rows(into: NDArray[Any], other: NDArray[Any], sign: int = 1) -> None:
    """Add the rows of another array of shape (n, 4), or subtract them, in place; with carries."""
    for row, added in zip(into, other, strict=True):
        row[:] = row_of(signed(row) + sign * signed(added))
