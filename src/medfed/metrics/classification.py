"""Loss, accuracy, AUC, recall, specificity and Brier score of class probabilities.

Two classes: recall and specificity are those of class 1 at the threshold. More: the class of highest probability is
predicted, and recall, specificity and AUC are one-against-rest means over the classes that occur (macro averages).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Predictions
from medfed.core.messages import Counts, Message, adds
from medfed.metrics.auc import auc_from_histogram, auc_from_scores
from medfed.metrics.measure import Measure, Measures, ratio, without

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
    few patients stand behind it.
    """

    loss: float = adds(bound=_ROWS, resolution=2.0**-20)
    brier: float = adds(bound=_ROWS, resolution=2.0**-20)
    confusion: Counts = adds(bound=_ROWS)
    histogram: Counts = adds(bound=_ROWS)
    withheld: int = adds(bound=1)


def classification_sums(predictions: Predictions, classes: int, threshold: float, bins: int) -> ClassificationSums:
    """The sums of one site's predictions."""
    scores, targets = predictions.scores, predictions.targets.astype(np.int64)
    probabilities = class_probabilities(scores)
    of_truth = probabilities[np.arange(len(targets)), targets]
    predicted = (scores >= threshold).astype(np.int64) if scores.ndim == 1 else scores.argmax(1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    return ClassificationSums(
        loss=float(-np.log(of_truth.clip(_PROBABILITY_FLOOR, 1.0)).sum()),
        brier=_brier(scores, targets),
        confusion=confusion,
        histogram=np.stack([_histogram(score, targets == k, bins) for k, score in one_against_rest(scores)]),
        withheld=0,
    )


def summarize(sums: ClassificationSums) -> Measures:
    """The metrics of a total; the AUC comes from the histogram and states the bound of its error."""
    areas = [auc_from_histogram(h[0], h[1]) for h in sums.histogram]
    return without(sums.withheld, _measures(sums, _mean_area(areas, int(sums.confusion.sum()))))


def measure(predictions: Predictions, classes: int, threshold: float) -> Measures:
    """The metrics of one site's predictions; the AUC is exact."""
    sums = classification_sums(predictions, classes, threshold, bins=1)
    areas = [
        (auc_from_scores(score, predictions.targets == k), 0.0) for k, score in one_against_rest(predictions.scores)
    ]
    return _measures(sums, _mean_area(areas, len(predictions)))


def class_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of every class, shape (n, C), from scores as in :class:`Predictions`."""
    return np.stack([1.0 - scores, scores], axis=1) if scores.ndim == 1 else scores


def one_against_rest(scores: NDArray[np.float64]) -> list[tuple[int, NDArray[np.float64]]]:
    """(class, its score) for class 1 alone where there are two classes, else for each class."""
    return [(1, scores)] if scores.ndim == 1 else [(k, scores[:, k]) for k in range(scores.shape[1])]


def _brier(scores: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    if scores.ndim == 1:
        return float(((scores - targets) ** 2).sum())
    return float(((scores - np.eye(scores.shape[1])[targets]) ** 2).sum())


def _histogram(score: NDArray[np.float64], positive: NDArray[np.bool_], bins: int) -> NDArray[np.int64]:
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    return np.stack([np.bincount(index[mask], minlength=bins) for mask in (~positive, positive)]).astype(np.int64)


def _mean_area(areas: list[tuple[float | None, float]], n: int) -> Measure:
    existing = [(area, error) for area, error in areas if area is not None]
    if not existing:
        return Measure("auc", None, n, reason="no rows" if n == 0 else "one class only")
    values, errors = np.array(existing).mean(0)
    return Measure("auc", float(values), n, error=float(errors) or None)


def _measures(sums: ClassificationSums, auc: Measure) -> Measures:
    confusion, n = sums.confusion, int(sums.confusion.sum())
    truth, hits = confusion.sum(1), np.diag(confusion)
    rejected = n - truth - confusion.sum(0) + hits
    chosen = [1] if len(confusion) == 2 else list(range(len(confusion)))
    return Measures(
        (
            ratio("loss", sums.loss, n, n, "no rows"),
            ratio("accuracy", float(hits.sum()), n, n, "no rows"),
            auc,
            _macro("recall", hits[chosen], truth[chosen], n, "no row of the positive class"),
            _macro("specificity", rejected[chosen], (n - truth)[chosen], n, "no row of the negative class"),
            ratio("brier", sums.brier, n, n, "no rows"),
        )
    )


def _macro(metric: str, hits: NDArray[np.int64], of: NDArray[np.int64], n: int, reason: str) -> Measure:
    occurs = of > 0
    if not occurs.any():
        return Measure(metric, None, n, reason=reason)
    return Measure(metric, float((hits[occurs] / of[occurs]).mean()), n)
