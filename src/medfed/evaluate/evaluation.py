"""Metrics of a model, or of one model per site: federated from sums, and per site as SITE releases.

A site that withholds its own metrics still counts in the federated ones if it allows sums, unless so few patients
stand behind its contribution that the other sites' figures would give them away: then it contributes nothing, and
says so. What this does not prevent: who chooses the model can learn the share of a class from its accuracy, and who
knows all figures but one site's can subtract. A steward who minds disallows ``site`` releases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medfed.core.disclosure import WITHHELD, releasable
from medfed.core.errors import DataError, MedFedError, Refused
from medfed.core.examples import Predictions, Split
from medfed.core.messages import Message, Vector
from medfed.core.protocols import Federation, GradientTransform, SiteContext, SiteStack, Trained
from medfed.core.steps import Release, Step, step, twin
from medfed.data.encoding import Encoding
from medfed.data.table import SiteTable
from medfed.metrics import classification, regression
from medfed.metrics.classification import ClassificationSums
from medfed.metrics.measure import Measure, Measures
from medfed.metrics.regression import RegressionSums
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

FEDERATED = "federated"
"""The name under which the metrics over all sites stand beside those of each."""


_NOISY_BINS = 20
"""Bins of a histogram whose counts get noise: many small ones would drown in it."""


@dataclass(frozen=True, eq=False)
class Candidate(Message, wire="evaluation.candidate"):
    """The weights of a model to be measured, the split, and the number of classes (0: regression).

    center: the value about which the moments of the outcome are formed: 0, then its mean, for accuracy.
    """

    weights: Vector
    split: Split
    classes: int
    center: float = 0.0


@dataclass(frozen=True)
class _Alone:
    """One site as a SiteStack, so that a step is its twin over one site."""

    site: SiteContext

    @property
    def sites(self) -> Sequence[SiteContext]:
        return (self.site,)

    def train(self, weights: Vector, transform: GradientTransform | None = None) -> Sequence[Trained]:
        return (self.site.train(weights, transform),)

    def predict(self, weights: Vector, split: Split) -> Sequence[Predictions]:
        return (self.site.predict(weights, split),)


@step(releases=Release.SUM)
def class_sums(site: SiteContext, message: Candidate) -> ClassificationSums:
    """The site's contribution to the federated classification metrics."""
    return class_sums_of_stack(_Alone(site), message)[0]


@twin(class_sums)
def class_sums_of_stack(stack: SiteStack, message: Candidate) -> list[ClassificationSums]:
    """:func:`class_sums` at several sites at once."""
    settings = stack.sites[0].resource(TaskSpec).evaluation
    predictions, withheld = _contributions(stack, message, of_classes=True)
    bins, release = settings.bins_for(message.classes), stack.sites[0].resource(TaskSpec).privacy.release
    largest = None if release is None else release.loss_bound
    if release is not None and settings.bins == "auto":
        bins = _NOISY_BINS
    sums = classification.classification_sums_many(predictions, message.classes, settings.threshold, bins, largest)
    return [replace(each, withheld=1) if hidden else each for each, hidden in zip(sums, withheld, strict=True)]


@step(releases=Release.SUM)
def value_sums(site: SiteContext, message: Candidate) -> RegressionSums:
    """The site's contribution to the federated regression metrics."""
    return value_sums_of_stack(_Alone(site), message)[0]


@twin(value_sums)
def value_sums_of_stack(stack: SiteStack, message: Candidate) -> list[RegressionSums]:
    """:func:`value_sums` at several sites at once."""
    predictions, withheld = _contributions(stack, message, of_classes=False)
    release = stack.sites[0].resource(TaskSpec).privacy.release
    if release is not None and release.outcome is not None:
        sums = [regression.bounded_sums(each, *release.outcome) for each in predictions]
    else:
        sums = regression.regression_sums_many(predictions, message.center)
    return [replace(each, withheld=1) if hidden else each for each, hidden in zip(sums, withheld, strict=True)]


@step(releases=Release.SITE)
def own_metrics(site: SiteContext, message: Candidate) -> Measures:
    """The site's own metrics.

    All are withheld where the split has fewer patients than the policy's minimum count. Where a class has, those
    that look at one class are, for from recall, specificity and accuracy together a reader could compute its size.
    """
    return own_metrics_of_stack(_Alone(site), message)[0]


@twin(own_metrics)
def own_metrics_of_stack(stack: SiteStack, message: Candidate) -> list[Measures]:
    """:func:`own_metrics` of several sites at once."""
    check_classes(stack.sites, message)
    predictions = stack.predict(message.weights, message.split)
    if message.classes:
        threshold = stack.sites[0].resource(TaskSpec).evaluation.threshold
        measured = classification.measure_many(predictions, message.classes, threshold)
    else:
        measured = regression.measure_many(predictions)
    return [_released(site, message, found) for site, found in zip(stack.sites, measured, strict=True)]


def _released(site: SiteContext, message: Candidate, measured: Measures) -> Measures:
    """What the site releases of its own metrics (see :func:`own_metrics`)."""
    table, minimum = site.resource(SiteTable), site.resource(Policy).minimum_count
    if not releasable(table.patients(message.split), minimum):
        return _withheld(message.classes)
    if not message.classes or shows_classes(site, message, minimum):
        return measured
    return Measures(tuple(_hidden(m) if m.metric in classification.BY_CLASS else m for m in measured.measures))


def shows_classes(site: SiteContext, message: Candidate, minimum: int) -> bool:
    """Whether all classes have patients enough; never of training rows whose labels are to be noisy."""
    if message.split is Split.TRAIN and site.resource(TaskSpec).privacy.labels is not None:
        return False
    return all(releasable(n, minimum) for n in _patients_by_class(site.resource(SiteTable), message.split))


def shows_curve(site: SiteContext, message: Candidate) -> bool:
    """Whether a curve over all thresholds may be shown: two classes occur, and each has patients enough."""
    minimum = site.resource(Policy).minimum_count
    patients = _patients_by_class(site.resource(SiteTable), message.split)
    return len(patients) > 1 and min(patients) >= minimum and shows_classes(site, message, minimum)


def check_classes(sites: Sequence[SiteContext], message: Candidate) -> None:
    """Raise Refused where the message says another number of classes than a site knows itself.

    Raises DataError where a site knows none: its rows could not be prepared.
    """
    for site in sites:
        encoding = site.recall(Encoding)
        if encoding is None:
            raise DataError("the site's data are not prepared: no encoding was adopted", where=site.site)
        if len(encoding.classes) != message.classes:
            raise Refused("the message names another number of classes than the task has here")


def _contributions(stack: SiteStack, message: Candidate, *, of_classes: bool) -> tuple[list[Predictions], list[bool]]:
    """The predictions that count in a total, and where they are withheld for want of patients: none are left then.

    Where the total gets noise they all count: that a site falls silent would tell of one patient, and noise hides few.
    of_classes: whether the sums are those of classes, which others bound in another way. Raises Refused.
    """
    check_classes(stack.sites, message)
    if bool(message.classes) is not of_classes:
        raise Refused(f"the sums asked for are {'' if of_classes else 'not '}those of classes, unlike the task here")
    predictions = stack.predict(message.weights, message.split)
    noisy = stack.sites[0].resource(TaskSpec).privacy.release is not None
    withheld = [
        not noisy
        and not releasable(site.resource(SiteTable).patients(message.split), site.resource(Policy).minimum_count)
        for site in stack.sites
    ]
    kept = [
        Predictions(each.scores[:0], each.targets[:0]) if hidden else each
        for each, hidden in zip(predictions, withheld, strict=True)
    ]
    return kept, withheld


STEPS: tuple[Step[Any, Any], ...] = (class_sums, value_sums, own_metrics)


def evaluate(
    fed: Federation, candidates: Mapping[str, Candidate], *, own: bool = True, recentre: bool = True
) -> dict[str, Measures]:
    """The metrics by site, if ``own``, and under ``federated`` those of all; ``candidates`` names each site's model.

    recentre: whether moments of a numeric outcome are formed a second time, about its mean.

    A site whose policy refuses its own metrics is listed with ``withheld`` in place of values, and so is the
    federation where policies leave fewer sites than the quorum.
    """
    sites = tuple(candidates)
    classes = {candidate.classes for candidate in candidates.values()}.pop()
    measured = fed.ask(own_metrics, candidates, sites=sites) if own else {}
    withheld = _withheld(classes)
    try:
        total = _class_total(fed, candidates) if classes else _value_total(fed, candidates, recentre)
    except Refused:
        total = withheld
    return {**{site: measured.get(site, withheld) for site in sites if own}, FEDERATED: total}


def evaluate_apart(fed: Federation, candidates: Mapping[str, Candidate]) -> dict[str, Measures]:
    """Each site's own metrics and no total of them; a site that fails stops no other, and says ``no answer``."""
    measured = {}
    for site, candidate in candidates.items():
        try:
            measured[site] = fed.ask(own_metrics, candidates, sites=(site,)).get(site, _withheld(candidate.classes))
        except MedFedError:
            measured[site] = no_answers(candidate.classes)
    return measured


def no_answers(classes: int) -> Measures:
    """The metrics of a site that gave none."""
    return Measures(tuple(replace(m, reason="no answer") for m in _withheld(classes).measures))


def _class_total(fed: Federation, candidates: Mapping[str, Candidate]) -> Measures:
    return classification.summarize(fed.sum(class_sums, candidates, sites=tuple(candidates)))


def _value_total(fed: Federation, candidates: Mapping[str, Candidate], recentre: bool) -> Measures:
    """Two sums: the first gives the outcome's mean, about which the second forms its moments."""
    sites = tuple(candidates)
    first = fed.sum(value_sums, candidates, sites=sites)
    if not recentre:
        return regression.summarize(first)
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
    return [tally.patients for tally in table.occurring_classes(split).values()]
