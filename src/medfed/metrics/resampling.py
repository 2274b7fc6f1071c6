"""Bootstrap intervals: by patient where the rows are at hand, and over the cells of a total where they are not.

Rows drawn with replacement from a table fall into its cells as a multinomial draw does, with the cells' shares as
probabilities (Efron 1979). So what a bootstrap over independent rows would give follows from the counts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.messages import Counts, Message
from medfed.metrics.scored import GROUPS, Scored

SITE_REPLICATES = 500
TOTAL_REPLICATES = 1000
_AT_A_TIME = 2**20
"""Numbers of a block of replicates."""
_ENDS = (0.025, 0.975)
_KNOWN = 0.95


@dataclass(frozen=True)
class Interval(Message, wire="metrics.interval"):
    """The 95 % interval of a metric."""

    metric: str
    low: float
    high: float


def interval(metric: str, replicates: NDArray[np.float64]) -> Interval | None:
    """The percentile interval of the replicates that have the metric.

    None where more than a twentieth lack it (a class is rare), or all are alike: that says nothing.
    """
    known = replicates[~np.isnan(replicates)]
    if len(known) < _KNOWN * len(replicates) or not len(known):
        return None
    low, high = np.quantile(known, _ENDS).tolist()
    return Interval(metric, low, high) if high > low else None


def drawn_patients(patients: Counts, generator: np.random.Generator) -> Iterator[Counts]:
    """How often each row is drawn, blocks of shape (b, rows) of SITE_REPLICATES in all.

    patients: the index in 0…P−1 of each row's. P patients are drawn with replacement, each with all its rows.
    """
    count = int(patients.max()) + 1
    shares = np.full(count, 1 / count)
    for size in _blocks(SITE_REPLICATES, max(len(patients), count)):
        yield generator.multinomial(count, shares, size)[:, patients]


def drawn_counts(counts: Counts, rows: float, generator: np.random.Generator) -> Counts:
    """TOTAL_REPLICATES of a table of counts, each of so many rows (rounded), shape (replicates, *counts.shape)."""
    flat = counts.clip(0).reshape(-1)
    drawn = generator.multinomial(max(round(rows), 1), flat / flat.sum(), TOTAL_REPLICATES)
    return drawn.reshape(TOTAL_REPLICATES, *counts.shape)


@dataclass(frozen=True, eq=False)
class Ordered:
    """A site's rows in the order of their scores, and the cell of equal scores in which each is."""

    cells: Scored
    order: Counts
    starts: Counts
    positive: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> Ordered:
        """From scores and outcomes, shape (n,), of at least one row."""
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-np.inf))
        values = ordered[starts]
        group = np.minimum((values * GROUPS).astype(np.int64), GROUPS - 1)
        outcome = positive[order]
        empty = Scored(values, group, np.empty(0, np.int64), np.empty(0, np.int64))
        made = cls(empty, order, starts, outcome)
        return cls(made.weighted(np.ones(len(scores), np.int64)), order, starts, outcome)

    def weighted(self, weights: Counts) -> Scored:
        """The cells where each row, in the order that was given, counts so often: weights (…, n)."""
        ordered = weights[..., self.order]
        both = np.stack([np.where(self.positive, 0, ordered), np.where(self.positive, ordered, 0)], axis=-2)
        return self.cells.counted(np.add.reduceat(both, self.starts, axis=-1))


def _blocks(replicates: int, width: int) -> Iterator[int]:
    size = max(_AT_A_TIME // width, 1)
    for first in range(0, replicates, size):
        yield min(size, replicates - first)
