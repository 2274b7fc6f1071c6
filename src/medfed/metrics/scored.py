"""Rows counted by their score: the one form from which ROC, precision-recall and calibration are computed.

Scores of a site are exact, with one cell for each different score; those of a total are the middles of a histogram's
bins. Counts may have leading axes, a bootstrap's replicates say, and every figure then has them too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.messages import Counts

GROUPS = 10
"""Equal ranges of the score that a reliability diagram and the expected calibration error have."""

Figures = NDArray[np.float64]
"""One figure for each replicate; NaN where there is none."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Counts of rows that are not (negatives) and that are (positives) of a class, shape (…, G), by score.

    scores: (G,), ascending. group: (G,) the range in 0…GROUPS−1 of each.
    """

    scores: NDArray[np.float64]
    group: Counts
    negatives: Counts
    positives: Counts

    def counted(self, counts: Counts) -> Scored:
        """The same cells with other counts, shape (…, 2, G): negatives, then positives."""
        return Scored(self.scores, self.group, counts[..., 0, :], counts[..., 1, :])

    @property
    def rows(self) -> Counts:
        """The rows of each cell."""
        return self.negatives + self.positives


def of_histogram(negatives: Counts, positives: Counts) -> Scored:
    """The cells of a histogram, lowest bin first; noisy counts below zero are none.

    Bins have to be a multiple of GROUPS for their groups to be those of the scores.
    """
    bins = len(negatives)
    middles = (np.arange(bins) + 0.5) / bins
    return Scored(middles, np.arange(bins) * GROUPS // bins, negatives.clip(0), positives.clip(0))


def auc(cells: Scored) -> Figures:
    """The Mann–Whitney statistic; rows of one cell count half."""
    below = np.cumsum(cells.negatives, axis=-1) - cells.negatives / 2
    pairs = cells.positives.sum(-1).astype(float) * cells.negatives.sum(-1)
    return _ratio((cells.positives * below).sum(-1), pairs)


def average_precision(cells: Scored) -> Figures:
    """Σ (Rₖ − Rₖ₋₁) Pₖ over thresholds from the highest score down, without interpolation.

    Of positives alone it would be 1 whatever the model: there is none then, as there is no AUC.
    """
    true, all_ = _above(cells)
    precision = _ratio(true, all_)
    found = _ratio((cells.positives[..., ::-1] * np.nan_to_num(precision)).sum(-1), cells.positives.sum(-1))
    return np.where(cells.negatives.sum(-1) > 0, found, np.nan)


def _digamma(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """ψ(x), by torch: scipy, which is imported for nothing else here, takes 12 MB."""
    import torch

    found: NDArray[np.float64] = torch.digamma(torch.from_numpy(x)).numpy()
    return found


def average_precision_error(cells: Scored) -> float:
    """How far at most the average precision of a histogram is from that of the scores behind it.

    In a bin of p positives and n negatives, below which T positives and F negatives score higher, it is largest where
    the positives share the highest score, p (T + p)/(T + p + F), and smallest where they come last and one by one,
    Σᵢ (T + i)/(T + i + F + n) = p − (F + n) (ψ(T + p + F + n + 1) − ψ(T + F + n + 1)).
    """
    p, n = cells.positives[::-1].astype(float), cells.negatives[::-1].astype(float)
    true, false = np.cumsum(p) - p, np.cumsum(n)
    total = p.sum()
    if total == 0 or n.sum() == 0:
        return 0.0
    best = (p * np.nan_to_num(_ratio(true + p, true + p + false - n))).sum() / total
    worst = (p - false * (_digamma(true + p + false + 1) - _digamma(true + false + 1))).sum() / total
    found = float(average_precision(cells))
    return max(float(best) - found, found - float(worst), 0.0)


def calibration_error(cells: Scored) -> Figures:
    """Expected calibration error (Naeini et al. 2015): Σ_b (n_b/n) |mean score − share of positives|, over GROUPS."""
    predicted, observed, rows = reliability(cells)
    return _ratio(np.abs(predicted - observed).sum(-1), rows.sum(-1))


def brier(cells: Scored) -> Figures:
    """The mean of (score − outcome)²."""
    squares = cells.negatives * cells.scores**2 + cells.positives * (1 - cells.scores) ** 2
    return _ratio(squares.sum(-1), cells.rows.sum(-1))


def reliability(cells: Scored) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """By group, shape (…, GROUPS): the sum of the scores, the positives, and the rows."""
    member = np.eye(GROUPS)[cells.group]
    return (cells.rows * cells.scores) @ member, cells.positives @ member, cells.rows @ member


def precision_recall(cells: Scored) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(recall, precision) at each threshold from the highest down, recall ascending; empty without positives."""
    true, all_ = _above(cells)
    positives = cells.positives.sum()
    if positives == 0:
        return np.empty(0), np.empty(0)
    keep = np.flatnonzero(np.diff(all_, prepend=0))
    recall, precision = true[keep] / positives, true[keep] / all_[keep]
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


def _above(cells: Scored) -> tuple[Counts, Counts]:
    """The positives, and all rows, that score as high as each cell or higher; the highest cell first."""
    return np.cumsum(cells.positives[..., ::-1], axis=-1), np.cumsum(cells.rows[..., ::-1], axis=-1)


def _ratio(above: NDArray[np.generic], below: NDArray[np.generic]) -> Figures:
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    found: Figures = np.divide(above, below, out=np.full(shape, np.nan), where=np.asarray(below) > 0)
    return found
