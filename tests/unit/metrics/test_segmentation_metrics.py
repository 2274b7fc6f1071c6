"""Dice and Hausdorff distances of masks against MONAI's, and their sums over sites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.examples import Predictions
from medfed.core.messages import add
from medfed.metrics.outlines import hausdorff
from medfed.metrics.segmentation import METRICS, measure_many, segmentation_sums, summarize

monai_metrics = pytest.importorskip("monai.metrics")

CLASSES = ("background", "disc", "square")


def drawn(seed: int, images: int = 6, shape: tuple[int, ...] = (14, 11), classes: int = 3) -> Predictions:
    """Blobs, some of which are missing in mask or prediction."""
    draw = np.random.default_rng(seed)

    def masks() -> np.ndarray:
        found = np.zeros((images, *shape), np.uint8)
        for mask in found:
            for index in range(1, classes):
                if draw.random() < 0.75:
                    low = [int(draw.integers(0, side - 2)) for side in shape]
                    mask[tuple(slice(a, a + int(draw.integers(1, 7))) for a in low)] = index
        return found

    return Predictions(masks(), masks(), draw.random(images))


def one_hot(masks: np.ndarray, classes: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.stack([masks == index for index in range(classes)], axis=1).astype(np.float32))


def by_name(measured):
    return {each.metric: each for each in measured.measures}


@pytest.mark.parametrize("shape", [(14, 11), (7, 9, 8)])
@pytest.mark.parametrize("seed", range(4))
def test_dice_is_monais(seed, shape):
    """MONAI leaves out images whose mask is empty, or says 1 or 0 of them; where both are empty this leaves out."""
    rows = drawn(seed, shape=shape)
    truth, found = one_hot(rows.targets), one_hot(rows.scores)
    oracle = monai_metrics.compute_dice(found, truth, include_background=False, ignore_empty=False).numpy()
    both_empty = ~(truth + found)[:, 1:].flatten(2).any(2).numpy()
    expected = np.where(both_empty, np.nan, oracle)
    measured = by_name(measure_many([rows], CLASSES)[0])
    for index, name in enumerate(CLASSES[1:]):
        assert measured[f"dice_{name}"].value == pytest.approx(np.nanmean(expected[:, index]), abs=1e-6)
        assert measured[f"dice_{name}"].n == (~both_empty[:, index]).sum()
    assert measured["dice"].value == pytest.approx(np.nanmean(expected, axis=0).mean(), abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*all 0", "ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("shape", [(14, 11), (7, 9, 8)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_are_monais(seed, shape):
    rows = drawn(seed, shape=shape)
    measured = by_name(measure_many([rows], CLASSES)[0])
    for metric, percentile in (("hausdorff95", 95), ("hausdorff", None)):
        oracle = monai_metrics.compute_hausdorff_distance(
            one_hot(rows.scores), one_hot(rows.targets), percentile=percentile
        ).numpy()
        oracle[~np.isfinite(oracle)] = np.nan
        assert measured[metric].value == pytest.approx(np.nanmean(oracle, axis=0).mean(), rel=1e-5)
        assert "is empty" in measured[metric].reason


def test_distances_are_in_the_spacings_unit():
    one, other = np.zeros((2, 9, 9), dtype=bool)
    one[1, 1], other[4, 5] = True, True
    assert hausdorff(one, other) == (5.0, 5.0)
    assert hausdorff(one, other, (2.0, 0.5)) == pytest.approx((np.hypot(6, 2),) * 2)


@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 8))
@settings(max_examples=25, deadline=None)
def test_sums_of_two_sites_are_those_of_all_their_images(seed, cut):
    rows = drawn(seed, images=8)
    parts = [
        Predictions(rows.scores[part], rows.targets[part], rows.losses[part]) for part in (slice(cut), slice(cut, None))
    ]
    total = None
    for part in parts:
        total = add(total, segmentation_sums(part, 3))
    whole = by_name(summarize(segmentation_sums(rows, 3), CLASSES))
    for name, measure in by_name(summarize(total, CLASSES)).items():
        assert measure.n == whole[name].n and measure.reason == whole[name].reason
        assert measure.value == pytest.approx(whole[name].value) or measure.value is whole[name].value is None


def test_an_empty_mask_is_told_and_is_never_a_nan():
    empty, spot = np.zeros((1, 8, 8), np.uint8), np.zeros((1, 8, 8), np.uint8)
    spot[0, 2:4, 2:4] = 1
    losses, names = np.array([0.5]), ("background", "spot")

    def of(found, truth):
        measured = by_name(measure_many([Predictions(found, truth, losses)], names)[0])
        assert tuple(measured) == METRICS
        return measured

    for found, truth in ((spot, empty), (empty, spot)):
        measured = of(found, truth)
        assert measured["dice"].value == 0 and measured["hausdorff"].value is None
        assert "both mask and prediction" in measured["hausdorff"].reason
    nothing = of(empty, empty)
    assert nothing["loss"].value == 0.5
    assert nothing["dice"].value is None and nothing["dice"].reason == "no image has the class"
    perfect = of(spot, spot)
    assert (perfect["dice"].value, perfect["hausdorff95"].value, perfect["dice"].reason) == (1, 0, None)


def test_no_rows_and_withheld_sites_are_told():
    nobody = drawn(0).none
    sums = segmentation_sums(nobody, 3)
    assert {m.reason for m in summarize(sums, CLASSES).measures} == {"no rows"}
    told = by_name(summarize(replace(segmentation_sums(drawn(1), 3), withheld=1), CLASSES))
    assert told["loss"].reason == "without 1 site of too few patients"
