"""SCAFFOLD's variate is a mean gradient under plain SGD alone, so other local optimizers are refused."""

import pytest

import medfed
from medfed.core.errors import TaskError

_TASK = {"task_type": "classification", "model": "logistic", "data": {"label": "y"}}


@pytest.mark.parametrize("setting", [{"optimizer": "adam"}, {"momentum": 0.9}, {"clip_norm": 1.0}])
def test_scaffold_refuses_what_its_formula_does_not_hold_for(setting: dict[str, object]) -> None:
    (name,) = setting
    with pytest.raises(TaskError, match=name):
        medfed.check({**_TASK, "federation": {"strategy": "scaffold", **setting}})
    medfed.check({**_TASK, "federation": {"strategy": "fedavg", **setting}})
    medfed.check({**_TASK, "federation": {"strategy": "scaffold"}})
