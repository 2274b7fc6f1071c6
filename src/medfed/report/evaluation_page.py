"""The page of an evaluation: a finished run's model on rows that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from medfed.core.errors import RunFolderError
from medfed.core.files import write_atomically
from medfed.report.canvas import FEDERATED_STROKE, Trace, roc_panel, stroke, unit_panel
from medfed.report.figures import Legend, Panel, Panels, site_looks
from medfed.report.folder import EXTERNAL
from medfed.report.intervals import Counts
from medfed.report.records import FEDERATED, Evaluation, Measure
from medfed.report.rendering import templates
from medfed.report.tables import Table, measured_table
from medfed.report.words import by_importance, listed, metric_name, number, plural

_IN_TRAINING = "in training"
_MOST_CLASSES = 12


@dataclass(frozen=True)
class EvaluationPage:
    """Everything that the template of an evaluation shows. gated: whether each figure is a release of its site."""

    evaluation: Evaluation
    lede: tuple[str, ...]
    table: Table
    roc: Panels | None
    calibration: Panel | None
    confusion: bool
    gated: bool


def write_evaluation(folder: Path) -> Path:
    """Write ``report.html`` beside an ``evaluation.json``. Raises RunFolderError where that is absent or malformed."""
    file = folder / "evaluation.json"
    try:
        evaluation = Evaluation.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError("there is no evaluation here", where=str(file)) from error
    except ValidationError as error:
        raise RunFolderError("the evaluation is malformed", where=str(file), remedy="evaluate again") from error
    html = templates().get_template("evaluation.html.j2").render(page=evaluation_page(evaluation))
    write_atomically(folder / "report.html", html)
    return folder / "report.html"


def evaluation_page(evaluation: Evaluation) -> EvaluationPage:
    """Gather what the page shows."""
    rows = {site: found for site, found in evaluation.metrics.items() if site != FEDERATED}
    labels = {_IN_TRAINING: "The run’s own hospitals, held-out patients"}
    if FEDERATED in evaluation.metrics:
        rows[FEDERATED], labels[FEDERATED] = evaluation.metrics[FEDERATED], "All hospitals here"
    shown = rows | ({_IN_TRAINING: evaluation.in_training} if evaluation.in_training else {})
    return EvaluationPage(
        evaluation=evaluation,
        lede=_lede(evaluation, rows),
        table=measured_table("Metrics", shown, _counts(evaluation), labels),
        roc=_roc(evaluation),
        calibration=_calibration(evaluation),
        confusion=0 < len(evaluation.confusion) <= _MOST_CLASSES,
        gated=bool(evaluation.policies),
    )


def _lede(evaluation: Evaluation, rows: dict[str, dict[str, Measure]]) -> tuple[str, ...]:
    """What was measured on how many rows, and how it compares with the run's own hospitals."""
    name = FEDERATED if FEDERATED in rows else next(iter(rows), "")
    measures = rows.get(name, {})
    n = max((m.n or 0 for m in measures.values()), default=0)
    where = f"{plural(n, 'row')} of {evaluation.data}" if n else evaluation.data
    opening = f"The model was measured on {where}; none of them trained it."
    for metric in by_importance(tuple(measures)):
        value, before = measures[metric].value, evaluation.in_training.get(metric)
        if value is not None:
            said = f"{metric_name(metric).label} is {number(value)} here"
            if before is not None and before.value is not None:
                said += f", and {number(before.value)} on the held-out patients of the hospitals that trained it"
            return opening, f"{said}."
    return (opening, "No metric has a value.")


def _counts(evaluation: Evaluation) -> dict[str, Counts]:
    """The rows of both classes, where they are known and there are two."""
    if len(evaluation.classes) != 2:
        return {}
    negative, positive = evaluation.classes
    found = dict(evaluation.counts)
    if len(evaluation.confusion) == 2 and FEDERATED in evaluation.metrics:
        found[FEDERATED] = dict(zip(evaluation.classes, map(sum, evaluation.confusion), strict=True))
    return {site: Counts(by_class[negative], by_class[positive]) for site, by_class in found.items()}


def _roc(evaluation: Evaluation) -> Panels | None:
    known = {site: curve for site, curve in evaluation.roc.items() if curve.fpr}
    if not known:
        return None
    looks = site_looks(tuple(known))
    svg = roc_panel(
        tuple(Trace(curve.fpr, curve.tpr, looks[site]) for site, curve in known.items()),
        name="evaluation-roc",
        alt=f"ROC curves of {listed(list(known)[:9])}.",
    )
    return Panels(tuple(Legend(site, looks[site]) for site in known), (Panel("ROC", svg),))


def _calibration(evaluation: Evaluation) -> Panel | None:
    points = evaluation.calibration
    if not points:
        return None
    look = FEDERATED_STROKE if evaluation.split != EXTERNAL else stroke(0)
    said = "; ".join(f"{number(p.predicted)} predicted, {number(p.observed)} observed" for p in points)
    svg = unit_panel(
        (Trace(tuple(p.predicted for p in points), tuple(p.observed for p in points), look),),
        name="evaluation-calibration",
        axes=("predicted probability", "share observed"),
        reference=(0, 1),
        marked=True,
        alt=f"Calibration of the probability of class {evaluation.classes[1]}: {said}.",
    )
    return Panel("Calibration", svg)
