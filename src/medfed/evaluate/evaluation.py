"""Metrics of a model, or of one model per site: federated from sums, and per site as SITE releases.

A site that withholds its own metrics still counts in the federated ones if it allows sums, unless so few patients
stand behind its contribution that the other sites' figures would give them away: then it contributes nothing, and
says so. What this does not prevent: who chooses the model can learn the share of a class from its accuracy, and who
knows all figures but one site's can subtract. A steward who minds disallows ``site`` releases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.disclosure import WITHHELD, releasable
from medfed.core.errors import Refused
from medfed.core.examples import Predictions, Split
from medfed.core.messages import Message, Vector
from medfed.core.protocols import Federation, SiteContext
from medfed.core.steps import Release, Step, step
from medfed.data.encoding import Encoding
from medfed.data.table import SiteTable
from medfed.metrics import classification, regression
from medfed.metrics.auc import roc_from_histogram
from medfed.metrics.classification import ClassificationSums
from medfed.metrics.measure import Measure, Measures
from medfed.metrics.regression import RegressionSums
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

FEDERATED = "federated"
"""The name under which the metrics over all sites stand beside those of each."""


@dataclass(frozen=True, eq=False)
class Candidate(Message, wire="evaluation.candidate"):
    """The weights of a model to be measured, the split, and the number of classes (0: regression).

    center: the value about which the moments of the outcome are formed: 0, then its mean, for accuracy.
    """

    weights: Vector
    split: Split
    classes: int
    center: float = 0.0


@dataclass(frozen=True, eq=False)
class Curve(Message, wire="evaluation.curve"):
    """A ROC curve: false and true positive rates, both ascending; empty where it may not be shown."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]


@step(releases=Release.SUM)
def class_sums(site: SiteContext, message: Candidate) -> ClassificationSums:
    """The site's contribution to the federated classification metrics."""
    settings, classes = site.resource(TaskSpec).evaluation, _classes(site, message)
    predictions, withheld = _contribution(site, message)
    sums = classification.classification_sums(predictions, classes, settings.threshold, settings.bins)
    return replace(sums, withheld=withheld)


@step(releases=Release.SUM)
def value_sums(site: SiteContext, message: Candidate) -> RegressionSums:
    """The site's contribution to the federated regression metrics."""
    _classes(site, message)
    predictions, withheld = _contribution(site, message)
    return replace(regression.regression_sums(predictions, message.center), withheld=withheld)


@step(releases=Release.SITE)
def own_metrics(site: SiteContext, message: Candidate) -> Measures:
    """The site's own metrics.

    All are withheld where the split has fewer patients than the policy's minimum count. Where a class has, those
    that look at one class are, for from recall, specificity and accuracy together a reader could compute its size.
    """
    table, minimum = site.resource(SiteTable), site.resource(Policy).minimum_count
    classes = _classes(site, message)
    if not releasable(table.patients(message.split), minimum):
        return _withheld(classes)
    predictions = site.predict(message.weights, message.split)
    if not classes:
        return regression.measure(predictions)
    measured = classification.measure(predictions, classes, site.resource(TaskSpec).evaluation.threshold)
    if all(releasable(patients, minimum) for patients in _patients_by_class(table, message.split)):
        return measured
    return Measures(tuple(_hidden(m) if m.metric in classification.BY_CLASS else m for m in measured.measures))


@step(releases=Release.SITE)
def own_curve(site: SiteContext, message: Candidate) -> Curve:
    """The site's ROC curve over score bins; empty where a class has fewer patients than the minimum count, or none."""
    table, minimum = site.resource(SiteTable), site.resource(Policy).minimum_count
    patients = _patients_by_class(table, message.split)
    if len(patients) < 2 or min(patients) < minimum:
        return Curve(np.empty(0), np.empty(0))
    predictions = site.predict(message.weights, message.split)
    sums = classification.classification_sums(predictions, _classes(site, message), 0.5, bins=50)
    return Curve(*roc_from_histogram(*sums.histogram[0]))


def _classes(site: SiteContext, message: Candidate) -> int:
    """The number of classes, which the site knows itself. Raises Refused where the message says another."""
    encoding = site.recall(Encoding)
    if encoding is None or len(encoding.classes) != message.classes:
        raise Refused("the message names another number of classes than the task has here")
    return message.classes


def _contribution(site: SiteContext, message: Candidate) -> tuple[Predictions, int]:
    """The predictions that count in a total, and whether (1 or 0) they are withheld for want of patients."""
    predictions = site.predict(message.weights, message.split)
    patients = site.resource(SiteTable).patients(message.split)
    if releasable(patients, site.resource(Policy).minimum_count):
        return predictions, 0
    return Predictions(predictions.scores[:0], predictions.targets[:0]), 1


STEPS: tuple[Step[Any, Any], ...] = (class_sums, value_sums, own_metrics, own_curve)


def evaluate(fed: Federation, candidates: Mapping[str, Candidate]) -> dict[str, Measures]:
    """The metrics by site, and under ``federated`` those of all; ``candidates`` names a model for each site.

    A site whose policy refuses its own metrics is listed with ``withheld`` in place of values, and so is the
    federation where policies leave fewer sites than the quorum.
    """
    sites = tuple(candidates)
    classes = {candidate.classes for candidate in candidates.values()}.pop()
    measured = fed.ask(own_metrics, candidates, sites=sites)
    withheld = _withheld(classes)
    try:
        total = _class_total(fed, candidates) if classes else _value_total(fed, candidates)
    except Refused:
        total = withheld
    return {**{site: measured.get(site, withheld) for site in sites}, FEDERATED: total}


def _class_total(fed: Federation, candidates: Mapping[str, Candidate]) -> Measures:
    return classification.summarize(fed.sum(class_sums, candidates, sites=tuple(candidates)))


def _value_total(fed: Federation, candidates: Mapping[str, Candidate]) -> Measures:
    """Two sums: the first gives the outcome's mean, about which the second forms its moments."""
    sites = tuple(candidates)
    first = fed.sum(value_sums, candidates, sites=sites)
    center = first.first / max(first.rows, 1)
    centred = {site: replace(candidate, center=center) for site, candidate in candidates.items()}
    return regression.summarize(fed.sum(value_sums, centred, sites=sites))


def _withheld(classes: int) -> Measures:
    names = classification.METRICS if classes else regression.METRICS
    return Measures(tuple(Measure(name, None, 0, reason=WITHHELD) for name in names))


def _hidden(measure: Measure) -> Measure:
    return Measure(measure.metric, None, measure.n, reason=WITHHELD)


def _patients_by_class(table: SiteTable, split: Split) -> list[int]:
    """The number of patients of each class that occurs in a split."""
    occurring = set(table.targets[table.mask(split)].tolist())
    return [tally.patients for tally in table.class_tallies(occurring, split).values()]


def curves(fed: Federation, candidates: Mapping[str, Candidate], classes: int) -> dict[str, Curve]:
    """ROC curves of a two-class model: each site's as it releases it, and the federated one where policies allow it."""
    if classes != 2:
        return {}
    sites: Sequence[str] = tuple(candidates)
    shown = {site: curve for site, curve in fed.ask(own_curve, candidates, sites=sites).items() if len(curve.fpr)}
    with contextlib.suppress(Refused):
        negatives, positives = fed.sum(class_sums, candidates, sites=sites).histogram[0]
        if negatives.sum() and positives.sum():
            shown[FEDERATED] = Curve(*roc_from_histogram(negatives, positives))
    return dict(sorted(shown.items()))
