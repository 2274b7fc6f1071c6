"""What a segmentation's task has to say of its masks."""

from __future__ import annotations

import pytest

from medfed.core.errors import TaskError
from medfed.spec.loading import task_of
from medfed.spec.segmentation import mask_values

LABEL = {"column": "mask", "classes": ["background", "lesion"]}


def task(*, label=LABEL, model=None, **more):
    data = {} if label is None else {"data": {"label": label}}
    return task_of(
        {"task_type": "segmentation", "model": model or {"name": "unet"}, "federation": {"strategy": "fedavg"}}
        | data
        | more
    )


def test_names_are_of_0_1_and_so_on_and_whole_numbers_are_themselves():
    assert mask_values(task().spec.data.label) == (0, 1)
    assert mask_values(task(label=LABEL | {"classes": [0, 255, 4]}).spec.data.label) == (0, 255, 4)


def test_three_lines_are_a_task():
    found = task(label=None, model={"name": "unet", "input_size": [1, 128, 128], "num_classes": 3}).spec.data.label
    assert (found.column, found.classes) == ("mask", (0, 1, 2))


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"label": None}, "what the numbers in the masks mean"),
        ({"label": "mask"}, "what the numbers in the masks mean"),
        ({"label": LABEL | {"column": "finding"}}, "the masks are the column `mask`"),
        ({"label": {"column": "mask", "positive": [1]}}, "`positive` belongs to classification"),
        ({"label": LABEL | {"classes": ["background"]}}, "one value only"),
        ({"label": LABEL | {"classes": [0, 0]}}, "repeats a value"),
        ({"label": LABEL | {"classes": [0, "lesion"]}}, "names, of the numbers 0, 1"),
        ({"label": LABEL | {"classes": list(range(300))}}, "255 classes at most"),
        ({"model": {"name": "unet", "num_classes": 4}}, "describes 2 classes"),
        ({"evaluation": {"threshold": 0.3}}, "takes no threshold"),
        ({"stop": {"metric": "accuracy"}}, "not a metric of segmentation"),
        ({"partition": {"data": "a.npz", "sites": 3, "by": "label"}}, "no one label to divide by"),
        ({"privacy": {"labels": {"epsilon": 1}}}, "randomised response"),
        ({"privacy": {"release": {"epsilon": 1}}}, "declare no sensitivity"),
    ],
)
def test_what_does_not_go_together_is_told(wrong, cause):
    with pytest.raises(TaskError, match=cause) as caught:
        task(**wrong)
    assert caught.value.where.startswith("task: ")
