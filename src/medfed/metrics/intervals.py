"""The bootstrap intervals of a classifier's metrics: from a site's rows, or from a total."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Predictions
from medfed.core.messages import Counts
from medfed.metrics import scored
from medfed.metrics.classification import ClassificationSums, confusion_rates, one_against_rest
from medfed.metrics.resampling import Interval, Ordered, drawn_counts, drawn_patients, interval
from medfed.metrics.scored import Figures, Scored

BY_SCORE: dict[str, Callable[[Scored], Figures]] = {
    "auc": scored.auc,
    "average_precision": scored.average_precision,
    "ece": scored.calibration_error,
    "brier": scored.brier,
}
"""The figures that follow from scores of one class against the others."""


def by_patient(
    found: Predictions, classes: int, threshold: float, patients: Counts, generator: np.random.Generator
) -> tuple[Interval, ...]:
    """From replicates of a site's patients. patients: the index in 0…P−1 of each row's; there is a row at least.

    Not of the Brier score of several classes, which is a sum over them, and no mean.
    """
    several = ordered(found)
    cell = confusion_cells(found, classes, threshold)
    order = np.argsort(cell, kind="stable")
    present, starts = np.unique(cell[order], return_index=True)
    replicates: defaultdict[str, list[Figures]] = defaultdict(list)
    for weights in drawn_patients(patients, generator):
        cells = [one.weighted(weights) for one in several]
        counted = np.zeros((len(weights), classes * classes), np.int64)
        counted[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
        figures = confusion_rates(counted.reshape(-1, classes, classes))
        figures |= {metric: macro(figure, cells) for metric, figure in BY_SCORE.items()}
        for metric, values in figures.items():
            replicates[metric].append(values)
    if classes != 2:
        del replicates["brier"]
    return _intervals({metric: np.concatenate(each) for metric, each in replicates.items()})


def of_total(total: ClassificationSums, rows: float, generator: np.random.Generator) -> tuple[Interval, ...]:
    """From replicates of a total's cells, of so many rows each.

    Of more than two classes, from the confusion alone: their histograms share rows, and only sites know which.
    """
    figures = confusion_rates(drawn_counts(total.confusion, rows, generator))
    if len(total.confusion) == 2:
        drawn = scored.of_histogram(*total.histogram[0]).counted(drawn_counts(total.histogram[0], rows, generator))
        figures |= {metric: figure(drawn) for metric, figure in BY_SCORE.items()}
    return _intervals(figures)


def _intervals(replicates: dict[str, Figures]) -> tuple[Interval, ...]:
    found = (interval(metric, values) for metric, values in replicates.items())
    return tuple(each for each in found if each is not None)


def ordered(found: Predictions) -> list[Ordered]:
    """The rows by score, once for class 1 of two, else for each class."""
    return [Ordered.of(score, found.targets == k) for k, score in one_against_rest(found.scores)]


def confusion_cells(found: Predictions, classes: int, threshold: float) -> Counts:
    """The index of each row in the flattened confusion, true class by predicted."""
    chosen = found.scores >= threshold if found.scores.ndim == 1 else found.scores.argmax(1)
    cells: Counts = found.targets.astype(np.int64) * classes + chosen
    return cells


def macro(figure: Callable[[Scored], Figures], several: Sequence[Scored]) -> Figures:
    """The mean over the classes that have the figure, NaN where none has."""
    each = np.stack([figure(cells) for cells in several])
    exists = ~np.isnan(each)
    total: NDArray[np.float64] = np.where(exists, each, 0).sum(0)
    mean: Figures = np.divide(total, exists.sum(0), out=np.full(each.shape[1:], np.nan), where=exists.any(0))
    return mean
