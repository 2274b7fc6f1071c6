"""Several sites measured in one pass: each as an outside library finds it from that site's rows alone."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_predictions import binary, parts, several
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from medfed.core.errors import MedFedError
from medfed.core.examples import Predictions
from medfed.metrics.auc import areas_from_scores
from medfed.metrics.classification import classification_sums_many, measure_many
from medfed.metrics.regression import measure_many as measure_outcomes
from medfed.metrics.regression import regression_sums_many
from medfed.metrics.segments import Segments, joined

CUTS = st.lists(st.integers(0, 40), max_size=5)


@given(st.lists(st.lists(st.floats(-9, 9), max_size=6), min_size=1, max_size=6))
def test_segments_are_summed_each_by_itself(rows):
    segments = Segments(np.array([len(each) for each in rows]))
    values = np.array([value for each in rows for value in each])
    np.testing.assert_allclose(segments.sums(values), [np.sum(each) for each in rows], rtol=1e-12, atol=1e-12)
    assert segments.site.tolist() == [i for i, each in enumerate(rows) for _ in each]


@settings(max_examples=60)
@given(binary(), CUTS)
def test_each_sites_area_is_scikit_learns(predictions, cuts):
    sites = parts(predictions, cuts)
    rows, segments = joined(sites)
    areas = areas_from_scores(rows.scores, rows.targets == 1, segments)
    for site, area in zip(sites, areas.tolist(), strict=True):
        if len(set(site.targets.tolist())) == 2:
            assert area == pytest.approx(sklearn.roc_auc_score(site.targets, site.scores), rel=1e-12)
        else:
            assert np.isnan(area)


@given(binary(), CUTS, st.sampled_from([0.25, 0.5]), st.integers(1, 9))
def test_each_sites_sums_are_of_its_own_rows(predictions, cuts, threshold, bins):
    sites = parts(predictions, cuts)
    for site, sums in zip(sites, classification_sums_many(sites, 2, threshold, bins), strict=True):
        predicted = (site.scores >= threshold).astype(int)
        cells = np.zeros((2, 2), int)
        np.add.at(cells, (site.targets, predicted), 1)
        np.testing.assert_array_equal(sums.confusion, cells)
        assert sums.brier == pytest.approx(((site.scores - site.targets) ** 2).sum(), rel=1e-12)
        truth = np.where(site.targets == 1, site.scores, 1 - site.scores)
        assert sums.loss == pytest.approx(-np.log(truth).sum(), rel=1e-12)
        edges = np.minimum(np.floor(site.scores * bins).astype(int), bins - 1)
        for k in (0, 1):
            theirs = np.bincount(edges[site.targets == k], minlength=bins)
            np.testing.assert_array_equal(sums.histogram[0, k], theirs)


@settings(max_examples=40)
@given(several(3), CUTS)
def test_each_sites_metrics_of_several_classes_are_scikit_learns(predictions, cuts):
    sites = parts(predictions, cuts)
    for site, measured in zip(sites, measure_many(sites, 3, 0.5), strict=True):
        found = {each.metric: each for each in measured.measures}
        assert {each.n for each in measured.measures} == {len(site)}
        if not len(site):
            assert {each.value for each in measured.measures} == {None}
            continue
        predicted, occurring = site.scores.argmax(1), sorted(set(site.targets.tolist()))
        loss = sklearn.log_loss(site.targets, site.scores, labels=[0, 1, 2])
        assert found["loss"].value == pytest.approx(loss, rel=1e-12)
        assert found["accuracy"].value == sklearn.accuracy_score(site.targets, predicted)
        recalls = sklearn.recall_score(site.targets, predicted, labels=occurring, average=None)
        assert found["recall"].value == pytest.approx(np.mean(recalls), rel=1e-12)
        areas = [sklearn.roc_auc_score(site.targets == k, site.scores[:, k]) for k in occurring if len(occurring) > 1]
        assert found["auc"].value == (pytest.approx(np.mean(areas), rel=1e-12) if areas else None)


@given(st.lists(st.lists(st.integers(-50, 50), max_size=8), min_size=1, max_size=5), st.floats(-9, 9))
def test_each_sites_outcomes_are_summed_about_the_center_and_measured(targets, center):
    sites = [Predictions(np.array(y, float) * 0.5 + 1, np.array(y, np.float32)) for y in targets]
    for site, sums in zip(sites, regression_sums_many(sites, center), strict=True):
        y = site.targets.astype(float)
        assert (sums.rows, sums.withheld) == (len(site), 0)
        assert sums.first == pytest.approx((y - center).sum(), rel=1e-12, abs=1e-9)
        assert sums.second == pytest.approx(((y - center) ** 2).sum(), rel=1e-12, abs=1e-9)
    for site, measured in zip(sites, measure_outcomes(sites), strict=True):
        loss, _rmse, r2 = measured.measures
        if len(site):
            assert loss.value == pytest.approx(sklearn.mean_squared_error(site.targets, site.scores), rel=1e-12)
        if len(set(site.targets.tolist())) > 1:
            assert r2.value == pytest.approx(sklearn.r2_score(site.targets, site.scores), rel=1e-9, abs=1e-9)
        else:
            assert r2.value is None


@pytest.mark.parametrize("score", [np.nan, -0.1])
def test_scores_that_are_no_probabilities_are_an_error_and_no_metric(score):
    sites = [Predictions(np.array([0.2, 0.7]), np.array([0, 1])), Predictions(np.array([score]), np.array([1]))]
    with pytest.raises(MedFedError, match="no probabilities"):
        measure_many(sites, 2, 0.5)
    with pytest.raises(MedFedError, match="no probabilities"):
        classification_sums_many(sites, 2, 0.5, 10)
