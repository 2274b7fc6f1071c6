"""The area under the ROC curve, and the curve: exact from scores, bounded from histograms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def auc_from_scores(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """The Mann–Whitney statistic, ties counted half; None where one class is absent."""
    positives, negatives = scores[positive], np.sort(scores[~positive])
    if not len(positives) or not len(negatives):
        return None
    below = np.searchsorted(negatives, positives, side="left")
    not_above = np.searchsorted(negatives, positives, side="right")
    return float((below + not_above).sum() / (2 * len(positives) * len(negatives)))


def auc_from_histogram(negatives: NDArray[np.int64], positives: NDArray[np.int64]) -> tuple[float | None, float]:
    """(area, bound of its error) from counts per score bin, lowest bin first; (None, 0) where a class is absent.

    Pairs in one bin count half. The exact share of them lies between none and all, so the area is at most
    ½ Σ_b P_b N_b / (P N) away from that of the unbinned scores.
    """
    total = int(positives.sum()) * int(negatives.sum())
    if total == 0:
        return None, 0.0
    below = np.cumsum(negatives) - negatives
    tied = float((positives * negatives).sum())
    return float(((positives * below).sum() + tied / 2) / total), tied / 2 / total


def roc_from_histogram(
    negatives: NDArray[np.int64], positives: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(false positive rates, true positive rates) at the bins' edges, from (0, 0) to (1, 1), both ascending."""
    fpr = np.concatenate([[0.0], np.cumsum(negatives[::-1]) / negatives.sum()])
    tpr = np.concatenate([[0.0], np.cumsum(positives[::-1]) / positives.sum()])
    keep = np.flatnonzero(np.diff(fpr, append=2.0) + np.diff(tpr, append=2.0))
    return fpr[keep], tpr[keep]
