"""Loss (mean squared error), RMSE and R² of predicted values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Predictions
from medfed.core.messages import Message, adds
from medfed.core.sensitivity import per_row, unmoved
from medfed.metrics.measure import Measure, Measures, ratio, without
from medfed.metrics.segments import Segments, joined

METRICS = ("loss", "rmse", "r2")

_SQUARES = 2.0**120
_ROUNDING = 1e-12
"""The share of Σ(y − center)² below which a variation is what rounding leaves of a constant outcome."""


@dataclass(frozen=True)
class RegressionSums(Message, wire="metrics.regression_sums"):
    """n, Σ(y − ŷ)², and the first two moments of y about ``center``, which is the same at every site.

    withheld: 1 where a site adds nothing because too few patients stand behind it; never where noise is added.
    """

    rows: int = adds(bound=2.0**40, sensitivity=per_row())
    squared_error: float = adds(
        bound=_SQUARES, resolution=2.0**-20, sensitivity=per_row(each=lambda bounds: bounds.width**2)
    )
    first: float = adds(bound=_SQUARES, resolution=2.0**-20, sensitivity=per_row(each=lambda bounds: bounds.width / 2))
    second: float = adds(
        bound=_SQUARES, resolution=2.0**-20, sensitivity=per_row(each=lambda bounds: bounds.width**2 / 4)
    )
    withheld: int = adds(bound=1, sensitivity=unmoved)


def regression_sums(predictions: Predictions, center: float) -> RegressionSums:
    """The sums of one site's predictions."""
    return regression_sums_many([predictions], center)[0]


def bounded_sums(predictions: Predictions, low: float, high: float) -> RegressionSums:
    """The sums about the middle of a range, to which outcomes and predictions are cut."""
    cut = Predictions(predictions.scores.clip(low, high), predictions.targets.astype(float).clip(low, high))
    return regression_sums(cut, (low + high) / 2)


def regression_sums_many(several: Sequence[Predictions], center: float) -> list[RegressionSums]:
    """:func:`regression_sums` of each of several sites, in one pass."""
    rows, segments = joined(several)
    return _sums(rows, segments, np.full(len(several), center))


def summarize(sums: RegressionSums) -> Measures:
    """The metrics of a total. R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)², over all rows of all sites.

    What noise brought below zero counts as zero.
    """
    n = max(sums.rows, 0)
    loss = ratio("loss", max(sums.squared_error, 0.0), n, n, "no rows")
    rmse = loss.value if loss.value is None else math.sqrt(loss.value)
    variation = sums.second - sums.first**2 / n if n else 0.0
    varies = variation > _ROUNDING * sums.second
    reason = "the outcome is constant" if n else "no rows"
    unexplained = ratio("r2", sums.squared_error, variation if varies else 0.0, n, reason)
    r2 = unexplained.value if unexplained.value is None else 1.0 - unexplained.value
    measures = (loss, Measure("rmse", rmse, n, reason=loss.reason), Measure("r2", r2, n, reason=unexplained.reason))
    return without(sums.withheld, Measures(measures))


def measure(predictions: Predictions) -> Measures:
    """The metrics of one site's predictions."""
    return measure_many([predictions])[0]


def measure_many(several: Sequence[Predictions]) -> list[Measures]:
    """:func:`measure` of each of several sites, in one pass."""
    rows, segments = joined(several)
    means = segments.sums(rows.targets.astype(float)) / np.maximum(segments.lengths, 1)
    return [summarize(sums) for sums in _sums(rows, segments, means)]


def _sums(rows: Predictions, segments: Segments, centers: NDArray[np.float64]) -> list[RegressionSums]:
    """The sums of each site about its own center."""
    targets = rows.targets.astype(float)
    centred = targets - centers[segments.site]
    columns = (
        segments.lengths.tolist(),
        segments.sums((targets - rows.scores) ** 2).tolist(),
        segments.sums(centred).tolist(),
        segments.sums(centred**2).tolist(),
    )
    return [RegressionSums(*each, withheld=0) for each in zip(*columns, strict=True)]
