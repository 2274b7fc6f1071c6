"""How much one patient can move a field of a summed message, as far as the task's bounds say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Bounds:
    """What a task bounds. rows: of one patient at most. classes: of the outcome, 0 for numbers. loss: of one row.

    low, high: the range to which outcomes and predictions are cut.
    """

    rows: int
    classes: int
    loss: float
    low: float = 0.0
    high: float = 0.0

    @property
    def width(self) -> float:
        """high − low."""
        return self.high - self.low


@dataclass(frozen=True)
class Sensitivity:
    """The largest norm of a field's change when all rows of one patient are added or removed: L1 and L2."""

    l1: float
    l2: float


Moves: TypeAlias = Callable[[Bounds], Sensitivity]
"""The sensitivity of a field under a task's bounds."""


def per_row(
    *, each: Callable[[Bounds], float] = lambda bounds: 1.0, fields: Callable[[Bounds], int] = lambda bounds: 1
) -> Moves:
    """Of a field to which one row adds at most ``each`` in so many of its elements."""

    def moves(bounds: Bounds) -> Sensitivity:
        most, count = bounds.rows * each(bounds), fields(bounds)
        return Sensitivity(most * count, most * math.sqrt(count))

    return moves


def unmoved(bounds: Bounds) -> Sensitivity:
    """Of a field that no patient moves: it is public, or noise was added to it before."""
    return Sensitivity(0.0, 0.0)
