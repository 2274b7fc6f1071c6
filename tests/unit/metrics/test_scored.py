"""Figures from counted scores, against scikit-learn and a plain loop; and how far a histogram's are from the exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from medfed.core.examples import Predictions
from medfed.metrics import scored
from medfed.metrics.classification import classification_sums
from medfed.metrics.resampling import Ordered


@st.composite
def predictions(draw):
    """Scores with many ties or hardly any, and both classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, decimals = draw(st.integers(2, 120)), draw(st.sampled_from([1, 2, 8]))
    targets = rng.integers(0, 2, rows)
    targets[:2] = 0, 1
    scores = np.clip(rng.normal(0.4 + 0.2 * targets, draw(st.sampled_from([0.02, 0.2, 0.5]))), 0, 1).round(decimals)
    return Predictions(scores, targets)


def cells(found: Predictions) -> scored.Scored:
    return Ordered.of(found.scores, found.targets == 1).cells


@given(predictions())
def test_figures_are_those_of_scikit_learn(found):
    exact = cells(found)
    assert scored.auc(exact) == pytest.approx(sklearn.roc_auc_score(found.targets, found.scores))
    assert scored.average_precision(exact) == pytest.approx(
        sklearn.average_precision_score(found.targets, found.scores)
    )
    assert scored.brier(exact) == pytest.approx(sklearn.brier_score_loss(found.targets, found.scores))


@given(predictions())
def test_the_calibration_error_is_that_of_its_definition(found):
    error = 0.0
    for low in range(10):
        inside = np.minimum((found.scores * 10).astype(int), 9) == low
        if inside.any():
            error += inside.mean() * abs(found.scores[inside].mean() - found.targets[inside].mean())
    assert scored.calibration_error(cells(found)) == pytest.approx(error)


@given(predictions())
def test_the_precision_recall_curve_is_that_of_scikit_learn(found):
    recall, precision = scored.precision_recall(cells(found))
    theirs_precision, theirs_recall, _ = sklearn.precision_recall_curve(found.targets, found.scores)
    np.testing.assert_allclose(recall, theirs_recall[::-1])
    np.testing.assert_allclose(precision[1:], theirs_precision[::-1][1:])
    assert precision[0] == precision[1]


@settings(max_examples=200)
@given(predictions(), st.sampled_from([10, 20, 200]))
def test_figures_of_a_histogram_are_within_their_bounds(found, bins):
    histogram = classification_sums(found, 2, 0.5, bins).histogram[0]
    binned = scored.of_histogram(*histogram)
    precision = sklearn.average_precision_score(found.targets, found.scores)
    assert abs(scored.average_precision(binned) - precision) <= scored.average_precision_error(binned) + 1e-12
    exact = scored.calibration_error(cells(found))
    assert abs(scored.calibration_error(binned) - exact) <= 0.5 / bins + 1e-12


def test_the_bound_of_average_precision_is_reached():
    # one bin: two positives among two negatives; best 1, worst (1/3 + 2/4)/2, and the bin itself 1/2
    binned = scored.of_histogram(np.array([0, 2]), np.array([0, 2]))
    assert scored.average_precision(binned) == 0.5
    assert scored.average_precision_error(binned) == pytest.approx(0.5)
    worst = sklearn.average_precision_score([1, 1, 0, 0], [0.6, 0.7, 0.8, 0.9])
    low = scored.of_histogram(np.array([0, 2]), np.array([1, 1]))
    assert scored.average_precision(low) >= worst - scored.average_precision_error(low)


def test_without_a_class_there_is_no_area_and_no_curve():
    none = scored.of_histogram(np.array([3, 0]), np.array([0, 0]))
    assert np.isnan(scored.auc(none)) and np.isnan(scored.average_precision(none))
    assert [len(each) for each in scored.precision_recall(none)] == [0, 0]
    assert scored.average_precision_error(none) == 0.0


def test_noise_below_zero_counts_as_no_rows():
    noisy = scored.of_histogram(np.array([5, -2, 1, 0]), np.array([0, 1, -3, 4]))
    assert noisy.negatives.min() == 0 and 0 <= scored.average_precision(noisy) <= 1
