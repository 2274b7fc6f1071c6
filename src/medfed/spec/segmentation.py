"""What a segmentation says of its masks, and what it has to say."""

from __future__ import annotations

from collections.abc import Iterator

from medfed.spec.document import Keys
from medfed.spec.problems import Problem
from medfed.spec.task import MASK, Evaluation, Label, TaskSpec

MOST_CLASSES = 255
"""As many as a mask of bytes can tell apart, and one value to spare."""

_EXAMPLE = f"label: {{column: {MASK}, classes: [background, lesion]}}"


def mask_values(label: Label) -> tuple[int, ...]:
    """The number in the masks of each class, in order: those listed, or 0, 1, … where names are listed."""
    classes = label.classes or ()
    numbers = tuple(value for value in classes if type(value) is int)
    return numbers if len(numbers) == len(classes) else tuple(range(len(classes)))


def with_mask_label(spec: TaskSpec) -> TaskSpec:
    """The task; where a segmentation has no label but ``model.num_classes``, with the numbers 0, 1, … for classes."""
    if spec.task_type != "segmentation" or spec.data.label is not None or spec.model.num_classes is None:
        return spec
    label = Label(column=MASK, classes=tuple(range(spec.model.num_classes)))
    return spec.model_copy(update={"data": spec.data.model_copy(update={"label": label})})


def check_segmentation(spec: TaskSpec) -> Iterator[Problem]:
    """Every disagreement of a segmentation's label with its masks, and what is not for masks."""
    yield from _masks(spec.data.label)
    if spec.evaluation.threshold != Evaluation().threshold:
        yield Problem(
            ("evaluation", "threshold"),
            "a segmentation gives each pixel its most probable class, and takes no threshold",
            "remove `threshold`",
        )
    if spec.evaluation.explanations:
        yield Problem(("evaluation", "explanations"), "masks are not explained", "remove `explanations`")
    if spec.partition is not None and spec.partition.by == "label":
        yield Problem(
            ("partition", "by"), "an image has no one label to divide by", "write `even`, `quantity` or `acquisition`"
        )
    if spec.privacy.release is not None:
        yield Problem(
            ("privacy", "release"),
            "the sums of distances between outlines declare no sensitivity for which `privacy.release` could choose "
            "its noise",
            "remove it; `privacy.record` protects training, and `aggregation: secure` each site's sums",
        )


def _masks(label: Label | None) -> Iterator[Problem]:
    at: Keys = ("data", "label")
    if label is None:
        yield Problem(
            ("data",),
            "it is not said what the numbers in the masks mean",
            f"add to `data`: `{_EXAMPLE}`, or to `model`: `num_classes: 2`",
        )
        return
    if label.column != MASK:
        yield Problem((*at, "column"), f"the masks are the column `{MASK}`", f"write `{_EXAMPLE}`")
    for name in ("positive", "negative"):
        if getattr(label, name) is not None:
            yield Problem((*at, name), f"`{name}` belongs to classification, not to segmentation", f"remove `{name}`")
    classes = label.classes
    if classes is None:
        yield Problem(at, "it is not said what the numbers in the masks mean", f"write, for example: `{_EXAMPLE}`")
    elif len(classes) > MOST_CLASSES:
        yield Problem((*at, "classes"), f"a mask has {MOST_CLASSES} classes at most", "leave out what is not wanted")
    elif len({type(value) for value in classes}) > 1 or not isinstance(classes[0], int | str):
        yield Problem(
            (*at, "classes"),
            "`classes` are names, of the numbers 0, 1, … in order, or whole numbers, as they stand in the masks",
            f"write, for example: `{_EXAMPLE}`, or `classes: [0, 255]`",
        )
