from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from medfed.core.errors import UserError
from medfed.privacy.clipping import Bookkeeping, PerRow, clipped_sum, factors
from medfed.privacy.dpsgd import DpSgd
from medfed.privacy.rowwise import RowwiseNetwork

ROWS = 9


def entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def tokens() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4, bias=False), nn.Flatten(), nn.Linear(8, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(4, 5, 2, bias=False, dilation=1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


class Residual(nn.Module):
    """What breaks per-sample hooks: group normalisation, and additions and activations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)  # not in the order of use
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        entering = self.activation(self.norm(self.first(inputs)))
        out = self.second(entering)
        out += entering
        out = self.pool(self.activation(out))
        return self.last(out.view(out.size(0), -1))


class Gated(Residual):
    """The same with an operation that is on no list."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs * inputs.sigmoid())


def sequence() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, padding=2, dilation=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))


def volume() -> nn.Module:
    layers = nn.Conv3d(1, 3, (2, 3, 1), padding=(1, 0, 0)), nn.GroupNorm(3, 3), nn.SiLU(), nn.Conv3d(3, 8, 3, stride=2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3))


NETWORKS = {
    "mlp": (mlp, (2, 3), Bookkeeping),
    "tokens": (tokens, (2, 3), Bookkeeping),
    "cnn": (cnn, (2, 8, 8), Bookkeeping),
    "residual": (Residual, (2, 8, 8), Bookkeeping),
    "sequence": (sequence, (2, 8), Bookkeeping),
    "volume": (volume, (1, 4, 5, 4), Bookkeeping),
    "gated": (Gated, (2, 8, 8), PerRow),
}


def row_by_row(module: nn.Module, features: torch.Tensor, targets: torch.Tensor, clip_norm: float) -> np.ndarray:
    """The textbook: one backward pass a row, in double precision, clipped by its own norm."""
    module = copy.deepcopy(module).double()
    total = 0.0
    for row, target in zip(features.double(), targets, strict=True):
        module.zero_grad()
        functional.cross_entropy(module(row[None]), target[None]).backward()
        gradient = np.concatenate([p.grad.numpy().ravel() for p in module.parameters()])
        total = total + gradient * min(1.0, clip_norm / np.linalg.norm(gradient))
    return total


def rows(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(ROWS, *shape, generator=draw) * torch.linspace(0.1, 4, ROWS).view(-1, *[1] * len(shape))
    return features, torch.randint(0, 3, (ROWS,), generator=draw)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("clip_norm", [0.05, 1.0, 1e6])
def test_without_noise_it_is_clipping_row_by_row_to_1e_6(name, clip_norm):
    build, shape, kind = NETWORKS[name]
    torch.manual_seed(1)
    module, (features, targets) = build(), rows(shape)
    assert type(clipped_sum(module, entropy, clip_norm)) is kind
    private = DpSgd(module, entropy, clip_norm=clip_norm, noise_multiplier=0.0, sampling_rate=1.0, expected_batch=ROWS)
    gradient = torch.full((sum(p.numel() for p in module.parameters()),), 7.0)
    private.write(gradient, features, targets)
    expected = row_by_row(module, features, targets, clip_norm) / ROWS
    assert np.abs(gradient.numpy() - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_both_ways_agree_and_rows_beyond_a_call_are_added(name):
    build, shape, _ = NETWORKS[name]
    torch.manual_seed(2)
    module, (features, targets) = build(), rows(shape)
    private = DpSgd(module, entropy, clip_norm=0.5, noise_multiplier=0.0, sampling_rate=1.0, expected_batch=1)
    private._sum.rows_at_once = lambda features: 4
    gradient = torch.zeros(sum(p.numel() for p in module.parameters()))
    private.write(gradient, features, targets)
    other = PerRow(module, entropy, 0.5)(features, targets)
    assert torch.allclose(gradient, other, atol=1e-6)


def test_no_row_moves_the_sum_by_more_than_the_clipping_norm():
    torch.manual_seed(4)
    module, (features, targets) = mlp(), rows((2, 3))
    features[-1] *= 1e6
    found = clipped_sum(module, entropy, 0.25)
    with_it, without = found(features, targets), found(features[:-1], targets[:-1])
    assert float((with_it - without).norm()) <= 0.25 * (1 + 1e-5)


@pytest.mark.parametrize("kind", [PerRow, Bookkeeping])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_row_without_a_finite_gradient_adds_nothing_and_changes_no_other(kind, bad):
    module = nn.Sequential(nn.Linear(6, 3))
    features, targets = rows((6,))
    without = PerRow(module, entropy, 1.0)(features[1:], targets[1:])
    features[0] = bad
    found = kind(module if kind is PerRow else RowwiseNetwork.of(module), entropy, 1.0)(features, targets)
    assert torch.isfinite(found).all()
    assert torch.allclose(found, without, atol=1e-6)


def test_a_gradient_of_zeros_stays_one():
    assert factors(torch.tensor([0.0, 4.0, 0.25, float("nan")]), 1.0).tolist() == [1.0, 0.5, 1.0, 0.0]


def of_function(function) -> nn.Module:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return function(self.linear(inputs))

    return Functional()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(0),
        lambda x: x + x.sum(),
        lambda x: x.flatten(0),
        lambda x: x.view(-1, x.size(0)),
        lambda x: x.view(2, -1),
        lambda x: x.view(x.size(1), -1),
        lambda x: torch.flatten(x, 0),
        lambda x: x.flip(0),
        lambda x: x.t(),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x[1:],
        lambda x: torch.cat([x, x]),
    ],
)
def test_no_operation_that_may_mix_rows_is_believed_to_keep_them_apart(function):
    assert RowwiseNetwork.of(of_function(function)) is None


def test_only_networks_of_known_layers_used_once_are_kept_books_of():
    shared = nn.Linear(4, 4)
    assert RowwiseNetwork.of(nn.Sequential(shared, nn.ReLU(), shared)) is None
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert RowwiseNetwork.of(tied) is None
    frozen = nn.Linear(4, 4)
    frozen.weight.requires_grad_(False)
    assert RowwiseNetwork.of(frozen) is None
    hooked = nn.Linear(4, 4)
    hooked.register_forward_hook(lambda layer, inputs, outputs: outputs - outputs.mean(0))
    assert RowwiseNetwork.of(nn.Sequential(hooked)) is None
    for unknown in (nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(0), nn.LSTM(3, 4), nn.BatchNorm1d(4), nn.PReLU()):
        assert RowwiseNetwork.of(nn.Sequential(nn.Linear(4, 4), unknown)) is None
    assert RowwiseNetwork.of(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(inplace=True)))) is not None
    assert RowwiseNetwork.of(of_function(lambda x: x)) is not None


def test_values_of_other_dimensions_are_not_added_for_that_may_mix_rows():
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, ROWS), nn.Conv2d(1, 1, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.other(inputs.view(inputs.size(0), 1, 2, 3)) + self.one(inputs)

    found = clipped_sum(Mixing(), entropy, 1.0)
    with pytest.raises(UserError, match="different dimensions"):
        found(*rows((6,)))


def used_again(inputs: torch.Tensor) -> torch.Tensor:
    entering = inputs
    inputs += torch.tanh(inputs)
    return entering + inputs


def test_an_addition_in_place_to_what_is_used_again_is_refused():
    module = of_function(used_again)
    private = DpSgd(module, entropy, clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.5, expected_batch=4)
    with pytest.raises(UserError, match="in place"):
        private.write(torch.zeros(20), *rows((4,)))


def test_a_layer_whose_inputs_change_later_is_refused():
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.activation = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(inplace=True)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            entering = self.one(inputs)
            out = self.other(entering)
            return self.activation(entering) + out

    with pytest.raises(UserError, match="in place"):
        clipped_sum(Changing(), entropy, 1.0)(*rows((6,)))


@pytest.mark.parametrize(("held", "expected"), [(2**26, 256), (120, 3), (1, 1)])
def test_as_many_rows_go_at_once_as_memory_allows(monkeypatch, held, expected):
    """One row of the MLP takes 36 numbers: two layers' inputs 6 + 8, and their outputs twice, 2 · (8 + 3)."""
    monkeypatch.setattr("medfed.privacy.clipping._HELD", held)
    assert clipped_sum(mlp(), entropy, 1.0).rows_at_once(rows((2, 3))[0]) == expected


def used_twice() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(6, 3))


def with_one_weight() -> nn.Module:
    module = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    module[2].weight = module[0].weight
    return module


@pytest.mark.parametrize("build", [used_twice, with_one_weight])
def test_a_shared_weight_is_clipped_as_a_whole_and_stays_in_its_place(build):
    torch.manual_seed(5)
    module, (features, targets) = build(), rows((6,))
    before = [p.data_ptr() for p in module.parameters()]
    expected = row_by_row(module, features, targets, 0.3)
    found = clipped_sum(module, entropy, 0.3)(features, targets)
    assert np.abs(found.numpy() - expected).max() <= 1e-6
    assert [p.data_ptr() for p in module.parameters()] == before


@pytest.mark.parametrize(
    ("layer", "named"),
    [(nn.BatchNorm1d(6), "BatchNorm1d"), (nn.InstanceNorm1d(6, track_running_stats=True), "InstanceNorm1d")],
)
def test_a_layer_that_forbids_it_is_refused_by_name(layer, named):
    module = nn.Sequential(nn.Linear(6, 6), layer, nn.Linear(6, 3))
    with pytest.raises(UserError, match=named) as refused:
        DpSgd(module, entropy, clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.5, expected_batch=4)
    assert "'1'" in refused.value.cause and "GroupNorm" in refused.value.remedy


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 6), nn.LayerNorm(6), nn.Dropout(0.5)])
def test_layers_that_keep_rows_apart_may_stay(layer):
    module = nn.Sequential(nn.Linear(6, 6), layer, nn.Linear(6, 3))
    private = DpSgd(module, entropy, clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.5, expected_batch=4)
    gradient = torch.zeros(sum(p.numel() for p in module.parameters()))
    private.write(gradient, *rows((6,)))
    assert torch.isfinite(gradient).all() and float(gradient.norm()) > 0


def test_a_network_that_cannot_be_batched_is_refused_before_any_gradient():
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.linear(inputs) * (1.0 if inputs.sum().item() > 0 else 2.0)

    private = DpSgd(Counted(), entropy, clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.5, expected_batch=4)
    with pytest.raises(UserError, match="row by row"):
        private.write(torch.zeros(21), *rows((6,)))
