"""What sections of a task must agree on among themselves, beyond each key's own type and range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medfed.spec.comparison import MODEL, federation_for, model_for
from medfed.spec.distilling import check_distillation
from medfed.spec.document import Keys
from medfed.spec.images import Flip, Normalise, Scale, Zoom
from medfed.spec.problems import Problem, explain
from medfed.spec.protection import check_privacy, check_private_training
from medfed.spec.segmentation import check_segmentation
from medfed.spec.task import (
    BASELINES,
    NAME_IN_WORDS,
    Column,
    FederationSpec,
    Label,
    ModelSpec,
    Name,
    Pretrained,
    Splits,
    TaskSpec,
)

METRICS = {
    "classification": ("loss", "accuracy", "auc", "recall", "specificity", "brier"),
    "regression": ("loss", "rmse", "r2"),
    "segmentation": ("loss", "dice", "hausdorff95", "hausdorff"),
}
"""The metrics of each task type."""


def check_task(spec: TaskSpec) -> Iterator[Problem]:
    """Every disagreement in a task."""
    yield from _lengths(spec.federation, ("federation",))
    yield from _attendance(spec.federation, ("federation",), len({*spec.sites} - {*spec.evaluation.holdout}))
    yield from _holdout(spec)
    yield from _splits(spec.data.split)
    yield from _stop(spec)
    if spec.federation.compression.changes and spec.privacy.hides_parts:
        yield Problem(
            ("federation", "compression"),
            "compressed updates of several sites do not add up under masks or encryption",
            "leave it out, or add `privacy: {aggregation: clear}`",
        )
    if spec.data.label is not None:
        yield from _label(spec.data.label, spec)
    yield from _classes(spec)
    for name, column in spec.data.columns.items():
        yield from _column(column, ("data", "columns", name))
    yield from _images(spec)
    yield from _start(spec.model.pretrained)
    if spec.partition is not None and spec.sites:
        yield Problem(
            ("partition",),
            "`partition` makes the sites out of one data set, and `sites` names them too",
            "keep one of the two",
        )
    if spec.partition is not None and spec.partition.by != "acquisition":
        for name in ("vary", "strength"):  # a resolved task says the defaults
            if getattr(spec.partition, name) == type(spec.partition).model_fields[name].default:
                continue
            yield Problem(
                ("partition", name),
                f"`{name}` says how sites' images differ, and `by: {spec.partition.by}` leaves images as they are",
                "leave it out, or write `by: acquisition`",
            )
    yield from _comparison(spec)
    yield from check_privacy(spec)
    yield from check_distillation(spec)
    if spec.task_type == "segmentation":
        yield from check_segmentation(spec)


def _lengths(federation: FederationSpec, at: Keys) -> Iterator[Problem]:
    given = [n for n in ("rounds", "local_epochs", "local_updates") if getattr(federation, n) is not None]
    if federation.epochs is not None:
        for name in given:
            yield Problem(
                (*at, name),
                f"`epochs` and `{name}` are both given, but `epochs` already means rounds of one local epoch",
                f"keep `epochs`, or write `rounds` with `{name if name != 'rounds' else 'local_epochs'}`",
            )
    if federation.pruning is not None and federation.pruning.after >= federation.total_rounds:
        yield Problem(
            (*at, "pruning", "after"),
            f"no round follows the pruning after round {federation.pruning.after}, of {federation.total_rounds}",
            f"write at most {federation.total_rounds - 1}, so that what is left is fine-tuned",
        )
    if federation.local_epochs is not None and federation.local_updates is not None:
        yield Problem(
            (*at, "local_updates"), "`local_epochs` and `local_updates` are both given", "keep one of the two"
        )


def _attendance(federation: FederationSpec, at: Keys, sites: int) -> Iterator[Problem]:
    cohort, quorum = federation.cohort, federation.quorum
    for name, count in (("cohort", cohort), ("quorum", quorum)):
        if isinstance(count, int) and sites and count > sites:
            yield Problem(
                (*at, name),
                f"`{name}` asks for {count} sites, but the task declares {sites}",
                f"write at most {sites}, or a fraction such as 1.0 for all of them",
            )
    if isinstance(cohort, int) and isinstance(quorum, int) and quorum > cohort:
        yield Problem(
            (*at, "quorum"),
            f"`quorum` asks for {quorum} replies, but a round asks only the {cohort} sites of its `cohort`",
            f"write at most {cohort}",
        )


def _holdout(spec: TaskSpec) -> Iterator[Problem]:
    """A site that never trains has to be one of several, releases figures of its own, and lends its rows to no mean."""
    holdout, at = spec.evaluation.holdout, ("evaluation", "holdout")
    if not holdout:
        return
    if spec.sites and (unknown := [site for site in holdout if site not in spec.sites]):
        yield Problem(at, f"no site is called `{unknown[0]}`", f"write some of: {', '.join(spec.sites)}")
    if spec.sites and {*spec.sites} <= {*holdout}:
        yield Problem(at, "every site is held out, and none is left to train", "leave one out of `holdout`")
    if spec.data.standardize == "site":
        yield Problem(
            at,
            "a site that is held out has no training rows to standardise by",
            "write `data: {standardize: federated}`, by which it takes over the mean of those that train",
        )
    if spec.privacy.totals_only:
        yield Problem(
            at,
            "a held-out site's metrics are figures of its own, and the task promises that only totals leave a site",
            "leave out `holdout`, and evaluate there afterwards; or `privacy: {aggregation: clear}` without `release`",
        )


def _splits(split: Splits) -> Iterator[Problem]:
    total = split.train + split.validation + split.test
    if split.column is None and not math.isclose(total, 1, rel_tol=0, abs_tol=1e-9):
        yield Problem(
            ("data", "split"),
            f"train, validation and test sum to {total:.10g}, not to 1",
            "make the three sum to 1, for example: `split: {train: 0.7, validation: 0.1, test: 0.2}`",
        )


def _stop(spec: TaskSpec) -> Iterator[Problem]:
    stop, split, part = spec.stop, spec.data.split, spec.evaluation.split
    known = METRICS[spec.task_type]
    if stop.metric is None:
        for name in ("target", "patience"):
            if getattr(stop, name) is not None:
                yield Problem(
                    ("stop", name),
                    f"`stop.{name}` is given without a metric",
                    f"add `metric: {known[0]}` to `stop`",
                )
    elif stop.metric not in known:
        yield Problem(
            ("stop", "metric"),
            f"`{stop.metric}` is not a metric of {spec.task_type}",
            f"write one of: {', '.join(known)}",
        )
    if split.column is not None:
        if stop.metric is not None and part is None:
            yield Problem(
                ("stop", "metric"),
                "`stop.metric` would be read on test rows, since a column says the parts",
                "name the part by `evaluation.split`",
            )
        return
    if part is not None and getattr(split, part) == 0:
        yield Problem(
            ("evaluation", "split"),
            f"`evaluation.split` is {part}, but `data.split.{part}` is 0",
            f"give `data.split.{part}` a share of the patients, or evaluate on another part",
        )
    if stop.metric is not None and part is None and split.validation == 0:
        yield Problem(
            ("stop", "metric"),
            "`stop.metric` is read on the validation part, but `data.split.validation` is 0",
            "give `data.split.validation` a share of the patients, or name a part by `evaluation.split`",
        )


def _label(label: Label, spec: TaskSpec) -> Iterator[Problem]:
    at: Keys = ("data", "label")
    given = [name for name in ("positive", "negative", "classes") if getattr(label, name) is not None]
    if spec.task_type == "regression":
        for name in given:
            yield Problem((*at, name), f"`{name}` belongs to classification, not to regression", f"remove `{name}`")
        return
    if spec.task_type == "segmentation" and "classes" not in given:
        return
    for name in given:
        values = getattr(label, name)
        if not values or _repeated(values):
            yield Problem(
                (*at, name),
                f"`{name}` is empty or repeats a value",
                "list each value once, for example: `[0, 1]`",
            )
    if label.classes is not None:
        if len(label.classes) == 1:
            yield Problem((*at, "classes"), "`classes` lists one value only", "list at least two values")
        for name in ("positive", "negative"):
            if name in given:
                yield Problem(
                    (*at, name),
                    f"`classes` and `{name}` are both given",
                    f"keep `classes`, or `{name}` without it",
                )
    elif label.negative is not None and label.positive is None:
        yield Problem((*at, "negative"), "`negative` is given without `positive`", "list the values of class 1, too")
    elif label.negative is not None and label.positive is not None and _repeated(label.positive + label.negative):
        yield Problem(
            (*at, "negative"), "a value is both `positive` and `negative`", "list each value on one side only"
        )
    if label.column == spec.data.id:
        yield Problem(("data", "id"), "`data.id` names the label's column", "name the column of the patients' ids")


def _classes(spec: TaskSpec) -> Iterator[Problem]:
    weights, stated = spec.federation.class_weights, spec.model.num_classes
    if spec.task_type == "regression":
        if weights != "none":
            yield Problem(
                ("federation", "class_weights"),
                "regression has no classes to weigh",
                "remove `class_weights`",
            )
        if stated is not None:
            yield Problem(("model", "num_classes"), "regression has no classes", "remove `num_classes`")
        return
    listed = _number_of_classes(spec.data.label)
    if stated is not None and listed is not None and stated != listed:
        yield Problem(
            ("model", "num_classes"),
            f"`num_classes` is {stated}, but `data.label` describes {listed} classes",
            f"write `num_classes: {listed}`, or remove it",
        )
    number = listed or stated
    if isinstance(weights, tuple) and number is not None and len(weights) != number:
        yield Problem(
            ("federation", "class_weights"),
            f"`class_weights` lists {len(weights)} weights for {number} classes",
            "list one weight for each class, in order",
        )


def _number_of_classes(label: Label | None) -> int | None:
    if label is None:
        return None
    if label.classes is not None:
        return len(label.classes)
    return 2 if label.positive is not None else None


def _column(column: Column, at: Keys) -> Iterator[Problem]:
    if column.levels is not None:
        if column.type not in {"categorical", "binary"}:
            yield Problem(
                (*at, "levels"),
                f"`levels` are given for a column that is {column.type}",
                "remove `levels`, or write `type: categorical`",
            )
        elif not column.levels or _repeated(column.levels):
            yield Problem((*at, "levels"), "`levels` is empty or repeats a value", "list each level once")
        elif column.type == "binary" and len(column.levels) != 2:
            yield Problem(
                (*at, "levels"),
                f"a binary column has two levels, not {len(column.levels)}",
                "list two levels, or write `type: categorical`",
            )
    for name in ("minimum", "maximum"):
        if getattr(column, name) is not None and column.type != "continuous":
            yield Problem((*at, name), f"`{name}` is given for a column that is {column.type}", f"remove `{name}`")
    if column.minimum is not None and column.maximum is not None and column.minimum >= column.maximum:
        yield Problem(
            (*at, "maximum"),
            f"`maximum` ({column.maximum:g}) is not above `minimum` ({column.minimum:g})",
            "write the smaller number as `minimum`",
        )


def _images(spec: TaskSpec) -> Iterator[Problem]:
    images, at = spec.data.images, ("data", "images", "transforms")
    for index, transform in enumerate(images.transforms):
        if isinstance(transform, Normalise) and transform.by == "federated" and index < len(images.transforms) - 1:
            yield Problem(
                (*at, index),
                "images can be normalised by `federated` sums only after all else was done to them",
                "move it to the end of the list",
            )
        if isinstance(transform, Scale) and transform.low >= transform.high:
            yield Problem((*at, index), "`low` is not below `high`", "write the smaller number as `low`")
    axes = None if spec.model.input_size is None else len(spec.model.input_size) - 1
    for index, augmentation in enumerate(images.augment):
        if isinstance(augmentation, Flip) and axes is not None and augmentation.axis >= axes:
            yield Problem(
                ("data", "images", "augment", index),
                f"there is no axis {augmentation.axis} among the {axes} after the channels (model.input_size)",
                f"write an axis from 0 to {axes - 1}",
            )
        if isinstance(augmentation, Zoom) and augmentation.low > augmentation.high:
            yield Problem(
                ("data", "images", "augment", index),
                "`low` is above `high`",
                "write the smaller number as `low`",
            )


def _start(start: Pretrained | None) -> Iterator[Problem]:
    at: Keys = ("model", "pretrained")
    if start is None:
        return
    if start.path is not None and start.run is not None:
        yield Problem((*at, "run"), "`path` and `run` are both given", "keep one of the two")
    if start.path is None and start.run is None and start.sha256 is None:
        yield Problem(at, "`pretrained` names no weights", "add `path` and `sha256` of a safetensors file, or `run`")


def _comparison(spec: TaskSpec) -> Iterator[Problem]:
    at: Keys = ("compare", "overrides")
    strategies = {strategy.name: strategy for strategy in spec.compare.strategies}
    if len(strategies) < len(spec.compare.strategies):
        yield Problem(
            ("compare", "strategies"),
            "`compare.strategies` names a strategy twice",
            "name each strategy once",
        )
    for name, overrides in spec.compare.overrides.items():
        if name not in strategies:
            yield Problem(
                (*at, name),
                f"`{name}` is not among `compare.strategies`",
                f"add it there, or write one of: {', '.join(strategies)}",
            )
            continue
        if "strategy" in overrides and (name in BASELINES or not _is_name(name)):
            yield Problem(
                (*at, name, "strategy"),
                f"`{name}` cannot be a label of another strategy",
                f"write {NAME_IN_WORDS}, and none of: {', '.join(BASELINES)}; a strategy's own options stand in "
                f"`compare.strategies`, for example: `[{{name: {name}, mu: 0.1}}]`",
            )
            continue
        if not isinstance(overrides.get(MODEL, {}), dict) or "pretrained" in overrides.get(MODEL, {}):
            yield Problem(
                (*at, name, MODEL),
                "`model` takes keys of the task's `model` other than `pretrained`, from which all strategies begin",
                "write, for example: `model: {freeze: [conv1]}`",
            )
            continue
        try:
            model_for(spec, strategies[name])
        except ValidationError as error:
            for problem in explain(error, ModelSpec, overrides[MODEL]):
                yield Problem((*at, name, MODEL, *problem.keys), problem.cause, problem.remedy)
            continue
        try:
            federation = federation_for(spec, strategies[name])
        except ValidationError as error:
            for problem in explain(error, FederationSpec, overrides):
                yield Problem((*at, name, *problem.keys), problem.cause, problem.remedy)
        else:
            if overrides.get("distillation") is not None:
                yield Problem(
                    (*at, name, "distillation"),
                    "all strategies that are compared have the task's teacher, or none",
                    "write `distillation: null` here to go without, and the teacher below `federation`",
                )
            yield from _lengths(federation, (*at, name))
            yield from _attendance(federation, (*at, name), len({*spec.sites} - {*spec.evaluation.holdout}))
            if spec.privacy.record is not None and overrides:
                yield from check_private_training(federation, (*at, name))


def _is_name(text: str) -> bool:
    try:
        return bool(TypeAdapter(Name).validate_python(text))
    except ValidationError:
        return False


def _repeated(values: Iterable[Any]) -> bool:
    items = list(values)
    return len(set(items)) < len(items)
