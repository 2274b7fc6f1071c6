from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from victims import alone, records, together, victim

from medfed.attacks import inversion, labels, reconstruction
from medfed.core.examples import Examples

SHAPE = (12,)
MODELS: list[dict[str, Any]] = [{"name": "logistic"}, {"name": "mlp", "hidden": [16]}]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("outputs", [1, 4])
def test_every_record_sent_alone_is_recovered(model: dict[str, Any], outputs: int) -> None:
    attacked, some = victim(model, SHAPE, outputs), records(30, SHAPE, max(outputs, 2))
    updates = alone(attacked, some)
    found = inversion.invert(attacked, updates, [together(attacked, some)])
    assert (found.single.count, found.single.of) == (30, 30)
    named = labels.recover_labels(attacked, updates, [together(attacked, some)])
    assert named.single.count == 30


def test_what_is_recovered_is_the_record() -> None:
    attacked, some = victim(MODELS[1], SHAPE), records(1, SHAPE)
    gradient = attacked.gradient(alone(attacked, some)[0])
    found = inversion.candidates(gradient[0], gradient[1])
    np.testing.assert_allclose(found, np.repeat(some.features, len(found), axis=0), rtol=1e-2, atol=1e-4)


def test_a_batch_of_a_linear_model_hides_its_records() -> None:
    attacked, some = victim(MODELS[0], SHAPE), records(30, SHAPE)
    found = inversion.invert(attacked, alone(attacked, some), [together(attacked, some)])
    assert (found.update.count, found.candidates) == (0, 1)


def test_momentum_clipping_and_weight_decay_do_not_help() -> None:
    attacked = victim(MODELS[1], SHAPE, momentum=0.9, weight_decay=0.1, clip_norm=0.01, lr=1.0)
    some = records(10, SHAPE)
    assert inversion.invert(attacked, alone(attacked, some), [together(attacked, some)]).single.count == 10


@pytest.mark.parametrize("model", MODELS)
def test_noise_of_differential_privacy_hides_records_and_labels(model: dict[str, Any]) -> None:
    attacked, some = victim(model, SHAPE, noise=1.0), records(60, SHAPE)
    updates = alone(attacked, some)
    assert inversion.invert(attacked, updates, updates).single.count == 0
    assert labels.recover_labels(attacked, updates, updates).single.low < 0.8
    exact = victim(model, SHAPE)
    assert labels.recover_labels(exact, alone(exact, some), [together(exact, some)]).single.low > 0.9


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_shares_of_classes_are_read_off_the_update_of_a_batch(outputs: int) -> None:
    attacked, some = victim(MODELS[1], SHAPE, outputs), records(40, SHAPE, max(outputs, 2))
    skewed = Examples(some.features, np.where(np.arange(40) < 30, 1, some.targets))
    found = labels.recover_labels(attacked, alone(attacked, skewed), [together(attacked, skewed)])
    assert found.update_error < 0.01 < found.guess_error


def test_numbers_are_no_labels_and_images_no_rows() -> None:
    regression = victim({"name": "linear"}, SHAPE, task_type="regression")
    assert not labels.applies(regression, records(2, SHAPE))
    assert inversion.applies(regression, records(2, SHAPE))
    assert not reconstruction.applies(regression, records(2, SHAPE))
    image = (1, 8, 8)
    cnn = victim({"name": "cnn", "input_size": [1, 8, 8]}, image, 3)
    assert not inversion.applies(cnn, records(2, image, 3))
    assert reconstruction.applies(cnn, records(2, image, 3))


def digits(count: int) -> Examples:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.kron(found.images[:count, None] / 16, np.ones((1, 1, 2, 2)))
    return Examples(images.astype(np.float32), found.target[:count])


@pytest.mark.parametrize("noise", [None, 1.0])
def test_an_image_sent_alone_is_rebuilt_unless_noise_hides_it(noise: float | None) -> None:
    images = digits(100)
    attacked = victim({"name": "cnn", "input_size": [1, 16, 16]}, (1, 16, 16), 10, noise=noise)
    update = attacked.alone(Examples(images.features[[3]], images.targets[[3]]))
    found = reconstruction.reconstruct(
        attacked, update, images.features, iterations=250, random=np.random.default_rng(0)
    ).picture
    if noise is None:
        assert found.found
        assert found.psnr > found.mean_psnr + 5
    else:
        assert found.psnr < found.mean_psnr


def test_the_likeness_is_that_of_another_implementation() -> None:
    """10 log10(1 / .01) = 20 dB for an error of .1 everywhere."""
    image = np.zeros((1, 4, 4), np.float32)
    assert reconstruction.psnr(image + 0.1, image, 1.0) == pytest.approx(20, abs=1e-4)
    assert reconstruction.psnr(image, image, 1.0) == 100
