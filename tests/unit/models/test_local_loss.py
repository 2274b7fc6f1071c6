from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from medfed.core.examples import Examples
from medfed.models.loss import cross_entropy, local_loss, squared_error
from medfed.spec.task import FederationSpec

RNG = np.random.default_rng(1)


def loss_of(task_type: str, targets: np.ndarray, classes: int, weights: object = "none"):
    federation = FederationSpec.model_validate({"strategy": "fedavg", "class_weights": weights})
    return local_loss(task_type, federation, Examples(np.zeros((len(targets), 1), np.float32), targets), classes)


def outputs(rows: int, columns: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=(rows, columns)).astype(np.float32))


def test_regression_takes_the_mean_squared_error():
    out, targets = outputs(6, 1), torch.from_numpy(RNG.normal(size=6).astype(np.float32))
    loss = loss_of("regression", targets.numpy(), 0)(out, targets)
    assert loss.item() == pytest.approx(np.mean((out.numpy()[:, 0] - targets.numpy()) ** 2), rel=1e-6)
    assert loss.item() == pytest.approx(functional.mse_loss(out[:, 0], targets).item(), rel=1e-7)


def test_one_row_keeps_its_axis():
    assert squared_error(torch.tensor([[3.0]]), torch.tensor([1.0])).item() == 4.0
    assert cross_entropy(None)(torch.tensor([[0.0]]), torch.tensor([1])).item() == pytest.approx(np.log(2))


def by_hand_binary(out: torch.Tensor, targets: np.ndarray, weights: np.ndarray) -> float:
    p = 1 / (1 + np.exp(-out.double().numpy()[:, 0]))
    each = weights[targets]
    return float((each * -np.log(np.where(targets == 1, p, 1 - p))).sum() / each.sum())


def by_hand_several(out: torch.Tensor, targets: np.ndarray, weights: np.ndarray) -> float:
    logits = out.double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    each = weights[targets]
    return float((each * -log_p[np.arange(len(targets)), targets]).sum() / each.sum())


@pytest.mark.parametrize("weights", ["none", (0.5, 3.0), (2.0, 2.0)], ids=str)
def test_binary_cross_entropy_with_class_weights_by_hand(weights):
    targets = np.array([0, 1, 1, 0, 0], np.int64)
    out = outputs(5, 1)
    loss = loss_of("classification", targets, 2, weights)(out, torch.from_numpy(targets)).item()
    assert loss == pytest.approx(
        by_hand_binary(out, targets, np.array([1, 1] if weights == "none" else weights)), rel=1e-6
    )
    two_logits = torch.cat([torch.zeros_like(out), out], 1)
    tensor = None if weights == "none" else torch.tensor(weights)
    assert loss == pytest.approx(
        torch.nn.CrossEntropyLoss(weight=tensor)(two_logits, torch.from_numpy(targets)).item(), rel=1e-6
    )


@pytest.mark.parametrize("weights", ["none", (0.5, 3.0, 1.0)], ids=str)
def test_cross_entropy_of_several_classes_with_class_weights_by_hand(weights):
    targets = np.array([0, 1, 2, 2, 0], np.int64)
    out = outputs(5, 3)
    loss = loss_of("classification", targets, 3, weights)(out, torch.from_numpy(targets)).item()
    assert loss == pytest.approx(
        by_hand_several(out, targets, np.array([1] * 3 if weights == "none" else weights)), rel=1e-6
    )
    tensor = None if weights == "none" else torch.tensor(weights)
    assert loss == pytest.approx(
        torch.nn.CrossEntropyLoss(weight=tensor)(out, torch.from_numpy(targets)).item(), rel=1e-6
    )


@pytest.mark.parametrize(("classes", "columns"), [(2, 1), (3, 3)])
def test_balanced_weights_are_those_of_scikit_learn(classes, columns):
    from sklearn.utils.class_weight import compute_class_weight

    targets = np.array([0] * 7 + [1] * 2 + [classes - 1] * 3, np.int64)
    weights = compute_class_weight("balanced", classes=np.arange(classes), y=targets)
    out = outputs(len(targets), columns)
    loss = loss_of("classification", targets, classes, "balanced")(out, torch.from_numpy(targets)).item()
    by_hand = by_hand_binary if classes == 2 else by_hand_several
    assert loss == pytest.approx(by_hand(out, targets, weights), rel=1e-6)


def test_balanced_weights_of_a_class_that_does_not_occur_at_the_site_are_finite():
    targets = np.array([0, 0, 1], np.int64)
    loss = loss_of("classification", targets, 3, "balanced")(outputs(3, 3), torch.from_numpy(targets))
    assert torch.isfinite(loss)


def test_extreme_logits_have_a_finite_loss():
    for columns in (1, 3):
        out = torch.full((2, columns), 500.0)
        out[:, 0] = -500.0
        assert torch.isfinite(cross_entropy(None)(out, torch.tensor([0, 0])))
        assert torch.isfinite(cross_entropy(None)(-out, torch.tensor([0, 0])))
