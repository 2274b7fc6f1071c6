from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from medfed.core.errors import UserError
from medfed.privacy.clipping import Bookkeeping, PerRow, chain_of, clipped_sum, factors
from medfed.privacy.dpsgd import DpSgd

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
    """What breaks per-sample hooks: group normalisation, and an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(4, 3)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        entering = self.activation(self.norm(self.first(inputs)))
        out = self.second(entering)
        out += entering
        return self.last(self.activation(out).mean((2, 3)))


NETWORKS = {
    "mlp": (mlp, (2, 3), Bookkeeping),
    "tokens": (tokens, (2, 3), Bookkeeping),
    "cnn": (cnn, (2, 8, 8), Bookkeeping),
    "residual": (Residual, (2, 8, 8), PerRow),
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
    private._sum.rows_at_once = 4
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
    found = kind(module if kind is PerRow else chain_of(module), entropy, 1.0)(features, targets)
    assert torch.isfinite(found).all()
    assert torch.allclose(found, without, atol=1e-6)


def test_a_gradient_of_zeros_stays_one():
    assert factors(torch.tensor([0.0, 4.0, 0.25, float("nan")]), 1.0).tolist() == [1.0, 0.5, 1.0, 0.0]


def test_only_chains_of_known_layers_used_once_are_kept_books_of():
    shared = nn.Linear(4, 4)
    assert chain_of(nn.Sequential(shared, nn.ReLU(), shared)) is None
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert chain_of(tied) is None
    assert chain_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))) is None
    assert chain_of(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))) is None
    assert chain_of(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2)))) is not None
    assert chain_of(nn.Sequential(nn.Flatten(0), nn.Linear(4, 4))) is None
    assert chain_of(nn.LSTM(3, 4)) is None


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
