from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from medfed.core.errors import CodecError
from medfed.models.network import Network


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


CASES = {"mlp": (mlp, (5, 4)), "batch norm": (convolutional, (5, 1, 3, 3)), "tied": (Tied, (5, 4))}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    """(a network, an untouched copy of its module, an input)."""
    build, shape = CASES[request.param]
    torch.manual_seed(3)
    module = build()
    untouched = copy.deepcopy(module)
    return Network(module), untouched, torch.randn(shape)


def floating(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]


def test_the_vector_is_parameters_then_floating_buffers_in_the_librarys_order(case):
    network, untouched, _ = case
    expected = torch.cat([tensor.detach().flatten() for tensor in floating(untouched)])
    assert network.vector().dtype == np.float32
    np.testing.assert_array_equal(network.vector(), expected.numpy())
    assert network.size == len(expected)
    assert len(network.weights) == len(network.gradient) == sum(p.numel() for p in untouched.parameters())


def test_the_forward_pass_is_the_plain_modules(case):
    network, untouched, x = case
    for mode in (True, False):
        network.module.train(mode)
        untouched.train(mode)
        np.testing.assert_array_equal(network.module(x).detach(), untouched(x).detach())


def test_the_gradient_is_that_of_autograd(case):
    network, untouched, x = case
    network.module(x).square().sum().backward()
    loss = untouched(x).square().sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(untouched.parameters()))])
    np.testing.assert_allclose(network.gradient, expected, rtol=1e-6, atol=1e-7)
    network.gradient.zero_()
    assert all(float(p.grad.abs().sum()) == 0.0 for p in network.module.parameters())


def test_a_step_along_the_flat_weights_moves_the_module(case):
    network, _, x = case
    before = network.module.eval()(x).detach().clone()
    network.weights.mul_(1.5)
    assert not torch.equal(network.module(x), before)
    np.testing.assert_array_equal(
        network.weights, torch.cat([p.detach().flatten() for p in network.module.parameters()])
    )


def test_running_statistics_of_batch_norm_reach_the_vector():
    network = Network(convolutional())
    before, parameters = network.vector(), len(network.weights)
    network.module.train()
    network.module(torch.randn(8, 1, 3, 3) + 5.0)
    after = network.vector()
    np.testing.assert_array_equal(after[:parameters], before[:parameters])
    norm = network.module[1]
    np.testing.assert_array_equal(after[parameters:], np.concatenate([norm.running_mean, norm.running_var]))
    assert (after[parameters:] != before[parameters:]).all()


def test_what_is_loaded_is_what_the_vector_gives_and_what_the_module_uses(case):
    network, untouched, x = case
    rng = np.random.default_rng(0)
    wanted = rng.uniform(0.1, 1.0, network.size).astype(np.float32)
    network.load(wanted)
    np.testing.assert_array_equal(network.vector(), wanted)
    position = 0
    for tensor in floating(untouched):
        tensor.data.copy_(torch.from_numpy(wanted[position : position + tensor.numel()]).view_as(tensor))
        position += tensor.numel()
    np.testing.assert_array_equal(network.module.eval()(x).detach(), untouched.eval()(x).detach())


def test_the_vector_is_a_copy(case):
    network, _, _ = case
    vector = network.vector()
    kept = vector.copy()
    network.flat.zero_()
    np.testing.assert_array_equal(vector, kept)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda n: np.zeros(n - 1, np.float32),
        lambda n: np.zeros(n + 1, np.float32),
        lambda n: np.zeros(0, np.float32),
        lambda n: np.zeros((1, n), np.float32),
        lambda n: np.zeros(1, np.float32),
        lambda n: np.zeros(n, np.float64),
    ],
)
def test_a_vector_of_another_length_or_type_is_refused_and_nothing_changes(case, wrong):
    network, _, _ = case
    before = network.vector()
    with pytest.raises(CodecError, match=f"the model has {network.size} weights"):
        network.load(wrong(network.size))
    np.testing.assert_array_equal(network.vector(), before)


def test_weights_that_came_over_the_wire_are_loaded_though_they_are_read_only(case):
    network, _, _ = case
    frozen = np.full(network.size, 0.5, np.float32)
    frozen.flags.writeable = False
    network.load(frozen)
    assert network.vector().tolist() == frozen.tolist()
