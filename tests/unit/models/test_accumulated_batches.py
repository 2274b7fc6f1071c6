"""Batches computed in pieces, and where networks are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import medfed
from medfed.core.errors import TaskError, UserError
from medfed.core.examples import Examples
from medfed.models.batches import Position
from medfed.models.device import resolve_device
from medfed.models.loss import local_loss
from medfed.models.network import Network
from medfed.models.training import train
from medfed.spec.task import FederationSpec

DRAW = np.random.default_rng(2)
ROWS = DRAW.normal(size=(50, 3)).astype(np.float32)


def network(outputs: int) -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, outputs)))


def trained(examples: Examples, task_type: str, outputs: int, **settings: Any) -> np.ndarray[Any, Any]:
    """Batches of 16, 16, 16 and 2 of the 50 rows, twice."""
    given = {"strategy": "fedavg", "local_epochs": 2, "batch_size": 16, "lr": 0.1, "momentum": 0.5} | settings
    federation = FederationSpec.model_validate(given)
    loss = local_loss(task_type, federation, examples, max(outputs, 2))
    session = train(
        network(outputs), examples, loss, federation, round_number=1, position=Position(), optimizer=None,
        generator=np.random.default_rng,
    )  # fmt: skip
    return session.trained.weights


BINARY = Examples(ROWS, (ROWS[:, 0] > 0.8).astype(np.int64))
THREE = Examples(ROWS, np.digitize(ROWS[:, 0], [-1, 1]))
VALUES = Examples(ROWS, ROWS[:, 0] ** 2)
CASES = [
    (BINARY, "classification", 1, {}),
    (BINARY, "classification", 1, {"class_weights": "balanced"}),
    (THREE, "classification", 3, {"class_weights": (1.0, 5.0, 0.2), "clip_norm": 0.5}),
    (THREE, "classification", 3, {"optimizer": "adam", "momentum": 0.0, "lr": 0.01}),
    (VALUES, "regression", 1, {"weight_decay": 0.1}),
]


@pytest.mark.parametrize("pieces", [2, 3, 16])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}-{case[3]}")
def test_a_batch_in_pieces_makes_the_same_step(case: Any, pieces: int) -> None:
    examples, task_type, outputs, settings = case
    whole = trained(examples, task_type, outputs, **settings)
    found = trained(examples, task_type, outputs, accumulate=pieces, **settings)
    np.testing.assert_allclose(found, whole, rtol=2e-4, atol=3e-6)


def test_no_more_rows_than_a_piece_has_go_through_the_network() -> None:
    seen: list[int] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(len(inputs))
            found: torch.Tensor = self.layer(inputs)
            return found

    federation = FederationSpec.model_validate({"strategy": "fedavg", "batch_size": 20, "accumulate": 4})
    train(
        Network(Watching()), BINARY, local_loss("classification", federation, BINARY, 2), federation, round_number=1,
        position=Position(), optimizer=None, generator=np.random.default_rng,
    )  # fmt: skip
    assert seen == [5] * 8 + [3, 3, 2, 2]


def test_a_graphics_processor_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for present, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert resolve_device("auto") == torch.device(expected)
        assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="torch finds none on this machine"):
        resolve_device("cuda")


def test_a_task_for_a_graphics_processor_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    task = {"task_type": "classification", "model": "logistic", "federation": {"strategy": "fedavg"}}
    with pytest.raises(TaskError, match="engine") as caught:
        medfed.check(task | {"engine": {"device": "cuda"}})
    assert "device: auto" in caught.value.remedy
    medfed.check(task | {"engine": {"device": "auto"}})
