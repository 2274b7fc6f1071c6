from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import medfed
from medfed.core.errors import MedFedError, UserError
from medfed.models.catalogue import build_network
from medfed.spec.task import ModelSpec


def rnn(**options: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": "rnn", **options})


@pytest.mark.parametrize(("cell", "kind"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
@pytest.mark.parametrize("layers", [1, 2])
def test_it_is_torchs_recurrent_network_and_a_linear_layer_over_the_last_state(
    cell: str, kind: Any, layers: int
) -> None:
    network = build_network(rnn(cell=cell, hidden=5, layers=layers), (7, 3), 2, seed=4)
    torch.manual_seed(4)
    recurrent, output = kind(3, 5, layers, batch_first=True), nn.Linear(5, 2)
    series = torch.randn(6, 7, 3)
    states, _ = recurrent(series)
    torch.testing.assert_close(network.module(series), output(states[:, -1]), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "shape"),
    [({"cell": "rwkv"}, (7, 3)), ({"hidden": 0}, (7, 3)), ({"layers": 1.5}, (7, 3)), ({}, (7,)), ({}, (1, 7, 3))],
    ids=str,
)
def test_impossible_options_and_shapes_are_explained(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="'rnn' cannot be built"):
        build_network(rnn(**options), shape, 1, 0)


def hospitals() -> dict[str, Any]:
    """Ill is whose first variable rises over the second half of its series."""
    sites = {}
    for number, name in enumerate(("north", "south", "west")):
        random = np.random.default_rng(number)
        series = random.normal(size=(160, 10, 3)).astype(np.float32)
        sites[name] = series, (series[:, 5:, 0].sum(1) > 0).astype(np.int64)
    return sites


def task(**more: Any) -> dict[str, Any]:
    return {
        "task_type": "classification",
        "model": {"name": "rnn", "input_size": [10, 3], "hidden": 16},
        "federation": {"strategy": "fedavg", "rounds": 12, "optimizer": "adam", "lr": 0.01},
        "data": {"label": {"column": "ill", "classes": [0, 1]}, "standardize": "none"},
        **more,
    }


def test_three_hospitals_learn_from_time_series(tmp_path: Path) -> None:
    outcome = medfed.run(task(), hospitals(), output=tmp_path / "run")
    auc = outcome.value("auc")
    assert auc is not None
    assert auc > 0.95


def test_private_training_says_why_it_cannot(tmp_path: Path) -> None:
    private = task(privacy={"record": {"noise_multiplier": 1.0}})
    with pytest.raises(MedFedError, match="recurrent ones"):
        medfed.run(private, hospitals(), output=tmp_path / "run")
