"""95 % confidence intervals of final metrics, from counts that the sites showed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medfed.report.records import Measure

Z = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Counts:
    """The patients of both classes among whom a metric was measured."""

    negatives: int
    positives: int


def interval(metric: str, measure: Measure, counts: Counts | None) -> tuple[float, float] | None:
    """The 95 % interval of a metric, or ``None`` where the counts that it needs were not shown.

    Proportions after Wilson (1927): accuracy over n, recall over the positives, specificity over the
    negatives. AUC after Hanley and McNeil (1982). Both take patients as independent and the model as fixed.
    """
    value, n = measure.value, measure.n
    if value is None or not 0 <= value <= 1 or not n:
        return None
    if metric == "accuracy":
        return wilson(value, n)
    if counts is None or counts.positives + counts.negatives != n:
        return None
    if metric == "auc":
        return hanley_mcneil(value, counts) if counts.positives and counts.negatives else None
    base = {"recall": counts.positives, "specificity": counts.negatives}.get(metric)
    return wilson(value, base) if base else None


def wilson(proportion: float, n: int) -> tuple[float, float]:
    """The score interval of a proportion of n; it ends exactly at 0 where none, and at 1 where all are."""
    centre = (proportion + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(proportion * (1 - proportion) / n + Z**2 / (4 * n**2))
    return centre - half if proportion > 0 else 0.0, centre + half if proportion < 1 else 1.0


def hanley_mcneil(auc: float, counts: Counts) -> tuple[float, float]:
    """AUC ± z·SE with SE² = (A(1-A) + (n₁-1)(Q₁-A²) + (n₀-1)(Q₂-A²)) / (n₁n₀), cut to [0, 1]."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    ones, zeros = counts.positives, counts.negatives
    variance = (auc * (1 - auc) + (ones - 1) * (q1 - auc**2) + (zeros - 1) * (q2 - auc**2)) / (ones * zeros)
    half = Z * math.sqrt(max(0.0, variance))
    return max(0.0, auc - half), min(1.0, auc + half)
