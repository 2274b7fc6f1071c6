"""ResNet-18 with group normalisation, and its private gradients; needs the extra ``imaging``."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from medfed.core.errors import UserError
from medfed.models.catalogue import build_network, check_options
from medfed.privacy.clipping import Bookkeeping, PerRow, clipped_sum
from medfed.privacy.dpsgd import DpSgd
from medfed.spec.task import ModelSpec

pytest.importorskip("monai", reason="the extra imaging is not installed")
ROWS, SHAPE = 4, (3, 16, 16)


def network(norm: str | None = None, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    options = {} if norm is None else {"norm": norm}
    return build_network(ModelSpec.model_validate({"name": "resnet18", **options}), shape, 3, 0).module


def entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def rows(shape: tuple[int, ...] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    features = torch.randn(ROWS, *shape, generator=draw) * torch.linspace(0.2, 3, ROWS).view(-1, *[1] * len(shape))
    return features, torch.randint(0, 3, (ROWS,), generator=draw)


def layers(module: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(layer, kind) for layer in module.modules())


def test_every_normalisation_follows_the_option() -> None:
    """All twenty: MONAI's own option reaches the first alone."""
    assert layers(network(), nn.BatchNorm2d) == layers(network("batch"), nn.BatchNorm2d) == 20
    grouped = network("group")
    assert layers(grouped, nn.GroupNorm) == 20 and layers(grouped, nn.modules.batchnorm._BatchNorm) == 0
    assert all(layer.num_groups == 32 for layer in grouped.modules() if isinstance(layer, nn.GroupNorm))


def test_weights_begin_alike_under_both_norms() -> None:
    one, other = (torch.cat([p.flatten() for p in network(norm).parameters()]) for norm in ("batch", "group"))
    assert torch.equal(one, other)


def test_another_norm_is_refused() -> None:
    with pytest.raises(UserError, match="norm is one of: batch, group, instance"):
        network("layer")
    check_options(ModelSpec.model_validate({"name": "resnet18", "norm": "group"}), "classification")


def row_by_row(module: nn.Module, features: torch.Tensor, targets: torch.Tensor, clip_norm: float) -> np.ndarray:
    """The textbook: one backward pass a row, in double precision, clipped by its own norm."""
    module, total = copy.deepcopy(module).double(), np.zeros(1)
    for row, target in zip(features.double(), targets, strict=True):
        module.zero_grad()
        functional.cross_entropy(module(row[None]), target[None]).backward()
        gradient = np.concatenate([p.grad.numpy().ravel() for p in module.parameters()])
        total = total + gradient * min(1.0, clip_norm / np.linalg.norm(gradient))
    return total


@pytest.mark.parametrize(
    ("shape", "last"),
    [((1, 8, 8, 8), False), ((1, 8, 8, 8), True), (SHAPE, False), (SHAPE, True), ((3, 32, 32), False)],
)
def test_without_noise_it_is_clipping_row_by_row_to_1e_6(shape: tuple[int, ...], last: bool) -> None:
    """For rows of which single and double precision take the same side of every ReLU and the same maximum of a pool."""
    module, (features, targets) = network("group", shape), rows(shape)
    if last:
        features = features.to(memory_format=torch.channels_last if len(shape) == 3 else torch.channels_last_3d)
    assert isinstance(clipped_sum(module, entropy, 1.0), Bookkeeping)
    private = DpSgd(module, entropy, clip_norm=1.0, noise_multiplier=0.0, sampling_rate=1.0, expected_batch=ROWS)
    gradient = torch.zeros(sum(p.numel() for p in module.parameters()))
    private.write(gradient, features, targets)
    expected = row_by_row(module, features, targets, 1.0) / ROWS
    assert np.abs(gradient.numpy() - expected).max() <= 1e-6


def test_both_ways_agree() -> None:
    module, (features, targets) = network("group"), rows()
    found, other = (
        make(features, targets) for make in (clipped_sum(module, entropy, 0.5), PerRow(module, entropy, 0.5))
    )
    assert torch.allclose(found, other, atol=1e-6)


def test_batch_normalisation_is_refused_with_the_option_as_its_remedy() -> None:
    with pytest.raises(UserError, match="BatchNorm2d") as refused:
        DpSgd(network(), entropy, clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.5, expected_batch=2)
    assert "norm: group" in refused.value.remedy


def test_densenet_follows_the_option_too() -> None:
    def built(**options: object) -> nn.Module:
        return build_network(ModelSpec.model_validate({"name": "densenet121", **options}), (1, 64, 64), 3, 0).module

    assert layers(built(), nn.BatchNorm2d) == 121  # one before each of 120 convolutions but the first, and the last
    grouped = built(norm="group")
    assert layers(grouped, nn.GroupNorm) == 121 and layers(grouped, nn.modules.batchnorm._BatchNorm) == 0
    with pytest.raises(UserError, match="dropout is at least 0"):
        built(dropout=1.0)
    for norm, least in (("batch", 64), ("group", 32)):
        spec = ModelSpec.model_validate({"name": "densenet121", "norm": norm})
        module = build_network(spec, (1, least, least), 3, 0).module.train()
        assert torch.isfinite(module(torch.randn(1, 1, least, least))).all()  # a batch of one row
        with pytest.raises(UserError, match=f"{least}×{least}"):
            build_network(spec, (1, least - 1, least), 3, 0)
