from __future__ import annotations

import numpy as np
import pytest
import torch

from medfed.core.codec import decode, encode
from medfed.models.optimizers import SGD, Optimizer, OptimizerState, local_optimizer
from medfed.spec.task import FederationSpec

SIZE, STEPS = 7, 12
RNG = np.random.default_rng(0)
START = RNG.normal(size=SIZE).astype(np.float32)
GRADIENTS = [RNG.normal(size=SIZE).astype(np.float32) for _ in range(STEPS)]

SETTINGS = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "sgd", "weight_decay": 0.1},
    {"optimizer": "sgd", "momentum": 0.5, "weight_decay": 0.01},
    {"optimizer": "adam"},
    {"optimizer": "adam", "weight_decay": 0.1},
]


def federation(**settings: object) -> FederationSpec:
    return FederationSpec.model_validate({"strategy": "fedavg", **settings})


def theirs(settings: dict[str, object], lr: float) -> list[np.ndarray]:
    """The weights after each step of the library's own optimizer."""
    weights = torch.nn.Parameter(torch.from_numpy(START.copy()))
    options = {key: value for key, value in settings.items() if key != "optimizer"}
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[settings["optimizer"]]([weights], lr=lr, **options)
    path = []
    for gradient in GRADIENTS:
        weights.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        path.append(weights.detach().numpy().copy())
    return path


def ours(optimizers: list[Optimizer], lr: float, weights: torch.Tensor, gradients: list[np.ndarray]) -> np.ndarray:
    for optimizer, gradient in zip(optimizers, gradients, strict=True):
        optimizer.step(weights, torch.from_numpy(gradient.copy()), lr)
    return weights.numpy().copy()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_step_is_that_of_torch_optim(settings):
    optimizer, weights = local_optimizer(federation(**settings), None), torch.from_numpy(START.copy())
    for gradient, expected in zip(GRADIENTS, theirs(settings, 0.05), strict=True):
        found = ours([optimizer], 0.05, weights, [gradient])
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("pause", [0, 1, 5])
def test_an_optimizer_restored_from_bytes_goes_on_to_the_same_bits(settings, pause):
    spec = federation(**settings)
    unbroken = torch.from_numpy(START.copy())
    ours([local_optimizer(spec, None)] * STEPS, 0.05, unbroken, GRADIENTS)

    weights, before = torch.from_numpy(START.copy()), local_optimizer(spec, None)
    ours([before] * pause, 0.05, weights, GRADIENTS[:pause])
    restored = local_optimizer(spec, decode(encode(before.state()), OptimizerState))
    ours([restored] * (STEPS - pause), 0.05, weights, GRADIENTS[pause:])
    assert weights.numpy().tobytes() == unbroken.numpy().tobytes()
    assert restored.state().steps == STEPS


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_state_it_goes_on_from_is_left_as_it_was(settings):
    spec, weights = federation(**settings), torch.from_numpy(START.copy())
    before = local_optimizer(spec, None)
    ours([before] * 2, 0.1, weights, GRADIENTS[:2])
    state = before.state()
    kept = [moment.copy() for moment in state.moments]
    ours([local_optimizer(spec, state)] * 2, 0.1, weights, GRADIENTS[2:4])
    for expected, found in zip(kept, state.moments, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_sgd_without_momentum_carries_nothing_but_its_count():
    optimizer = SGD(0.1, 0.0, None)
    ours([optimizer] * 3, 0.1, torch.from_numpy(START.copy()), GRADIENTS[:3])
    assert (optimizer.state().steps, optimizer.state().moments) == (3, ())
