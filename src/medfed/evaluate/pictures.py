"""What pictures of a model's quality show, from sums that several sites can form together: no row is needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.metrics.auc import roc_from_histogram
from medfed.metrics.classification import ClassificationSums
from medfed.metrics.scored import GROUPS, of_histogram, reliability


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
    return Pictured(confusion, curve, calibration(sums.histogram[0]))


def calibration(histogram: NDArray[np.int64]) -> list[CalibrationPoint]:
    """The groups of scores with rows, those of the calibration error; none where the bins do not fit them."""
    if histogram.shape[-1] % GROUPS:
        return []
    points = zip(*reliability(of_histogram(*histogram)), strict=True)
    return [CalibrationPoint(score / rows, cases / rows, int(rows)) for score, cases, rows in points if rows > 0]
