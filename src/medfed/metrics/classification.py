"""Loss, accuracy, AUC, recall, specificity and Brier score of class probabilities.

Two classes: recall and specificity are those of class 1 at the threshold. More: the class of highest probability is
predicted, and recall, specificity and AUC are one-against-rest means over the classes that occur (macro averages).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import MedFedError
from medfed.core.examples import Predictions
from medfed.core.messages import Counts, Message, adds
from medfed.core.sensitivity import per_row, unmoved
from medfed.metrics.auc import areas_from_scores, auc_from_histogram
from medfed.metrics.measure import Measure, Measures, ratio, without
from medfed.metrics.segments import Segments, joined

METRICS = ("loss", "accuracy", "auc", "recall", "specificity", "brier")

BY_CLASS = ("auc", "recall", "specificity")
"""The metrics that look at the rows of one class, and so tell of its size."""

_ROWS = 2.0**40
_PROBABILITY_FLOOR = 1e-15


@dataclass(frozen=True, eq=False)
class ClassificationSums(Message, wire="metrics.classification_sums"):
    """What adds up over sites to every metric of a split.

    loss: Σ −log p(true class), p clipped to [1e-15, 1]. brier: Σ (p − y)² (two classes) or Σ‖p − onehot(y)‖².
    confusion: (C, C), true class by predicted class. histogram: (K, 2, bins), rows that are not and that are class
    k by binned score; K = 1 (class 1 alone) for two classes, else C. withheld: 1 where a site adds nothing because too
    few patients stand behind it; never where noise is added, which a site that fell silent would give away.
    """

    loss: float = adds(bound=_ROWS, resolution=2.0**-20, sensitivity=per_row(each=lambda bounds: bounds.loss))
    brier: float = adds(
        bound=_ROWS, resolution=2.0**-20, sensitivity=per_row(each=lambda b: 1.0 if b.classes == 2 else 2.0)
    )
    confusion: Counts = adds(bound=_ROWS, sensitivity=per_row())
    histogram: Counts = adds(
        bound=_ROWS, sensitivity=per_row(fields=lambda bounds: 1 if bounds.classes == 2 else bounds.classes)
    )
    withheld: int = adds(bound=1, sensitivity=unmoved)


def classification_sums(
    predictions: Predictions, classes: int, threshold: float, bins: int, largest_loss: float | None = None
) -> ClassificationSums:
    """The sums of one site's predictions. Raises MedFedError for scores that are no probabilities."""
    return classification_sums_many([predictions], classes, threshold, bins, largest_loss)[0]


def classification_sums_many(
    several: Sequence[Predictions], classes: int, threshold: float, bins: int, largest_loss: float | None = None
) -> list[ClassificationSums]:
    """:func:`classification_sums` of each of several sites, in one pass.

    largest_loss: to which each row's loss is cut; by default that of the smallest probability.
    """
    rows, segments = joined(several)
    floor = _PROBABILITY_FLOOR if largest_loss is None else math.exp(-largest_loss)
    found = _totals(rows, segments, classes, threshold, floor)
    histogram = _histograms(rows, segments, bins)
    return [
        ClassificationSums(loss, brier, confusion, counts, 0)
        for loss, brier, confusion, counts in zip(
            found.loss.tolist(), found.brier.tolist(), found.confusion, histogram, strict=True
        )
    ]


def summarize(sums: ClassificationSums) -> Measures:
    """The metrics of a total; the AUC comes from the histogram and states the bound of its error.

    Losses and cells that noise brought below zero count as zero.
    """
    areas = [auc_from_histogram(h[0], h[1]) for h in sums.histogram]
    area = np.array([[np.nan if area is None else area for area, _ in areas]])
    losses = np.array([max(sums.loss, 0.0)]), np.array([max(sums.brier, 0.0)])
    totals = _Totals(*losses, sums.confusion.clip(0)[None])
    (measured,) = _measures(totals, area, np.array([[error for _, error in areas]]))
    return without(sums.withheld, measured)


def measure(predictions: Predictions, classes: int, threshold: float) -> Measures:
    """The metrics of one site's predictions; the AUC is exact."""
    return measure_many([predictions], classes, threshold)[0]


def measure_many(several: Sequence[Predictions], classes: int, threshold: float) -> list[Measures]:
    """:func:`measure` of each of several sites, in one pass."""
    rows, segments = joined(several)
    areas = [areas_from_scores(score, rows.targets == k, segments) for k, score in one_against_rest(rows.scores)]
    area = np.stack(areas, axis=1)
    return _measures(_totals(rows, segments, classes, threshold), area, np.zeros_like(area))


def confusion_rates(confusion: Counts) -> dict[str, NDArray[np.float64]]:
    """Accuracy, recall and specificity of each of R confusions, shape (R, C, C), NaN where there is none."""
    truth, hits = confusion.sum(2), np.diagonal(confusion, axis1=1, axis2=2)
    n = truth.sum(1)
    rest = n[:, None] - truth
    rejected = rest - confusion.sum(1) + hits
    chosen = slice(1, 2) if confusion.shape[1] == 2 else slice(None)
    return {
        "accuracy": _mean_ratio(hits.sum(1)[:, None], n[:, None]),
        "recall": _mean_ratio(hits[:, chosen], truth[:, chosen]),
        "specificity": _mean_ratio(rejected[:, chosen], rest[:, chosen]),
    }


def class_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of every class, shape (n, C), from scores as in :class:`Predictions`."""
    return np.stack([1.0 - scores, scores], axis=1) if scores.ndim == 1 else scores


def one_against_rest(scores: NDArray[np.float64]) -> list[tuple[int, NDArray[np.float64]]]:
    """(class, its score) for class 1 alone where there are two classes, else for each class."""
    return [(1, scores)] if scores.ndim == 1 else [(k, scores[:, k]) for k in range(scores.shape[1])]


@dataclass(frozen=True, eq=False)
class _Totals:
    """Of each of S sites: loss and brier (S,), confusion (S, C, C), as in :class:`ClassificationSums`."""

    loss: NDArray[np.float64]
    brier: NDArray[np.float64]
    confusion: Counts


def _totals(
    rows: Predictions, segments: Segments, classes: int, threshold: float, floor: float = _PROBABILITY_FLOOR
) -> _Totals:
    scores, targets = rows.scores, rows.targets.astype(np.int64)
    if not (scores >= 0).all():
        raise MedFedError("the model gives scores that are no probabilities", remedy="lower the learning rate")
    if scores.ndim == 1:
        of_truth = np.where(targets == 1, scores, 1.0 - scores)
        predicted = (scores >= threshold).astype(np.int64)
        squares = (scores - targets) ** 2
    else:
        of_truth = scores[np.arange(len(targets)), targets]
        predicted = scores.argmax(1)
        squares = ((scores - np.eye(scores.shape[1])[targets]) ** 2).sum(1)
    cells = (segments.site * classes + targets) * classes + predicted
    sites = len(segments.lengths)
    return _Totals(
        loss=segments.sums(-np.log(of_truth.clip(floor, 1.0))),
        brier=segments.sums(squares),
        confusion=np.bincount(cells, minlength=sites * classes**2).reshape(sites, classes, classes),
    )


def _histograms(rows: Predictions, segments: Segments, bins: int) -> Counts:
    """Of each of S sites, (S, K, 2, bins), as in :class:`ClassificationSums`."""
    scores = rows.scores[:, None] if rows.scores.ndim == 1 else rows.scores
    sites, counted = len(segments.lengths), scores.shape[1]
    classes = np.array([1]) if counted == 1 else np.arange(counted)
    owner = segments.site[:, None] * counted + np.arange(counted)
    index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    cells = (owner * 2 + (rows.targets[:, None] == classes)) * bins + index
    shape = (sites, counted, 2, bins)
    return np.bincount(cells.ravel(), minlength=math.prod(shape)).reshape(shape)


def _measures(totals: _Totals, area: NDArray[np.float64], error: NDArray[np.float64]) -> list[Measures]:
    """The metrics of S sites from their totals, and from each one's areas (S, K), NaN where there is none."""
    rates, exists = confusion_rates(totals.confusion), ~np.isnan(area)
    columns = (
        totals.confusion.sum((1, 2)).tolist(),
        totals.loss.tolist(),
        rates["accuracy"].tolist(),
        _mean_where(exists, area).tolist(),
        _mean_where(exists, error).tolist(),
        rates["recall"].tolist(),
        rates["specificity"].tolist(),
        totals.brier.tolist(),
    )
    return [
        Measures(
            (
                ratio("loss", loss, rows, rows, "no rows"),
                _known("accuracy", accuracy, rows, "no rows"),
                _known("auc", auc, rows, "one class only" if rows else "no rows", bound or None),
                _known("recall", recall, rows, "no row of the positive class"),
                _known("specificity", specificity, rows, "no row of the negative class"),
                ratio("brier", brier, rows, rows, "no rows"),
            )
        )
        for rows, loss, accuracy, auc, bound, recall, specificity, brier in zip(*columns, strict=True)
    ]


def _mean_where(exists: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row's existing values, NaN where none exists."""
    count = exists.sum(1)
    means = np.full(len(count), np.nan)
    np.divide(np.where(exists, values, 0.0).sum(1), count, out=means, where=count > 0)
    return means


def _mean_ratio(hits: Counts, of: Counts) -> NDArray[np.float64]:
    """The mean of ``hits / of`` over the classes that occur, NaN where none does."""
    occurs = of > 0
    return _mean_where(occurs, np.divide(hits, of, out=np.zeros(of.shape), where=occurs))


def _known(metric: str, value: float, n: int, reason: str, error: float | None = None) -> Measure:
    """A measure, or the reason why there is none where the value is NaN."""
    return Measure(metric, None, n, reason=reason) if math.isnan(value) else Measure(metric, value, n, error=error)
