from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from medfed.core.examples import Examples
from medfed.core.rng import generator
from medfed.models.batches import Position
from medfed.models.catalogue import build_network
from medfed.models.loss import local_loss, row_losses
from medfed.models.training import train, updates_of
from medfed.spec.task import FederationSpec, ModelSpec

DRAW = np.random.default_rng(2)
ROWS = 12
X = DRAW.normal(size=(ROWS, 3)).astype(np.float32)


def federation(**settings: object) -> FederationSpec:
    return FederationSpec.model_validate({"strategy": "fedavg", "batch_size": 5, "lr": 0.1, **settings})


CASES = [
    ("regression", 1, DRAW.normal(size=ROWS).astype(np.float32), 0),
    ("classification", 1, DRAW.integers(0, 2, ROWS), 2),
    ("classification", 3, DRAW.integers(0, 3, ROWS), 3),
]


@pytest.mark.parametrize(("task_type", "outputs", "targets", "classes"), CASES)
def test_without_weights_their_mean_is_the_loss_of_the_batch(task_type, outputs, targets, classes):
    spec, out = federation(), torch.randn(ROWS, outputs, generator=torch.Generator().manual_seed(1))
    each = row_losses(task_type, spec)(out, torch.from_numpy(targets))
    assert each.shape == (ROWS,)
    whole = local_loss(task_type, spec, Examples(X, targets), classes)(out, torch.from_numpy(targets))
    assert float(each.mean()) == pytest.approx(float(whole), rel=1e-5)


@pytest.mark.parametrize(("task_type", "outputs", "targets", "classes"), CASES[1:])
def test_a_declared_weight_multiplies_the_rows_of_its_class_alone(task_type, outputs, targets, classes):
    weights = [0.5, 4.0, 2.0][:classes]
    out, truth = torch.randn(ROWS, outputs, generator=torch.Generator().manual_seed(1)), torch.from_numpy(targets)
    plain = row_losses(task_type, federation())(out, truth)
    weighted = row_losses(task_type, federation(class_weights=weights))(out, truth)
    assert torch.allclose(weighted, plain * torch.tensor(weights)[truth])


class Scripted:
    """Private gradients of a test's own: fixed batches, and ones in place of gradients."""

    def __init__(self) -> None:
        self.batches = itertools.cycle([[0, 3], [], [1, 2, 4, 7, 9, 11]])
        self.seen: list[int] = []

    def draw(self, rows: int) -> np.ndarray:
        assert rows == ROWS
        return np.array(next(self.batches), np.int64)

    def write(self, gradient: torch.Tensor, features: torch.Tensor, targets: torch.Tensor) -> None:
        self.seen.append(len(targets))
        gradient.fill_(1.0)


def test_the_loop_takes_the_planned_steps_over_drawn_batches_and_nothing_else():
    spec = federation(local_epochs=2)
    network = build_network(ModelSpec(name="logistic"), (3,), 1, seed=1)
    before, private = network.vector(), Scripted()
    session = train(
        network,
        Examples(X, CASES[1][2]),
        lambda outputs, targets: 1 / 0,
        spec,
        round_number=1,
        position=Position(3, 2),
        optimizer=None,
        generator=lambda epoch: generator(0, epoch),
        private=private,
    )
    assert updates_of(spec, ROWS) == (5, 6) and session.trained.updates == 6
    assert private.seen == [2, 0, 6, 2, 0, 6]
    assert session.position == Position(3, 2)
    assert np.allclose(session.trained.weights, before - 0.1 * 6, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "rows", "found"),
    [({}, 12, (5, 3)), ({"local_updates": 7}, 12, (5, 7)), ({"batch_size": "full"}, 12, (12, 1)), ({}, 3, (3, 1))],
)
def test_batch_and_updates_of_a_round(settings, rows, found):
    assert updates_of(federation(**settings), rows) == found
