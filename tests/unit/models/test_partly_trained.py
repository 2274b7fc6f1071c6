"""A network of which some elements are trained: against plain torch, with its own way to freeze."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from medfed.core.errors import CodecError, UserError
from medfed.core.examples import Examples
from medfed.models.batches import Position
from medfed.models.elements import EVERYTHING, Elements
from medfed.models.layers import frozen_elements, head_of, matching
from medfed.models.loss import local_loss
from medfed.models.network import Network
from medfed.models.training import predict, train
from medfed.privacy.clipping import Bookkeeping, PerRow, clipped_sum
from medfed.spec.task import FederationSpec

DRAW = np.random.default_rng(1)
IMAGES = Examples(DRAW.normal(size=(12, 1, 6, 6)).astype(np.float32), (np.arange(12) % 2).astype(np.int64))
WHOLE = FederationSpec.model_validate(
    {"strategy": "fedavg", "local_updates": 4, "batch_size": "full", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten(),
        nn.Linear(8, 1),
    )  # fmt: skip


def trained(network: Network, federation: FederationSpec = WHOLE, **given: Any) -> np.ndarray[Any, Any]:
    session = train(
        network, IMAGES, local_loss("classification", federation, IMAGES, 2), federation, round_number=1,
        position=Position(), optimizer=None, generator=np.random.default_rng, **given,
    )  # fmt: skip
    return session.trained.weights


@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(-9, 9, width=32)), st.data())
def test_the_trained_part_and_the_rest_are_the_whole(whole: np.ndarray[Any, Any], data: st.DataObject) -> None:
    mask = data.draw(arrays(bool, len(whole)))
    elements = Elements.of(whole, mask)
    np.testing.assert_array_equal(elements.mask, mask)
    np.testing.assert_array_equal(elements.chosen(whole), whole[mask])
    np.testing.assert_array_equal(elements.whole(whole[mask]), whole)


@pytest.mark.parametrize("freeze", [["0", "1"], ["0", "1", "3"], ["0.weight", "6"]])
def test_training_is_torch_s_with_frozen_parameters_and_layers_in_evaluation(freeze: list[str]) -> None:
    network, plain = Network(convolutional()), convolutional()
    elements = frozen_elements(network, freeze)
    network.restrict(elements)
    found = elements.whole(trained(network))
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(all(name != each and not name.startswith(f"{each}.") for each in freeze))
    plain.train()
    for each in set(freeze) & {"1"}:
        plain[int(each)].eval()
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], 0.1, 0.9, weight_decay=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        outputs = plain(torch.from_numpy(IMAGES.features))[:, 0]
        nn.functional.binary_cross_entropy_with_logits(outputs, torch.from_numpy(IMAGES.targets).float()).backward()
        optimizer.step()
    buffers = [b for b in plain.buffers() if b.is_floating_point()]
    expected = torch.cat([t.detach().flatten() for t in (*plain.parameters(), *buffers)]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found[~elements.mask], elements.fixed)


def test_a_network_is_restricted_and_freed_again() -> None:
    network = Network(convolutional())
    before, free = network.vector(), trained(Network(convolutional()))
    elements = frozen_elements(network, ["0"])
    network.restrict(elements)
    network.load(elements.chosen(before))
    trained(network)
    network.restrict(EVERYTHING)
    network.load(before)
    np.testing.assert_array_equal(trained(network), free)


def test_scores_are_those_of_the_whole() -> None:
    network, whole = Network(convolutional()), Network(convolutional())
    values = DRAW.normal(size=network.size).astype(np.float32) ** 2  # variances are not negative
    elements = Elements.of(values, DRAW.random(network.size) < 0.5)
    network.restrict(elements)
    network.load(elements.chosen(values))
    whole.load(values)
    expected = predict(whole, IMAGES, "classification").scores
    np.testing.assert_array_equal(predict(network, IMAGES, "classification").scores, expected)


def test_elements_of_another_network_are_refused() -> None:
    network = Network(convolutional())
    with pytest.raises(CodecError, match="weights"):
        network.restrict(Elements.of(np.zeros(5, np.float32), np.arange(5) < 2))
    for broken in (
        Elements(9, np.zeros(1, np.uint8), np.zeros(9, np.float32)),
        Elements(8, np.full(1, 255, np.uint8), np.zeros(1, np.float32)),
        Elements(8, np.zeros(1, np.uint8), np.full(8, np.nan, np.float32)),
    ):
        with pytest.raises(CodecError):
            network.restrict(broken)


def test_layers_go_by_name_by_prefix_and_by_pattern() -> None:
    module = nn.ModuleDict(
        {"conv1": nn.Linear(2, 2), "conv10": nn.Linear(2, 2), "head": nn.Sequential(nn.Linear(2, 1))}
    )
    assert matching(module, ["conv1"]) == {"conv1.weight", "conv1.bias"}
    assert matching(module, ["conv*"]) == {
        f"{layer}.{part}" for layer in ("conv1", "conv10") for part in ("weight", "bias")
    }
    assert matching(module, ["head.0.bias"]) == {"head.0.bias"}
    assert matching(module, ["head"]) == {"head.0.weight", "head.0.bias"}
    assert head_of(module) == "head.0"
    with pytest.raises(UserError, match="no layer 'conv'") as caught:
        matching(module, ["conv"])
    assert caught.value.remedy == "its layers: conv1, conv10, head, and those in them"


@pytest.mark.parametrize("freeze", [["0"], ["3"], ["0", "3"], ["0.weight"]])
def test_rows_are_clipped_by_the_gradients_of_the_trained_part(freeze: list[str]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 1)
    )
    network = Network(module)
    network.restrict(frozen_elements(network, freeze))

    def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float(), reduction="none")

    clipped = clipped_sum(module, losses, 0.2)
    assert isinstance(clipped, PerRow if "0.weight" in freeze else Bookkeeping)
    found = clipped(torch.from_numpy(IMAGES.features), torch.from_numpy(IMAGES.targets)).numpy()
    plain = copy.deepcopy(module)
    total = np.zeros(network.weights.numel())
    kept = [p for p in plain.parameters() if p.requires_grad]
    for row, target in zip(torch.from_numpy(IMAGES.features), torch.from_numpy(IMAGES.targets), strict=True):
        gradient = torch.cat(
            [g.flatten() for g in torch.autograd.grad(losses(plain(row[None]), target[None]).sum(), kept)]
        )
        total += (gradient * min(1.0, 0.2 / float(gradient.norm()))).numpy()
    np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-6)
