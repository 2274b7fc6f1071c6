from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from drawn_predictions import parts
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn

from medfed.core.examples import Predictions
from medfed.core.messages import add, out_of_bounds
from medfed.metrics.regression import METRICS, RegressionSums, measure, regression_sums, summarize

NUMBERS = st.sampled_from([0.0, 1.0, -2.5]) | st.floats(-100, 100, allow_subnormal=False)


@st.composite
def predicted_values(draw: st.DrawFn) -> Predictions:
    rows = draw(st.integers(2, 30))
    scores = draw(hnp.arrays(np.float64, rows, elements=NUMBERS))
    targets = draw(hnp.arrays(np.float32, rows, elements=st.floats(-100, 100, width=32, allow_subnormal=False)))
    assume(targets.std() > 1e-2)
    return Predictions(scores, targets)


def total(sites: list[Predictions], center: float) -> RegressionSums:
    return reduce(add, (regression_sums(site, center) for site in sites))


@given(predicted_values())
def test_they_agree_with_scikit_learn(predictions):
    scores, targets = predictions.scores, predictions.targets.astype(float)
    loss, rmse, r2 = measure(predictions).measures
    assert (loss.metric, rmse.metric, r2.metric) == METRICS
    assert loss.value == pytest.approx(sklearn.mean_squared_error(targets, scores), rel=1e-12, abs=1e-300)
    assert rmse.value == pytest.approx(sklearn.root_mean_squared_error(targets, scores), rel=1e-12, abs=1e-150)
    assert 1 - r2.value == pytest.approx(1 - sklearn.r2_score(targets, scores), rel=1e-9, abs=1e-9)


@given(predicted_values(), st.lists(st.integers(0, 30), max_size=4), st.floats(-50, 50))
def test_sums_over_sites_give_the_pooled_metrics_about_any_center(predictions, cuts, center):
    merged = total(parts(predictions, cuts), center)
    assert merged.rows == len(predictions)
    assert out_of_bounds(merged) is None
    loss, rmse, r2 = summarize(merged).measures
    targets = predictions.targets.astype(float)
    assert loss.value == pytest.approx(sklearn.mean_squared_error(targets, predictions.scores), rel=1e-12, abs=1e-300)
    assert rmse.value == pytest.approx(np.sqrt(loss.value), rel=1e-12)
    assert 1 - r2.value == pytest.approx(1 - sklearn.r2_score(targets, predictions.scores), rel=1e-6, abs=1e-6)


def test_r2_of_a_huge_mean_stays_accurate_thanks_to_the_center():
    """At a mean of 1e9 the squares of float64 lose the variance whole; moments about the mean do not."""
    rng = np.random.default_rng(0)
    targets = 1e9 + rng.normal(size=1000)
    predictions = Predictions(targets + rng.normal(scale=0.5, size=1000), targets)
    sites, expected = parts(predictions, [200, 700]), sklearn.r2_score(targets, predictions.scores)
    plain = total(sites, 0.0)
    centred = summarize(total(sites, plain.first / plain.rows)).measures[2].value
    assert centred == pytest.approx(expected, rel=1e-9)
    assert measure(predictions).measures[2].value == pytest.approx(expected, rel=1e-9)
    uncentred = summarize(plain).measures[2].value
    assert uncentred is None or abs(uncentred - expected) > 0.01


@given(st.floats(-1000, 1000, width=32), st.integers(1, 30), st.integers(0, 30))
def test_a_constant_outcome_has_no_r2_whatever_rounding_leaves_of_it(constant, rows, cut):
    predictions = Predictions(np.zeros(rows), np.full(rows, constant, np.float32))
    sites = parts(predictions, [cut])
    plain = total(sites, 0.0)
    for found in (measure(predictions), summarize(total(sites, plain.first / plain.rows))):
        assert (found.measures[2].value, found.measures[2].reason) == (None, "the outcome is constant")


def test_a_constant_outcome_has_no_r2_and_says_why():
    loss, rmse, r2 = measure(Predictions(np.array([1.0, 3.0]), np.array([2.0, 2.0], np.float32))).measures
    assert (loss.value, rmse.value) == (1.0, 1.0)
    assert (r2.value, r2.reason, r2.n) == (None, "the outcome is constant", 2)


def test_no_rows_have_no_metric_and_say_why():
    empty = Predictions(np.empty(0), np.empty(0, np.float32))
    for found in (measure(empty), summarize(regression_sums(empty, 0.0))):
        assert [(each.value, each.n) for each in found.measures] == [(None, 0)] * 3
        assert [each.reason for each in found.measures] == ["no rows"] * 3
