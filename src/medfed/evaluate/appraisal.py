"""The final appraisal of a classifier: ROC, precision-recall, calibration, confusion, and bootstrap intervals.

A site draws its intervals from its own patients, and releases their ends alone. The federation's are drawn from the
cells of a total that was released already: over independent rows that is the bootstrap of rows, exactly. Where patients
have several rows, a replicate has as many rows as there are independent ones (Kish 1965), (Σ m)²/Σ m² for patients of m
rows: as if a patient's rows all said the same, so that an interval is rather too wide than too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medfed.core.disclosure import WITHHELD, releasable, suppress_cells
from medfed.core.errors import MedFedError, Refused
from medfed.core.examples import Predictions
from medfed.core.messages import Counts, Message, adds
from medfed.core.protocols import Federation, SiteContext
from medfed.core.rng import generator
from medfed.core.steps import Release, step
from medfed.data.table import SiteTable
from medfed.evaluate.evaluation import FEDERATED, Candidate, check_classes, shows_classes, shows_curve
from medfed.metrics import scored
from medfed.metrics.auc import roc_from_histogram
from medfed.metrics.classification import ClassificationSums, classification_sums
from medfed.metrics.intervals import BY_SCORE, by_patient, confusion_cells, macro, of_total, ordered
from medfed.metrics.measure import Measure, Measures, without
from medfed.metrics.resampling import Interval, Ordered
from medfed.metrics.scored import GROUPS, Figures, Scored
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

METRICS = ("average_precision", "ece")
"""What an appraisal measures beside :data:`medfed.metrics.classification.METRICS`."""

_ANY_CLASS = ("accuracy", "brier", "ece")
"""What does not tell of the rows of one class."""

_CURVE_BINS = 50


@dataclass(frozen=True, eq=False)
class Curve(Message, wire="evaluation.curve"):
    """Points of a curve, x ascending; none where it may not be shown."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]


NO_CURVE = Curve(np.empty(0), np.empty(0))


@dataclass(frozen=True, eq=False)
class Appraisal(Message, wire="evaluation.appraisal"):
    """What is shown of a model at the end, of one site or of all. What may not be shown is empty, or None.

    roc: false positive rates, true positive rates. precision_recall: recall, precision. calibration: by range of the
    score, its mean, and the share of class 1. These three of two classes alone. confusion: C·C rows, true class by
    predicted.
    """

    roc: Curve = NO_CURVE
    precision_recall: Curve = NO_CURVE
    calibration: Curve = NO_CURVE
    confusion: tuple[int | None, ...] = ()
    measures: Measures = Measures(tuple(Measure(metric, None, 0, reason=WITHHELD) for metric in METRICS))
    intervals: tuple[Interval, ...] = ()


@dataclass(frozen=True, eq=False)
class PatientRows(Message, wire="evaluation.patient_rows"):
    """Σ m and Σ m² over patients of m rows each."""

    rows: int = adds(bound=2.0**40)
    squares: int = adds(bound=2.0**60)


@step(releases=Release.SITE)
def own_appraisal(site: SiteContext, message: Candidate) -> Appraisal:
    """The site's own appraisal.

    Nothing where the split has fewer patients than the minimum count. Curves, the confusion and what looks at one class
    need as many of each class, and a point of the calibration as many behind it.
    """
    check_classes([site], message)
    table, policy = site.resource(SiteTable), site.resource(Policy)
    found = site.predict(message.weights, message.split)
    if not message.classes or not len(found) or not releasable(table.patients(message.split), policy.minimum_count):
        return Appraisal()
    threshold, patients = site.resource(TaskSpec).evaluation.threshold, _patients(table, message)
    several = ordered(found)
    appraised = Appraisal(
        measures=_of_scores(several, len(found)),
        intervals=by_patient(found, message.classes, threshold, patients, site.generator("bootstrap")),
    )
    if not shows_classes(site, message, policy.minimum_count):
        return _without_classes(appraised)
    confusion = _confusion(found, message.classes, threshold, patients, policy.minimum_count)
    appraised = replace(appraised, confusion=confusion)
    if message.classes != 2 or not shows_curve(site, message):
        return appraised
    histogram = classification_sums(found, 2, threshold, _CURVE_BINS).histogram[0]
    return replace(
        appraised,
        roc=Curve(*roc_from_histogram(*histogram)),
        precision_recall=Curve(*scored.precision_recall(scored.of_histogram(*histogram))),
        calibration=_own_calibration(several[0], patients, policy.minimum_count),
    )


def measure_scores(found: Predictions) -> Measures:
    """:data:`METRICS` of rows that are at hand."""
    return _of_scores(ordered(found), len(found))


@step(releases=Release.SUM)
def patient_rows(site: SiteContext, message: Candidate) -> PatientRows:
    """How many rows the patients of a split have; nothing where they are fewer than the minimum count."""
    table = site.resource(SiteTable)
    if not releasable(table.patients(message.split), site.resource(Policy).minimum_count):
        return PatientRows(0, 0)
    each = np.bincount(_patients(table, message))
    return PatientRows(int(each.sum()), int((each**2).sum()))


STEPS = (own_appraisal, patient_rows)


def appraise(
    fed: Federation,
    candidates: Mapping[str, Candidate],
    task: TaskSpec,
    total: ClassificationSums | None,
    *,
    own: bool = True,
) -> dict[str, Appraisal]:
    """Each site's appraisal, if ``own``, and under ``federated`` that of the total, where there is one.

    total: :func:`~medfed.evaluate.evaluation.class_total`. A site that releases none of its own is absent.
    """
    shown = dict(fed.ask(own_appraisal, candidates, sites=tuple(candidates))) if own else {}
    if total is not None:
        shown[FEDERATED] = _of_total(total, task, _worth(fed, candidates, task))
    return dict(sorted(shown.items()))


def appraise_apart(fed: Federation, candidates: Mapping[str, Candidate]) -> dict[str, Appraisal]:
    """Each site's own appraisal and none of them together; a site that fails stops no other, and has none."""
    shown: dict[str, Appraisal] = {}
    for site, candidate in candidates.items():
        with suppress(MedFedError):
            shown |= fed.ask(own_appraisal, candidates, sites=(site,)) if candidate.classes else {}
    return shown


def _worth(fed: Federation, candidates: Mapping[str, Candidate], task: TaskSpec) -> float | None:
    """The independent rows that a row is worth; None where none can be said: policies refuse it, or counts are noisy.

    The sites are asked though the task names no ``data.id``: they, or their files, may know patients all the same.
    """
    if task.privacy.release is not None:
        return None
    with suppress(Refused):
        found = fed.sum(patient_rows, candidates, sites=tuple(candidates))
        return found.rows / found.squares if found.squares else None
    return None


def _of_total(total: ClassificationSums, task: TaskSpec, worth: float | None) -> Appraisal:
    cells = [scored.of_histogram(*histogram) for histogram in total.histogram]
    confusion, bins = total.confusion.clip(0), total.histogram.shape[-1]
    rows, grouped = int(confusion.sum()), bins % GROUPS == 0
    precision_error = float(np.mean([scored.average_precision_error(each) for each in cells]))
    calibration = macro(scored.calibration_error, cells) if grouped else np.array(np.nan)
    measures = (
        _measure("average_precision", macro(scored.average_precision, cells), rows, precision_error),
        _measure("ece", calibration, rows, 0.5 / bins, f"evaluation.bins is no multiple of {GROUPS}"),
    )
    found = Appraisal(
        measures=without(total.withheld, Measures(measures)),
        confusion=tuple(confusion.reshape(-1).tolist()),
        intervals=of_total(total, worth * rows, generator(task.seed, "bootstrap")) if worth and rows else (),
    )
    if len(confusion) != 2 or not cells[0].positives.any() or not cells[0].negatives.any():
        return found
    return replace(
        found,
        roc=Curve(*roc_from_histogram(*total.histogram[0])),
        precision_recall=Curve(*scored.precision_recall(cells[0])),
        calibration=_shares(cells[0], scored.reliability(cells[0])[2] > 0) if grouped else NO_CURVE,
    )


def _of_scores(several: Sequence[Ordered], rows: int) -> Measures:
    """:data:`METRICS`, of several classes their mean."""
    return Measures(
        tuple(_measure(name, macro(BY_SCORE[name], [one.cells for one in several]), rows) for name in METRICS)
    )


def _patients(table: SiteTable, message: Candidate) -> Counts:
    """The index in 0…P−1 of the patient of each row of the split."""
    ids = table.ids[table.mask(message.split)].astype(str)
    found: Counts = np.unique(ids, return_inverse=True)[1]
    return found


def _without_classes(found: Appraisal) -> Appraisal:
    """Without what looks at the rows of one class."""
    measures = tuple(
        m if m.metric in _ANY_CLASS else Measure(m.metric, None, m.n, reason=WITHHELD) for m in found.measures.measures
    )
    kept = tuple(each for each in found.intervals if each.metric in _ANY_CLASS)
    return replace(found, measures=Measures(measures), intervals=kept)


def _own_calibration(rows: Ordered, patients: Counts, minimum: int) -> Curve:
    """Of the ranges of the score that patients enough fall into."""
    group = np.repeat(rows.cells.group, np.diff(rows.starts, append=len(rows.order)))
    behind = [len(np.unique(patients[rows.order][group == each])) for each in range(GROUPS)]
    return _shares(rows.cells, np.array(behind) >= max(minimum, 1))


def _shares(cells: Scored, kept: NDArray[np.bool_]) -> Curve:
    """(mean score, share of positives) of the groups kept."""
    predicted, positives, rows = (each[kept] for each in scored.reliability(cells))
    return Curve(predicted / rows, positives / rows)


def _confusion(
    found: Predictions, classes: int, threshold: float, patients: Counts, minimum: int
) -> tuple[int | None, ...]:
    """The confusion, of several classes without cells of too few patients (and the next smallest of their row).

    Of two classes it follows from recall and specificity, which are shown beside it: hiding a cell would hide nothing.
    """
    cell = confusion_cells(found, classes, threshold)
    rows = np.bincount(cell, minlength=classes**2).tolist()
    if classes == 2:
        return tuple(rows)
    shown: list[int | None] = []
    for first in range(0, classes**2, classes):
        behind = {str(k): len(np.unique(patients[cell == k])) for k in range(first, first + classes)}
        allowed = suppress_cells(behind, minimum)
        shown += [None if allowed[key] is None else rows[int(key)] for key in behind]
    return tuple(shown)


def _measure(
    metric: str, value: Figures, rows: int, error: float | None = None, reason: str = "one class only"
) -> Measure:
    if np.isnan(value):
        return Measure(metric, None, rows, reason=reason if rows else "no rows")
    return Measure(metric, float(value), rows, error=error or None)
