"""Explanations at the site, of its own rows. Nothing of them leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import UserError
from medfed.core.examples import Examples, Split
from medfed.data.encoding import design, encode
from medfed.data.table import SiteTable
from medfed.engine.trained import TrainedModel
from medfed.evaluate.explained import Explained, Group, Method, Reason, SiteExplanation, Whose
from medfed.evaluate.explanation import MOST_ROWS, has_maps, predicted_classes
from medfed.metrics.classification import class_probabilities
from medfed.models.attribution import gradcam, integrated_gradients, last_maps, require_captum
from medfed.models.training import predict

_FLOOR = 1e-15
_REASONS = 4


def explain_site(
    model: TrainedModel, table: SiteTable, split: Split, rows: int, methods: Sequence[Method] | None = None
) -> SiteExplanation:
    """The worst errors of the model on a part, then answers it was sure of and right, then those it doubted most.

    rows: how many in all. methods: by default Grad-CAM, where the network has feature maps, and integrated gradients.
    Raises UserError where a method does not suit the model, or the part is empty; MissingExtra.
    """
    require_captum()
    if model.task.task_type == "segmentation":
        raise UserError("masks are not explained", remedy="explain a classification or a regression")
    examples = encode(table, model.encoding, split)
    if not len(examples):
        raise UserError(f"the {split} part has no rows here", where=table.site, remedy="choose another by --split")
    scores = predict(model.network, examples, model.task.task_type).scores
    chosen = predicted_classes(scores, len(model.encoding.classes), model.task)
    used, picked = _methods(model, examples, methods), pick(scores, examples.targets, chosen, rows)
    image = examples.features.ndim > 2
    importance = {} if image else _importance(model, examples, chosen)
    return SiteExplanation(
        task=model.task.name,
        model=model.task.model.name,
        site=table.site,
        split=split,
        methods=used,
        image=image,
        rows=len(examples),
        importance=importance,
        averaged=min(len(examples), MOST_ROWS),
        explained=_explained(model, table, split, examples, scores, chosen, picked, used),
        whose=_whose(table.select(split), [row for row, _ in picked], image=image),
    )


def place_outside(run: Path, output: Path | None) -> Path:
    """Where a run's explanations go: ``RUN-local`` beside it if not given. Raises UserError for a place within it."""
    run = run.resolve()
    place = output.resolve() if output is not None else run.with_name(f"{run.name}-local")
    if place.is_relative_to(run):
        raise UserError(
            "explanations hold patients' images or values, and the run's folder is passed on",
            where=str(place),
            remedy="name a folder outside it by --output",
        )
    return place


def pick(
    scores: NDArray[np.float64], targets: NDArray[np.generic], chosen: NDArray[np.int64], rows: int
) -> list[tuple[int, Group]]:
    """Rows and why they are shown: the first half are errors, the rest right and confident, or uncertain."""
    losses = _losses(scores, targets)
    worst_first = np.argsort(-losses, kind="stable").tolist()
    half = -(-rows // 2)
    if targets.dtype.kind == "f":
        closest = [row for row in worst_first[::-1] if row not in worst_first[:half]][: rows - half]
        return [(row, Group.WORST) for row in worst_first[:half]] + [(row, Group.CLOSEST) for row in closest]
    ranked = np.sort(class_probabilities(scores), axis=1)
    doubtful_first = np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable").tolist()
    worst = [row for row in worst_first if chosen[row] != targets[row]][:half]
    right = [row for row in worst_first[::-1] if chosen[row] == targets[row]]
    confident = right[: -(-(rows - len(worst)) // 2)]
    shown = {*worst, *confident}
    uncertain = [row for row in doubtful_first if row not in shown][: rows - len(shown)]
    groups = ((worst, Group.WORST), (confident, Group.CONFIDENT), (uncertain, Group.UNCERTAIN))
    return [(row, group) for some, group in groups for row in some]


def _losses(scores: NDArray[np.float64], targets: NDArray[np.generic]) -> NDArray[np.float64]:
    """−log p(true class) of each row, or its absolute error."""
    if targets.dtype.kind == "f":
        return np.abs(scores - targets.astype(np.float64))
    of_truth = class_probabilities(scores)[np.arange(len(targets)), targets.astype(np.int64)]
    losses: NDArray[np.float64] = -np.log(of_truth.clip(_FLOOR, 1.0))
    return losses


def _methods(model: TrainedModel, examples: Examples, wanted: Sequence[Method] | None) -> tuple[Method, ...]:
    if wanted is None:
        return tuple(Method) if has_maps(model.network, examples.features) else (Method.IG,)
    if Method.GRADCAM in wanted:
        last_maps(model.network, examples.features[:1])
    return tuple(wanted)


def _importance(model: TrainedModel, examples: Examples, chosen: NDArray[np.int64]) -> dict[str, float]:
    """The mean |attribution| of each feature of a table over the part's first rows."""
    inputs, baseline = examples.features[:MOST_ROWS], examples.features.mean(0)
    found = integrated_gradients(model.network, inputs, baseline, len(model.encoding.classes), chosen[: len(inputs)])
    means = np.abs(found.attributions).mean(0).astype(float).tolist()
    return dict(zip(_features(model, len(means)), means, strict=True))


def _features(model: TrainedModel, count: int) -> tuple[str, ...]:
    return model.encoding.features or tuple(f"feature {i + 1}" for i in range(count))


def _explained(
    model: TrainedModel,
    table: SiteTable,
    split: Split,
    examples: Examples,
    scores: NDArray[np.float64],
    chosen: NDArray[np.int64],
    picked: list[tuple[int, Group]],
    methods: tuple[Method, ...],
) -> tuple[Explained, ...]:
    rows = np.array([row for row, _ in picked], np.int64)
    classes, inputs = model.encoding.classes, examples.features[rows]
    cams = gradcam(model.network, inputs, len(classes), chosen[rows]) if Method.GRADCAM in methods else None
    found = (
        integrated_gradients(model.network, inputs, examples.features.mean(0), len(classes), chosen[rows])
        if Method.IG in methods
        else None
    )
    losses = _losses(scores, examples.targets)
    values = None if model.encoding.is_array or found is None else design(table, model.encoding, split)[rows]
    noun = "image" if examples.features.ndim > 2 else "row"
    explained = []
    for i, (row, group) in enumerate(picked):
        target, attributions = examples.targets[row], None if found is None else found.attributions[i]
        explained.append(
            Explained(
                name=f"{noun} {i + 1}",
                group=group,
                true=classes[target] if classes else f"{float(target):.4g}",
                predicted=classes[chosen[row]] if classes else f"{float(scores[row]):.4g}",
                probability=float(class_probabilities(scores[row : row + 1])[0, chosen[row]]) if classes else None,
                loss=float(losses[row]),
                features=inputs[i],
                cam=None if cams is None else cams[i],
                attributions=attributions,
                missing=0.0 if found is None else float(found.missing[i]),
                reasons=() if values is None else _reasons(model.encoding.features, values[i], attributions),
            )
        )
    return tuple(explained)


def _reasons(
    features: tuple[str, ...], values: NDArray[np.float64], attributions: NDArray[np.float32] | None
) -> tuple[Reason, ...]:
    """The features that added most to the score, or took most from it."""
    if attributions is None:
        return ()
    order = np.argsort(-np.abs(attributions), kind="stable")[:_REASONS].tolist()
    return tuple(Reason(features[k], float(values[k]), float(attributions[k])) for k in order)


def _whose(part: SiteTable, rows: list[int], *, image: bool) -> tuple[Whose, ...]:
    noun = "image" if image else "row"
    sources = part.sources
    return tuple(
        Whose(f"{noun} {i + 1}", str(part.ids[row]), "" if sources is None else str(sources[row]))
        for i, row in enumerate(rows)
    )
