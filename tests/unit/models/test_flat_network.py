from __future__ import annotations

import copy
import weakref

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


# ------------------------------------------------------------------------------------------ the gradient's memory


def test_a_forgotten_gradient_is_freed_and_the_next_begins_with_zeros(case):
    network, untouched, x = case
    network.module(x).square().sum().backward()
    held = weakref.ref(network.gradient)
    network.forget_gradient()
    assert held() is None
    assert not network.gradient.any()
    network.module(x).sum().backward()
    loss = untouched(x).sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(untouched.parameters()))])
    np.testing.assert_allclose(network.gradient, expected, rtol=1e-6, atol=1e-7)


def test_what_was_accumulated_before_the_first_look_is_kept():
    network = Network(nn.Linear(2, 1))
    for _ in range(2):
        network.module(torch.tensor([[3.0, 4.0]])).sum().backward()
    assert network.gradient.tolist() == [6.0, 8.0, 2.0]
    network.module(torch.tensor([[3.0, 4.0]])).sum().backward()
    assert network.gradient.tolist() == [9.0, 12.0, 3.0]


def test_a_frozen_parameter_has_no_gradient():
    module = mlp()
    module[0].weight.requires_grad_(False)
    network = Network(module)
    network.module(torch.randn(5, 4)).sum().backward()
    assert not network.gradient[:24].any()
    assert network.gradient[24:].any()


# ------------------------------------------------------------------------------------------ convolutions


class FlattensByView(nn.Module):
    """A convolution whose output is flattened in a way that only the ordinary order in memory allows."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 3, 2), nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.convolution(x).view(len(x), -1))


def over(convolution: nn.Module) -> nn.Module:
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


CONVOLUTIONS = {
    "images": (lambda: over(nn.Conv2d(2, 4, 3)), (5, 2, 8, 6), torch.channels_last),
    "grey images": (lambda: over(nn.Conv2d(1, 4, 3)), (5, 1, 8, 6), torch.channels_last),
    "volumes": (lambda: over(nn.Conv3d(2, 4, 3)), (5, 2, 6, 5, 4), torch.channels_last_3d),
    "batch norm": (convolutional, (5, 1, 3, 3), torch.channels_last),
    "transposed": (lambda: over(nn.ConvTranspose2d(2, 4, 3)), (5, 2, 8, 6), torch.channels_last),
    "signals": (lambda: over(nn.Conv1d(2, 4, 3)), (5, 2, 8), None),
    "flattened by view": (FlattensByView, (5, 1, 3, 3), None),
}


@pytest.mark.parametrize(("build", "shape", "layout"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_see_the_same_inputs_channels_last_where_they_can(build, shape, layout):
    module, x = build(), torch.randn(shape)
    module(x)
    untouched, network = copy.deepcopy(module).eval(), Network(module)
    before = network.vector()
    assert network.has_convolutions
    laid_out = network.laid_out(x)
    assert torch.equal(laid_out, x)
    assert laid_out.stride() == (x if layout is None else torch.empty(shape, memory_format=layout).copy_(x)).stride()
    assert network.module.training
    assert network.vector().tobytes() == before.tobytes()
    np.testing.assert_allclose(network.module.eval()(laid_out).detach(), untouched(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", [mlp, Tied])
def test_other_networks_have_their_inputs_as_they_are(build):
    network, x = Network(build()), torch.randn(5, 4)
    assert not network.has_convolutions
    assert network.laid_out(x) is x


@pytest.mark.parametrize("writable", [True, False])
def test_a_network_over_a_vector_has_its_values_and_its_memory_where_that_can_be_written(case, writable):
    network, untouched, x = case
    weights = network.vector() + np.float32(0.5)
    weights.flags.writeable = writable
    over = Network(copy.deepcopy(untouched), weights)
    assert np.shares_memory(over.flat.numpy(), weights) is writable
    network.load(weights)
    np.testing.assert_array_equal(over.module(x).detach(), network.module(x).detach())


def test_a_network_over_another_models_vector_is_refused(case):
    _, untouched, _ = case
    with pytest.raises(CodecError, match="weights, but"):
        Network(untouched, np.zeros(3, np.float32))
