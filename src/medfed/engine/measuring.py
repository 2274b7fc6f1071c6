"""Finished models measured: at sites through their gates, or on labelled rows that are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medfed.core.examples import Split
from medfed.data.encoding import encode
from medfed.data.prepare import adopt_encoding, check_shape, offer_encoding
from medfed.data.raw import RawTable
from medfed.data.table import held_out, load_table
from medfed.engine.assembly import Assembly
from medfed.engine.federation import Absence
from medfed.engine.process import input_shape
from medfed.engine.simulation import attached
from medfed.engine.trained import KeptModel, TrainedModel
from medfed.evaluate.appraisal import Appraisal, appraise, appraise_apart, measure_scores
from medfed.evaluate.evaluation import (
    FEDERATED,
    Candidate,
    class_total,
    evaluate,
    evaluate_apart,
    no_answers,
)
from medfed.evaluate.pictures import Pictured, pictured
from medfed.metrics import classification, regression, segmentation
from medfed.metrics.measure import Measures
from medfed.models.training import predict
from medfed.spec.task import Splits, TaskSpec

_BINS = 1000


@dataclass(frozen=True)
class Measured:
    """What one model reached, by site, and ``federated`` where there is a total; ROC curves; pictures of the total.

    classes: rows by class, by site, where it is known. left_out: rows that could not be used, by reason.
    """

    measures: dict[str, Measures]
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    total: Pictured | None = None
    absences: tuple[Absence, ...] = ()
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


def final_split(task: TaskSpec) -> Split:
    """The part of each training site that no model has seen: test, where it has a share."""
    return Split.TEST if "test" in task.measured_splits else Split(task.monitored_split)


def measure_at_sites(assembly: Assembly, model: KeptModel) -> Measured:
    """One model at all sites of an assembly: each site's own metrics, and the total's; held-out sites' apart.

    Every figure is a release of its site. Of one site there is no total, which would tell what that site withholds of
    itself, unless the total gets noise. Raises QuorumLost, Refused, DataError.
    """
    process, simulation = assembly.process, assembly.simulation
    fed, classes, kind = process.federation, len(model.encoding.classes), process.task.task_type
    with attached(simulation):
        fed.conversation.begin_round(0, {})
        candidate = Candidate(model.weights, final_split(process.task), classes)
        measures, shown, total = dict[str, Measures](), dict[str, Appraisal](), None
        if len(fed.sites) == 1 and not fed.totals_only:
            alone = dict.fromkeys(fed.sites, candidate)
            adopt_encoding(fed, model.encoding)
            measures, shown = evaluate_apart(fed, alone, kind), appraise_apart(fed, alone)
        elif fed.sites:
            adopt_encoding(fed, model.encoding)
            candidates = dict.fromkeys(fed.sites, candidate)
            total = class_total(fed, candidates) if kind == "classification" else None
            masks = model.encoding.classes if kind == "segmentation" else ()
            recentre = process.task.privacy.release is None
            measures = evaluate(fed, candidates, masks=masks, recentre=recentre, total=total)
            if kind == "classification":
                shown = appraise(fed, candidates, process.task, total, own=not fed.totals_only)
        if process.external:
            prepared = offer_encoding(fed, model.encoding, process.external)
            outside = dict.fromkeys(prepared, Candidate(model.weights, Split.EXTERNAL, classes))
            measures |= dict.fromkeys(process.external, no_answers(kind)) | evaluate_apart(fed, outside, kind)
            shown |= appraise_apart(fed, outside)
        simulation.sign_heads(0)
        absences = tuple(fed.conversation.absences)
        simulation.close("complete")
    for site in shown.keys() & measures.keys():
        measures[site] = Measures((*measures[site].measures, *shown[site].measures.measures))
    shown.pop(FEDERATED, None)
    curves = {site: (each.roc.x.tolist(), each.roc.y.tolist()) for site, each in shown.items() if len(each.roc.x)}
    return Measured(measures, curves, None if total is None else pictured(total), absences)


def measure_apart(assembly: Assembly, models: Sequence[KeptModel]) -> list[dict[str, Measures]]:
    """Each model at each site of an assembly, held-out ones included: that site's own metrics, as it releases them.

    A site that a model does not fit, or that fails, says ``no answer``.
    """
    process, simulation = assembly.process, assembly.simulation
    fed, split, kind, found = process.federation, final_split(process.task), process.task.task_type, []
    sites = (*fed.sites, *process.external)
    with attached(simulation):
        fed.conversation.begin_round(0, {})
        for model in models:
            adopted = offer_encoding(fed, model.encoding, sites)
            classes = len(model.encoding.classes)
            within, outside = (Candidate(model.weights, part, classes) for part in (split, Split.EXTERNAL))
            asked = {site: outside if site in process.external else within for site in adopted}
            found.append(dict.fromkeys(sites, no_answers(kind)) | evaluate_apart(fed, asked, kind))
        simulation.sign_heads(0)
        simulation.close("complete")
    return found


def measure_rows(model: TrainedModel, raw: RawTable, name: str) -> Measured:
    """A model on labelled rows in the form of the task's data, all of them. Raises DataError as loading a table does.

    They are prepared as a site's rows are: a level that no training row had counts as the reference level.
    """
    data = model.task.data
    known = data.id if data.id in raw.columns else None
    table = load_table(data.model_copy(update={"split": Splits(), "id": known}), model.task.task_type, name, raw)
    if model.encoding.is_array:
        check_shape(table, model.encoding, input_shape(model.encoding, model.task.model))
    examples = encode(held_out(table), model.encoding, Split.EXTERNAL)
    predictions, classes = predict(model.network, examples, model.task.task_type), len(model.encoding.classes)
    left_out = {
        "without a label": table.findings.unlabelled.rows,
        "without a feature": table.findings.incomplete.rows,
        "unreadable": table.findings.unreadable.rows,
    }
    about: dict[str, Any] = {"left_out": {reason: n for reason, n in left_out.items() if n}}
    if model.task.task_type == "segmentation":
        return Measured({name: segmentation.measure_many([predictions], model.encoding.classes)[0]}, **about)
    if not classes:
        return Measured({name: regression.measure_many([predictions])[0]}, **about)
    threshold = model.task.evaluation.threshold
    total = pictured(classification.classification_sums(predictions, classes, threshold, _BINS))
    counts = dict(zip(model.encoding.classes, map(sum, total.confusion), strict=True))
    curves = {name: total.roc} if total.roc else {}
    measured = classification.measure(predictions, classes, threshold).measures
    measures = {name: Measures((*measured, *measure_scores(predictions).measures))}
    return Measured(measures, curves, total, (), {name: counts}, **about)
