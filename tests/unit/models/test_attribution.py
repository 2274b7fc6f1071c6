"""Explanations of networks that were trained on images whose one telling place is known, and of closed forms."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("captum")

from medfed.core.errors import UserError
from medfed.models.attribution import gradcam, integrated_gradients, last_maps
from medfed.models.catalogue import build_network
from medfed.models.network import Network
from medfed.spec.task import ModelSpec

PLACE = (slice(2, 10), slice(20, 28))
AREA = 64 / 32**2


def squares(rows: int, seed: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a soft blob anywhere; of class 1 a bright square at one place too."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    images = rng.normal(0, 0.5, (rows, channels, 32, 32)).astype(np.float32)
    y, x = np.mgrid[:32, :32]
    for row, label in enumerate(labels):
        cy, cx = rng.integers(12, 30, 2)
        images[row] += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 30)
        images[(row, slice(None), *PLACE)] += label * rng.uniform(0.8, 2)
    return images, labels


def network(name: str, shape: tuple[int, ...], outputs: int = 1, **options: object) -> Network:
    return build_network(ModelSpec.model_validate({"name": name, **options}), shape, outputs, seed=0)


def trained(found: Network, images: np.ndarray, labels: np.ndarray, steps: int, lr: float = 2e-3) -> Network:
    import torch

    optimizer = torch.optim.Adam(found.module.parameters(), lr)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    rng = np.random.default_rng(0)
    found.module.train()
    for _ in range(steps):
        batch = torch.from_numpy(rng.choice(len(x), 32, replace=False))
        logits = found.module(x[batch])
        if logits.shape[1] == 1:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y[batch].float())
        else:
            loss = torch.nn.functional.cross_entropy(logits, y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found.module.eval()
    return found


def scores(found: Network, images: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return found.module(torch.from_numpy(images)).numpy()


def share_in_place(maps: np.ndarray) -> np.ndarray:
    """The share of each map's mass in the square."""
    return maps[(slice(None), *PLACE)].sum((1, 2)) / maps.sum((1, 2)).clip(1e-12)


@pytest.mark.parametrize("outputs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_network_is_seen_to_look_at_the_square_by_which_it_tells_the_classes(outputs):
    images, labels = squares(300, seed=1)
    found = trained(network("cnn", (1, 32, 32), outputs), images, labels, steps=60)
    test, truth = squares(60, seed=2)
    logits = scores(found, test)
    chosen = (logits[:, 0] > 0).astype(int) if outputs == 1 else logits.argmax(1)
    assert (chosen == truth).mean() > 0.9
    right = np.flatnonzero((chosen == 1) & (truth == 1))
    ones = np.ones(len(right), np.int64)
    cam = gradcam(found, test[right], 2, ones)
    assert cam.shape == (len(right), 32, 32) and cam.min() >= 0
    assert share_in_place(cam).mean() > 6 * AREA
    gradients = integrated_gradients(found, test[right], images.mean(0), 2, ones)
    assert share_in_place(np.abs(gradients.attributions[:, 0])).mean() > 6 * AREA


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "classes"),
    [
        ("cnn", (1, 16, 16), 1, 2),
        ("cnn", (3, 16, 16), 4, 4),
        ("mlp", (7,), 1, 2),
        ("mlp", (7,), 3, 3),
        ("rnn", (6, 3), 1, 2),
    ],
)
def test_integrated_gradients_add_up_to_what_the_score_changed(name, shape, outputs, classes):
    found = network(name, shape, outputs)
    found.module.eval()
    rng = np.random.default_rng(0)
    inputs, baseline = rng.normal(size=(5, *shape)).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    targets = rng.integers(0, classes, 5)
    explained = integrated_gradients(found, inputs, baseline, classes, targets)
    assert explained.attributions.shape == inputs.shape

    def score(batch: np.ndarray, targets: np.ndarray) -> np.ndarray:
        raw = scores(found, batch)
        return raw[np.arange(len(batch)), targets] if outputs > 1 else np.where(targets == 1, 1, -1) * raw[:, 0]

    change = score(inputs, targets) - score(np.repeat(baseline[None], 5, 0), targets)
    np.testing.assert_allclose(explained.difference, change, atol=1e-4)
    total = explained.attributions.reshape(5, -1).sum(1)
    np.testing.assert_allclose(total, change, atol=0.011 + 0.05 * np.abs(change).max())
    np.testing.assert_allclose(total - change, explained.missing, atol=1e-4)


def test_of_a_linear_model_they_are_its_terms():
    found = network("linear", (4,))
    weights = scores(found, np.eye(4, dtype=np.float32))[:, 0] - scores(found, np.zeros((1, 4), np.float32))[0, 0]
    inputs = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    baseline = np.full(4, 0.5, np.float32)
    explained = integrated_gradients(found, inputs, baseline, 0, np.zeros(3, np.int64))
    np.testing.assert_allclose(explained.attributions, weights * (inputs - baseline), atol=1e-5)


def test_gradcam_of_pooled_maps_is_the_papers_formula():
    """One convolution, ReLU in place, the mean over positions, and a linear layer: α_k = w_k / positions."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = Network(nn.Sequential(module, nn.Linear(5, 3)))
    inputs = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    targets = np.array([0, 1, 2, 1])
    assert last_maps(found, inputs[:1]).pooled
    cam = gradcam(found, inputs, 3, targets)
    with torch.no_grad():
        maps = module[0](torch.from_numpy(inputs)).relu().numpy()
    weights = found.module[1].weight.detach().numpy()[targets] / 64
    np.testing.assert_allclose(cam, np.maximum(np.einsum("nk,nkhw->nhw", weights, maps), 0), atol=1e-6)
    assert module[1].inplace


def test_a_residual_blocks_sum_is_looked_at_and_a_network_that_joins_positions_is_known():
    pytest.importorskip("monai")
    shape = (1, 64, 64)
    image = np.zeros((1, *shape), np.float32)
    large = network("resnet18", shape)
    assert last_maps(large, image).part is large.module.layer4 and last_maps(large, image).pooled
    assert not last_maps(network("cnn", (1, 16, 16)), np.zeros((1, 1, 16, 16), np.float32)).pooled


@pytest.mark.parametrize("model", [("mlp", (7,)), ("rnn", (6, 3)), ("logistic", (7,))])
def test_without_convolutions_gradcam_says_that_it_needs_them(model):
    name, shape = model
    found = network(name, shape)
    with pytest.raises(UserError, match="needs a network with convolutions") as caught:
        gradcam(found, np.zeros((2, *shape), np.float32), 2, np.zeros(2, np.int64))
    assert "--method ig" in str(caught.value)


def test_a_volume_is_explained_in_its_own_shape():
    pytest.importorskip("monai")
    shape = (1, 24, 24, 24)
    found = network("resnet18", shape, norm="group")
    inputs = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    assert gradcam(found, inputs, 2, np.ones(1, np.int64)).shape == (1, 24, 24, 24)
