from __future__ import annotations

import numpy as np
import pytest
from drawn_predictions import binary
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from medfed.metrics.auc import auc_from_histogram, auc_from_scores, roc_from_histogram
from medfed.metrics.classification import classification_sums


def pairwise(scores: np.ndarray, positive: np.ndarray) -> float:
    """The definition: the share of pairs in order, ties counted half."""
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@given(binary(both=True))
def test_the_exact_area_is_the_share_of_ordered_pairs(predictions):
    positive = predictions.targets == 1
    area = auc_from_scores(predictions.scores, positive)
    assert area == pytest.approx(pairwise(predictions.scores, positive), rel=1e-12)
    assert area == pytest.approx(sklearn.roc_auc_score(positive, predictions.scores), rel=1e-12)


@pytest.mark.parametrize("positive", [[True, True], [False, False], []])
def test_without_both_classes_there_is_no_area(positive):
    assert auc_from_scores(np.linspace(0, 1, len(positive)), np.array(positive, bool)) is None


@given(binary(both=True), st.integers(1, 40))
def test_the_stated_error_bounds_the_distance_to_the_exact_area(predictions, bins):
    negatives, positives = classification_sums(predictions, 2, 0.5, bins).histogram[0]
    area, error = auc_from_histogram(negatives, positives)
    exact = sklearn.roc_auc_score(predictions.targets, predictions.scores)
    assert area is not None
    assert 0.0 <= error <= 0.5
    assert abs(area - exact) <= error + 1e-12


@given(binary(both=True), st.integers(1, 40))
def test_the_histograms_area_is_that_of_the_binned_scores(predictions, bins):
    binned = np.minimum(np.floor(predictions.scores * bins), bins - 1)
    area, error = auc_from_histogram(*classification_sums(predictions, 2, 0.5, bins).histogram[0])
    assert area == pytest.approx(pairwise(binned, predictions.targets == 1), rel=1e-12)
    ties = (binned[predictions.targets == 1][:, None] == binned[predictions.targets == 0][None, :]).mean()
    assert error == pytest.approx(ties / 2, rel=1e-12)


@pytest.mark.parametrize("order", [1, -1])
def test_the_stated_error_is_reached_where_ties_hide_a_perfect_order(order):
    """All rows in one bin: the area says 1/2 ± 1/2, and the exact one is 0 or 1."""
    scores = np.array([0.501, 0.502, 0.503, 0.504])[::order]
    exact = sklearn.roc_auc_score([0, 0, 1, 1], scores)
    area, error = auc_from_histogram(np.array([0, 2]), np.array([0, 2]))
    assert abs(area - exact) == error == 0.5


@pytest.mark.parametrize(("negatives", "positives"), [([0, 0], [1, 2]), ([3, 0], [0, 0]), ([0, 0], [0, 0])])
def test_a_histogram_without_both_classes_has_no_area(negatives, positives):
    assert auc_from_histogram(np.array(negatives), np.array(positives)) == (None, 0.0)


@given(binary(both=True), st.integers(1, 40))
def test_the_curve_is_scikit_learns_on_binned_scores(predictions, bins):
    fpr, tpr = roc_from_histogram(*classification_sums(predictions, 2, 0.5, bins).histogram[0])
    binned = np.minimum(np.floor(predictions.scores * bins), bins - 1)
    theirs = sklearn.roc_curve(predictions.targets, binned, drop_intermediate=False)
    np.testing.assert_allclose(fpr, theirs[0], rtol=1e-12)
    np.testing.assert_allclose(tpr, theirs[1], rtol=1e-12)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)


def test_large_federations_do_not_overflow():
    """Two million rows of each class in each of two bins: half of all pairs tie."""
    counts = np.array([2_000_000, 2_000_000])
    area, error = auc_from_histogram(counts, counts)
    assert (area, error) == (0.5, 0.25)
