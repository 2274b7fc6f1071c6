"""What pictures of a model's quality show, from sums that several sites can form together: no row is needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.metrics.auc import roc_from_histogram
from medfed.metrics.classification import ClassificationSums

_GROUPS = 10


@dataclass(frozen=True)
class CalibrationPoint:
    """Rows of about the same score: their mean score (to the width of a bin), the share of class 1, and how many."""

    predicted: float
    observed: float
    n: int


@dataclass(frozen=True)
class Pictured:
    """roc: false and true positive rates, ascending. confusion: rows by true class, then by predicted class."""

    confusion: list[list[int]]
    roc: tuple[list[float], list[float]] | None
    calibration: list[CalibrationPoint]


def pictured(sums: ClassificationSums) -> Pictured:
    """What a total shows; the curve and the calibration of two classes only."""
    confusion = [[int(n) for n in row] for row in sums.confusion.clip(0)]
    if len(sums.histogram) != 1:
        return Pictured(confusion, None, [])
    negatives, positives = sums.histogram[0].clip(0)
    curve = None
    if negatives.sum() and positives.sum():
        fpr, tpr = roc_from_histogram(negatives, positives)
        curve = (fpr.tolist(), tpr.tolist())
    return Pictured(confusion, curve, calibration(negatives, positives))


def calibration(negatives: NDArray[np.int64], positives: NDArray[np.int64]) -> list[CalibrationPoint]:
    """At most ten groups of about as many rows each, by rising score, from counts per score bin.

    A bin's rows stay together, and count with the score of its middle.
    """
    rows, middles = negatives + positives, (np.arange(len(negatives)) + 0.5) / len(negatives)
    if not rows.sum():
        return []
    group = np.minimum((np.cumsum(rows) - 1) * _GROUPS // int(rows.sum()), _GROUPS - 1)
    found = []
    for number in range(_GROUPS):
        chosen = (group == number) & (rows > 0)
        n = int(rows[chosen].sum())
        if n:
            found.append(
                CalibrationPoint(float((rows * middles)[chosen].sum() / n), float(positives[chosen].sum() / n), n)
            )
    return found
