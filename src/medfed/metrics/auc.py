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

    Pairs in one bin count half. The exact share of them lies between none and all, so the area is at most ½ Σ_b P_b N_b
    / (P N) away from that of the unbinned scores. Noisy counts below zero enter as they are, so that noise has no side;
    the area is cut to what an area can be.
    """
    if positives.sum() <= 0 or negatives.sum() <= 0:
        return None, 0.0
    total = int(positives.sum()) * int(negatives.sum())
    below = np.cumsum(negatives) - negatives
    tied = float((positives * negatives).sum())
    area = float(((positives * below).sum() + tied / 2) / total)
    return min(max(area, 0.0), 1.0), max(tied / 2 / total, 0.0)


def roc_from_histogram(
    negatives: NDArray[np.int64], positives: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(false positive rates, true positive rates) at the bins' edges, from (0, 0) to (1, 1), both ascending.

    Rates of noisy counts, which may fall, stay where they were highest, and are 1 at most.
    """
    fpr, tpr = _rates(negatives), _rates(positives)
    keep = np.flatnonzero(np.diff(fpr, append=2.0) + np.diff(tpr, append=2.0))
    return fpr[keep], tpr[keep]


def _rates(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    rates = np.concatenate([[0.0], np.cumsum(counts[::-1]) / counts.sum()])
    rates[-1] = 1.0
    return np.maximum.accumulate(rates.clip(0.0, 1.0))
