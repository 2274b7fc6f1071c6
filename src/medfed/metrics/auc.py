"""The area under the ROC curve, and the curve: exact from scores, bounded from histograms."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medfed.metrics.segments import Segments


def auc_from_scores(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """The Mann–Whitney statistic, ties counted half; None where one class is absent."""
    (area,) = areas_from_scores(scores, positive, Segments(np.array([len(scores)]))).tolist()
    return None if math.isnan(area) else area


def areas_from_scores(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], segments: Segments
) -> NDArray[np.float64]:
    """:func:`auc_from_scores` of each site, NaN where one class is absent.

    From the ranks within a site, all rows sorted at once: U = Σ ranks of the positives − P (P + 1) / 2, where tied rows
    have the mean of their ranks. Twice a rank is a whole number, so the statistic is exact.
    """
    site = segments.site
    order = np.lexsort((scores, site))
    ordered, owner = scores[order], site[order]
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]) | (owner[1:] != owner[:-1])
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(ordered))
    offset = (np.cumsum(segments.lengths) - segments.lengths)[owner]
    doubled_rank = np.repeat(starts + ends + 1, ends - starts) - 2 * offset
    positives = segments.sums(positive.astype(np.int64))
    pairs = positives * (segments.lengths - positives)
    doubled = segments.sums(np.where(positive[order], doubled_rank, 0)) - positives * (positives + 1)
    areas = np.full(len(pairs), np.nan)
    np.divide(doubled, 2 * pairs, out=areas, where=pairs > 0)
    return areas


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
