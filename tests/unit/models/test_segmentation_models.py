"""The networks and the loss of segmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfed.core.errors import UserError
from medfed.core.examples import Examples
from medfed.models.batches import Position
from medfed.models.catalogue import build_network, check_options, outputs_for
from medfed.models.loss import local_loss, row_losses
from medfed.models.masks import mask_losses, most_probable, probabilities
from medfed.models.stacked import can_stack
from medfed.models.training import predict, train
from medfed.spec.loading import task_of
from medfed.spec.task import FederationSpec, ModelSpec

pytest.importorskip("monai")

SMALL = {"unet": {"channels": [4, 8], "units": 1}, "segresnet": {"filters": 4}}


def spec(name, **options):
    return ModelSpec.model_validate({"name": name, **SMALL[name], **options})


def federation(**options):
    return FederationSpec.model_validate({"strategy": "fedavg", **options})


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
@pytest.mark.parametrize("shape", [(1, 16, 24), (2, 16, 16, 16)])
def test_each_gives_every_pixel_its_outputs(name, norm, shape):
    network = build_network(spec(name, norm=norm), shape, 3, 0)
    found = network.module(torch.randn(2, *shape))
    assert found.shape == (2, 3, *shape[1:])
    assert network.has_statistics is (norm == "batch")


@pytest.mark.parametrize("name", SMALL)
def test_what_they_cannot_take_is_told(name):
    for shape in ((1, 15, 16), (16,), (1, 2, 2)):
        with pytest.raises(UserError, match=r"multiples of|takes images"):
            build_network(spec(name), shape, 1, 0)
    for wrong in ({"norm": "layer"}, {"dropout": 1.0}):
        with pytest.raises(UserError):
            build_network(spec(name, **wrong), (1, 16, 16), 1, 0)
    with pytest.raises(UserError, match="does not do classification"):
        check_options(spec(name), "classification")
    with pytest.raises(UserError, match="does not do segmentation"):
        check_options(ModelSpec(name="mlp"), "segmentation")


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_mean_loss_is_monais(outputs):
    """Dice and cross-entropy of MONAI's own sum of the two, of images of one size."""
    from monai.losses import DiceCELoss

    torch.manual_seed(0)
    logits, truth = torch.randn(4, outputs, 6, 7), torch.randint(0, max(outputs, 2), (4, 6, 7), dtype=torch.uint8)
    truth[0] = 0
    single = outputs == 1
    oracle = DiceCELoss(
        include_background=single, sigmoid=single, softmax=not single, to_onehot_y=not single, smooth_nr=1, smooth_dr=1
    )
    expected = oracle(logits, truth[:, None].float())
    torch.testing.assert_close(mask_losses(logits, truth).mean(), expected)
    each = torch.stack([oracle(logits[i : i + 1], truth[i : i + 1, None].float()) for i in range(4)])
    torch.testing.assert_close(row_losses("segmentation", federation())(logits, truth), each)


def test_an_empty_mask_pulls_every_pixel_down():
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    mask_losses(logits, torch.zeros(1, 8, 8, dtype=torch.uint8)).sum().backward()
    assert (logits.grad > 0).all() and torch.isfinite(logits.grad).all()
    sure = mask_losses(torch.full((1, 1, 8, 8), -20.0), torch.zeros(1, 8, 8, dtype=torch.uint8))
    assert sure.item() == pytest.approx(0, abs=1e-5)


def test_class_weights_are_those_of_cross_entropy_within_an_image():
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5), dtype=torch.uint8)
    weights = torch.tensor([0.2, 1.0, 3.0])
    plain = mask_losses(logits, truth) - torch.nn.functional.cross_entropy(logits, truth.long(), reduction="none").mean(
        (1, 2)
    )
    weighed = torch.stack(
        [torch.nn.functional.cross_entropy(logits[i : i + 1], truth[i : i + 1].long(), weights) for i in range(2)]
    )
    torch.testing.assert_close(mask_losses(logits, truth, weights), plain + weighed)
    examples = Examples(np.zeros((2, 1, 5, 5), np.float32), truth.numpy())
    balanced = local_loss("segmentation", federation(class_weights="balanced"), examples, 3)
    counts = np.bincount(truth.numpy().ravel(), minlength=3)
    inverse = torch.from_numpy((50 / (3 * counts)).astype(np.float32))
    torch.testing.assert_close(balanced(logits, truth), mask_losses(logits, truth, inverse).mean())


def test_predictions_are_the_most_probable_classes_and_each_images_loss():
    network = build_network(spec("unet"), (1, 8, 8), outputs_for(3), 0)
    draw = np.random.default_rng(0)
    examples = Examples(
        draw.normal(size=(3, 1, 8, 8)).astype(np.float32), draw.integers(0, 3, (3, 8, 8)).astype(np.uint8)
    )
    found = predict(network, examples, "segmentation")
    with torch.no_grad():
        outputs = network.module(torch.from_numpy(examples.features))
    np.testing.assert_array_equal(found.scores, outputs.argmax(1).numpy())
    np.testing.assert_allclose(
        found.losses, mask_losses(outputs, torch.from_numpy(examples.targets)).numpy(), rtol=1e-5
    )
    none = predict(network, Examples(examples.features[:0], examples.targets[:0]), "segmentation")
    assert none.scores.shape == (0, 8, 8) and none.losses.shape == (0,)


def test_two_classes_are_one_logit():
    logits = torch.tensor([[[[-1.0, 2.0]]]])
    assert most_probable(logits).tolist() == [[[0, 1]]]
    torch.testing.assert_close(probabilities(logits)[:, 1], logits[:, 0].sigmoid())


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 8, 8, 8)])
def test_a_small_unet_learns_a_bright_block(shape):
    draw = np.random.default_rng(0)
    masks = np.zeros((12, *shape[1:]), np.uint8)
    for mask in masks[:9]:
        mask[tuple(slice(a, a + 4) for a in draw.integers(0, 4, mask.ndim))] = 1
    images = (masks[:, None] + draw.normal(0, 0.1, (12, *shape))).astype(np.float32)
    examples, options = Examples(images, masks), federation(optimizer="adam", lr=0.02, batch_size=4, local_epochs=12)
    network = build_network(spec("unet"), shape, 1, 0)
    train(
        network,
        examples,
        local_loss("segmentation", options, examples, 2),
        options,
        round_number=1,
        position=Position(),
        optimizer=None,
        generator=np.random.default_rng,
    )
    found = predict(network, examples, "segmentation").scores
    assert 2 * (found & masks).sum() / (found.sum() + masks.sum()) > 0.9
    assert not found[9:].any()


def test_masks_are_never_stacked():
    task = {
        "task_type": "segmentation",
        "model": {"name": "unet", "num_classes": 2},
        "federation": {"strategy": "fedavg"},
    }
    linear = torch.nn.Conv2d(1, 1, 1)
    from medfed.models.network import Network

    assert not can_stack(Network(linear), task_of(task).spec, (1, 8, 8))
