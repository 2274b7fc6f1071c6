from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from drawn_predictions import binary, parts, several
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from medfed.core.examples import Predictions
from medfed.core.messages import add, out_of_bounds
from medfed.metrics.classification import METRICS, ClassificationSums, classification_sums, measure, summarize
from medfed.metrics.measure import Measure, Measures

CUTS = st.lists(st.integers(0, 40), max_size=4)


def by_name(measures: Measures) -> dict[str, Measure]:
    return {each.metric: each for each in measures.measures}


def value(measures: Measures, metric: str) -> float | None:
    return by_name(measures)[metric].value


def total(sites: list[Predictions], classes: int, threshold: float = 0.5, bins: int = 1000) -> ClassificationSums:
    return reduce(add, (classification_sums(site, classes, threshold, bins) for site in sites))


@settings(max_examples=40)
@given(binary(both=True), st.sampled_from([0.25, 0.5, 0.75]))
def test_two_classes_agree_with_scikit_learn(predictions, threshold):
    scores, targets = predictions.scores, predictions.targets
    predicted = scores >= threshold
    found = measure(predictions, 2, threshold)
    assert [each.metric for each in found.measures] == list(METRICS)
    assert {each.n for each in found.measures} == {len(predictions)}
    assert value(found, "loss") == pytest.approx(sklearn.log_loss(targets, scores), rel=1e-12)
    assert value(found, "accuracy") == sklearn.accuracy_score(targets, predicted)
    assert value(found, "auc") == pytest.approx(sklearn.roc_auc_score(targets, scores), rel=1e-12)
    assert value(found, "recall") == pytest.approx(sklearn.recall_score(targets, predicted), rel=1e-12)
    assert value(found, "specificity") == pytest.approx(
        sklearn.recall_score(targets, predicted, pos_label=0), rel=1e-12
    )
    assert value(found, "brier") == pytest.approx(sklearn.brier_score_loss(targets, scores), rel=1e-12)


@pytest.mark.parametrize("classes", [3, 5])
@settings(max_examples=40)
@given(data=st.data())
def test_several_classes_agree_with_scikit_learn(classes, data):
    predictions = data.draw(several(classes, every=True))
    scores, targets = predictions.scores, predictions.targets
    predicted, labels = scores.argmax(1), list(range(classes))
    specificities = [np.mean(predicted[targets != k] != k) for k in labels]
    found = measure(predictions, classes, 0.5)
    assert value(found, "loss") == pytest.approx(sklearn.log_loss(targets, scores, labels=labels), rel=1e-12)
    assert value(found, "accuracy") == sklearn.accuracy_score(targets, predicted)
    area = sklearn.roc_auc_score(targets, scores, multi_class="ovr", average="macro", labels=labels)
    assert value(found, "auc") == pytest.approx(area, rel=1e-12)
    assert value(found, "recall") == pytest.approx(sklearn.recall_score(targets, predicted, average="macro"), rel=1e-12)
    assert value(found, "specificity") == pytest.approx(np.mean(specificities), rel=1e-12)
    brier = np.mean(((scores - np.eye(classes)[targets]) ** 2).sum(1))
    assert value(found, "brier") == pytest.approx(brier, rel=1e-12)


def test_four_rows_worked_by_hand():
    found = measure(Predictions(np.array([0.9, 0.5, 0.4, 0.1]), np.array([1, 0, 1, 0])), 2, 0.5)
    assert value(found, "loss") == pytest.approx(-np.log([0.9, 0.5, 0.4, 0.9]).mean())
    assert value(found, "accuracy") == 0.5
    assert value(found, "auc") == 0.75
    assert value(found, "recall") == 0.5
    assert value(found, "specificity") == 0.5
    assert value(found, "brier") == pytest.approx((0.01 + 0.25 + 0.36 + 0.01) / 4)


def test_certain_and_wrong_has_a_large_but_finite_loss():
    found = measure(Predictions(np.array([0.0, 1.0]), np.array([1, 0])), 2, 0.5)
    assert value(found, "loss") == pytest.approx(-np.log(1e-15))
    assert value(found, "brier") == 1.0
    assert value(found, "accuracy") == 0.0
    assert value(found, "auc") == 0.0


@given(binary(), CUTS)
def test_sums_over_sites_give_the_pooled_metrics_of_two_classes(predictions, cuts):
    _assert_pooled(predictions, cuts, 2)


@given(several(4), CUTS)
def test_sums_over_sites_give_the_pooled_metrics_of_several_classes(predictions, cuts):
    _assert_pooled(predictions, cuts, 4)


def _assert_pooled(predictions: Predictions, cuts: list[int], classes: int) -> None:
    merged = total(parts(predictions, cuts), classes)
    pooled = classification_sums(predictions, classes, 0.5, 1000)
    assert out_of_bounds(merged) is None
    np.testing.assert_array_equal(merged.confusion, pooled.confusion)
    np.testing.assert_array_equal(merged.histogram, pooled.histogram)
    for ours, exact in zip(summarize(merged).measures, measure(predictions, classes, 0.5).measures, strict=True):
        assert (ours.metric, ours.n, ours.reason) == (exact.metric, exact.n, exact.reason)
        if ours.metric == "auc" and ours.value is not None:
            assert abs(ours.value - exact.value) <= (ours.error or 0.0) + 1e-12
        elif ours.value is None or ours.metric in ("accuracy", "recall", "specificity"):
            assert ours.value == exact.value
        else:
            assert ours.value == pytest.approx(exact.value, rel=1e-12)


@given(binary())
def test_the_confusion_matrix_is_scikit_learns(predictions):
    ours = classification_sums(predictions, 2, 0.5, 10).confusion
    theirs = sklearn.confusion_matrix(predictions.targets, predictions.scores >= 0.5, labels=[0, 1])
    np.testing.assert_array_equal(ours, theirs)


@given(binary(), st.integers(1, 50))
def test_the_histogram_is_numpys(predictions, bins):
    ours = classification_sums(predictions, 2, 0.5, bins).histogram
    assert ours.shape == (1, 2, bins)
    for k in (0, 1):
        scores = predictions.scores[predictions.targets == k]
        theirs = np.zeros(bins, int)
        np.add.at(theirs, np.minimum(np.floor(scores * bins).astype(int), bins - 1), 1)
        np.testing.assert_array_equal(ours[0, k], theirs)


def test_scores_of_zero_and_one_fall_into_the_first_and_last_bin():
    histogram = classification_sums(Predictions(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 0])), 2, 0.5, 4).histogram
    assert histogram.tolist() == [[[1, 0, 0, 1], [0, 0, 0, 1]]]


@pytest.mark.parametrize(("target", "absent", "present"), [(1, "specificity", "recall"), (0, "recall", "specificity")])
def test_one_class_only_has_no_auc_and_says_why(target, absent, present):
    predictions = Predictions(np.array([0.2, 0.8]), np.full(2, target))
    for found in (measure(predictions, 2, 0.5), summarize(classification_sums(predictions, 2, 0.5, 100))):
        assert by_name(found)["auc"] == Measure("auc", None, 2, reason="one class only")
        assert value(found, absent) is None
        assert by_name(found)[absent].reason.startswith("no row of the")
        assert value(found, present) == 0.5
        assert value(found, "loss") is not None


def test_several_classes_of_which_one_occurs_have_no_auc():
    predictions = Predictions(np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]), np.array([2, 2]))
    found = by_name(measure(predictions, 3, 0.5))
    assert (found["auc"].value, found["auc"].reason) == (None, "one class only")
    assert found["recall"].value == 1.0
    assert found["specificity"].value == 1.0


@pytest.mark.parametrize(("classes", "shape"), [(2, (0,)), (3, (0, 3))])
def test_no_rows_have_no_metric_and_say_why(classes, shape):
    empty = Predictions(np.empty(shape), np.empty(0, np.int64))
    for found in (measure(empty, classes, 0.5), summarize(classification_sums(empty, classes, 0.5, 100))):
        assert [each.value for each in found.measures] == [None] * len(METRICS)
        assert [each.n for each in found.measures] == [0] * len(METRICS)
        assert all(each.reason for each in found.measures)
        assert by_name(found)["auc"].reason == "no rows"
