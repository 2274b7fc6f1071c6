"""Mistakes that only the data or the installed parts reveal: told as the user's, and no folder left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import medfed
from medfed.core.errors import DataError, Refused, TaskError, UserError
from medfed.models.catalogue import MODELS


def hospital(seed: int, rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 2)), np.arange(rows) % 2


def task(model: Any = "logistic", **federation: Any) -> dict[str, Any]:
    return {
        "task_type": "classification",
        "model": model,
        "federation": {"strategy": "fedavg", "rounds": 1, **federation},
        "data": {"split": {"train": 0.5, "validation": 0, "test": 0.5}},
    }


SITES = {"A": hospital(1), "B": hospital(2)}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (task(class_weights=[1.0, 2.0, 3.0]), "3 weights, and the data have 2 classes"),
        (task({"name": "logistic", "num_classes": 5}), "num_classes is 5, and the data have 2 classes"),
        (task({"name": "mlp", "hidden": [0]}), "positive widths"),
    ],
    ids=["class weights", "classes", "model option"],
)
def test_a_mistake_leaves_no_folder_in_the_way_of_the_next_try(
    tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        medfed.run(wrong, SITES, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    medfed.run(task(), SITES, output=tmp_path / "run")
    assert (tmp_path / "run" / "results.json").exists()


def test_a_site_without_training_rows_is_named() -> None:
    sites = {**SITES, "Empty": (np.zeros((1, 2)), np.zeros(1))}
    wrong = task()
    wrong["data"]["split"] = {"train": 0.01, "validation": 0, "test": 0.99}
    with pytest.raises(DataError, match="no training rows"):
        medfed.build(wrong, {"Empty": sites["Empty"], **SITES})


def test_running_statistics_are_not_aggregated_by_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    def normalised(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(input_shape[0]), nn.Linear(input_shape[0], outputs))

    monkeypatch.setattr(
        type(MODELS), "get", lambda self, name: normalised if self.kind == "model" else _get(self, name)
    )
    refused = medfed.build(task(strategy="fedadam"), SITES)
    with pytest.raises(UserError, match="running statistics"):
        refused.initialize()
    process = medfed.build(task(), SITES)
    state, metrics = process.next(process.initialize())
    assert metrics.value("loss") is not None
    assert np.isfinite(process.weights(state)[""]).all()


_get = type(MODELS).get


def test_rows_that_changed_do_not_go_on_in_a_comparison(tmp_path: Path) -> None:
    wanted = {**task(), "compare": {"strategies": ["local", "fedavg"]}}
    medfed.compare(wanted, SITES, output=tmp_path / "all")
    with pytest.raises(DataError, match="not those with which this run began"):
        medfed.compare(wanted, {**SITES, "B": hospital(3)}, output=tmp_path / "all")


def test_stopping_early_is_measured_whatever_the_interval() -> None:
    wanted = {**task(rounds=50), "evaluation": {"every": 20}, "stop": {"tolerance": 1e9}}
    process = medfed.build(wanted, SITES)
    state, metrics = process.next(process.initialize())
    assert state.stopped == "the model's weights no longer change"
    assert metrics.value("loss") is not None


@pytest.mark.parametrize(
    "sites",
    [
        {"A": (SITES["A"][0], ["no", "yes"] * 20), "B": SITES["B"]},
        {"A": (SITES["A"][0], SITES["A"][1].astype(bool)), "B": SITES["B"]},
    ],
    ids=["words and numbers", "truth values and numbers"],
)
def test_labels_that_sites_code_unlike_each_other_are_refused(sites: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="code the label unlike each other"):
        medfed.build(task(), sites).initialize()


def test_sites_of_one_class_each_are_no_other_coding() -> None:
    features = SITES["A"][0]
    one_each = {"A": (features, np.zeros(40)), "B": (features, np.ones(40)), "C": SITES["B"]}
    state = medfed.build(task(), one_each).initialize()
    assert state.lanes[0].encoding.classes == ("0", "1")


@pytest.mark.parametrize(
    "sites", [[], {}, {"A": {"x": [1]}}, {"A": (1, 2, 3, 4)}, {"A": (np.zeros((4, 2)), np.zeros((4, 1)))}], ids=repr
)
def test_sites_of_a_wrong_kind_are_told_as_the_users_mistake(sites: Any) -> None:
    with pytest.raises(UserError):
        medfed.build(task(), sites)


def test_an_empty_policy_refuses_and_a_mistyped_one_is_told(tmp_path: Path) -> None:
    features, targets = hospital(5)
    for site in ("A", "B"):
        rows = "\n".join(f"{x:.3f},{y:.3f},{label}" for (x, y), label in zip(features, targets, strict=True))
        (tmp_path / f"{site}.csv").write_text(f"x,y,label\n{rows}\n")
    wanted = task()
    wanted["data"]["label"] = "label"
    wanted["sites"] = {"A": "A.csv", "B": {"data": "B.csv", "policy": "policy.yaml"}}
    (tmp_path / "policy.yaml").write_text("# nothing yet\n")
    with pytest.raises(Refused):
        medfed.build(wanted, data=tmp_path).initialize()
    (tmp_path / "policy.yaml").write_text("algorithms: [fedavgg]\n")
    with pytest.raises(TaskError, match="fedavgg"):
        medfed.build(wanted, data=tmp_path)
    (tmp_path / "policy.yaml").write_text("tasks: [abc]\n")
    with pytest.raises(TaskError, match="tasks"):
        medfed.build(wanted, data=tmp_path)


def test_positive_values_that_no_site_has_are_refused_before_training() -> None:
    sites = {
        site: pandas.DataFrame({"x": np.arange(40.0), "y": [("well", "ill")[row % 2] for row in range(40)]})
        for site in ("A", "B")
    }
    wrong = task()
    wrong["data"]["label"] = {"column": "y", "positive": ["sick"]}
    told = r"no site has a value of `positive` in the column 'y'"
    with pytest.raises(TaskError, match=told):
        medfed.build(wrong, sites)
    with pytest.raises(TaskError, match=told):
        medfed.compare(wrong | {"compare": {"strategies": ["fedavg", "fedprox"]}}, sites)
    sites["B"].loc[0, "y"] = "sick"
    medfed.build(wrong, sites)
