from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from medfed.core.errors import UserError
from medfed.models.catalogue import build_network, check_options
from medfed.spec.task import ModelSpec

CNN = ModelSpec(name="cnn")


def test_it_is_two_convolutions_with_pooling_after_relu_and_two_linear_layers():
    network = build_network(CNN, (3, 11, 9), 4, seed=1)
    w1, b1, w2, b2, w3, b3, w4, b4 = network.module.parameters()
    x = torch.randn(5, 3, 11, 9)
    hidden = functional.max_pool2d(functional.conv2d(x, w1, b1, padding=1).relu(), 2)
    hidden = functional.max_pool2d(functional.conv2d(hidden, w2, b2, padding=1).relu(), 2).flatten(1)
    expected = (hidden @ w3.T + b3).relu() @ w4.T + b4
    np.testing.assert_allclose(network.module(x).detach(), expected.detach(), rtol=1e-4, atol=1e-5)
    assert network.has_convolutions


@pytest.mark.parametrize(("shape", "outputs"), [((1, 28, 28), 1), ((3, 32, 32), 10), ((1, 4, 4), 2), ((2, 7, 13), 3)])
def test_its_size_by_closed_form(shape, outputs):
    channels, height, width = shape
    pooled = 64 * (height // 2 // 2) * (width // 2 // 2)
    expected = (9 * channels + 1) * 32 + (9 * 32 + 1) * 64 + (pooled + 1) * 64 + (64 + 1) * outputs
    assert build_network(CNN, shape, outputs, seed=0).size == expected
    if shape == (1, 28, 28):
        assert expected == 219_649


@pytest.mark.parametrize("shape", [(28,), (28, 28), (1, 8, 8, 8), (1, 3, 28), (1, 28, 3)])
def test_other_shapes_and_too_small_images_are_explained(shape):
    with pytest.raises(UserError, match="cnn takes images of 4×4 or more"):
        build_network(CNN, shape, 1, seed=0)


def test_it_classifies_only():
    check_options(CNN, "classification")
    with pytest.raises(UserError, match="does not do regression"):
        check_options(CNN, "regression")
