"""The final appraisal: curves, calibration and confusion against scikit-learn, and what a site does not show."""

from __future__ import annotations

import numpy as np
import pytest
from memory_sites import TASK, MemoryFederation, MemorySite, binary_site, by_name, candidates, one_class, policy, pooled
from sklearn import calibration
from sklearn import metrics as sklearn

from medfed.core.codec import decode, encode
from medfed.core.errors import Refused
from medfed.core.examples import Predictions
from medfed.evaluate.appraisal import Appraisal, appraise, own_appraisal, patient_rows
from medfed.evaluate.evaluation import FEDERATED, class_total

PATIENTS = TASK.model_copy(update={"data": TASK.data.model_copy(update={"id": "id"})})


def appraised(fed: MemoryFederation, classes: int = 2, task=TASK) -> dict[str, Appraisal]:
    asked = candidates(fed, classes)
    return appraise(fed, asked, task, class_total(fed, asked))


@pytest.fixture
def two() -> MemoryFederation:
    return MemoryFederation({"a": binary_site(80, 1), "b": binary_site(120, 2)})


def test_curves_are_scikit_learns_on_binned_scores(two):
    found = appraised(two)
    for name, rows, bins in (("a", two.members["a"].predictions, 50), (FEDERATED, pooled(two), 100)):
        binned = np.minimum(np.floor(rows.scores * bins), bins - 1)
        fpr, tpr, _ = sklearn.roc_curve(rows.targets, binned, drop_intermediate=False)
        np.testing.assert_allclose(found[name].roc.x, fpr, rtol=1e-12)
        np.testing.assert_allclose(found[name].roc.y, tpr, rtol=1e-12)
        precision, recall, _ = sklearn.precision_recall_curve(rows.targets, binned)
        np.testing.assert_allclose(found[name].precision_recall.x, recall[::-1], rtol=1e-12)
        np.testing.assert_allclose(found[name].precision_recall.y[1:], precision[::-1][1:], rtol=1e-12)


def test_calibration_and_confusion_are_scikit_learns(two):
    found, rows = appraised(two), pooled(two)
    observed, predicted = calibration.calibration_curve(rows.targets, rows.scores, n_bins=10)
    np.testing.assert_allclose(found[FEDERATED].calibration.y, observed)
    assert np.abs(found[FEDERATED].calibration.x - predicted).max() <= 0.5 / 100
    own = two.members["b"].predictions
    observed, predicted = calibration.calibration_curve(own.targets, own.scores, n_bins=10)
    shown = np.isin(observed, found["b"].calibration.y)
    np.testing.assert_allclose(found["b"].calibration.x, predicted[shown])
    for name, each in (("b", own), (FEDERATED, rows)):
        confusion = sklearn.confusion_matrix(each.targets, each.scores >= 0.5)
        assert found[name].confusion == tuple(confusion.reshape(-1).tolist())


def test_average_precision_is_exact_at_a_site_and_within_its_bound_over_all(two):
    found, rows = appraised(two), pooled(two)
    own = two.members["a"].predictions
    at_site, total = (by_name(found[name].measures)["average_precision"] for name in ("a", FEDERATED))
    assert at_site.value == pytest.approx(sklearn.average_precision_score(own.targets, own.scores), rel=1e-12)
    exact = sklearn.average_precision_score(rows.targets, rows.scores)
    assert 0 < abs(total.value - exact) <= total.error < 0.05


def test_every_metric_has_an_interval_that_holds_its_value(two):
    found = appraised(two)
    names = {"accuracy", "recall", "specificity", "auc", "average_precision", "ece", "brier"}
    for one in found.values():
        assert {each.metric for each in one.intervals} == names
        intervals = {each.metric: each for each in one.intervals}
        value = by_name(one.measures)["average_precision"].value
        assert intervals["average_precision"].low < value < intervals["average_precision"].high
    assert appraised(two)["a"].intervals == found["a"].intervals


def test_intervals_of_a_total_are_as_wide_as_its_patients_are_few(two):
    rows = {name: site.predictions for name, site in two.members.items()}

    def four_times(rows_each):
        return MemoryFederation(
            {
                name: MemorySite(Predictions(np.repeat(p.scores, 4), np.repeat(p.targets, 4)), rows_each=rows_each)
                for name, p in rows.items()
            }
        )

    widths = []
    for fed, task in ((two, TASK), (four_times(1), TASK), (four_times(4), TASK), (four_times(4), PATIENTS)):
        found = {each.metric: each for each in appraised(fed, task=task)[FEDERATED].intervals}
        widths.append(found["auc"].high - found["auc"].low)
    plain, as_rows, by_patients, named = widths
    assert as_rows == pytest.approx(plain / 2, rel=0.15)
    assert by_patients == named == pytest.approx(plain, rel=0.15)  # the sites know them, named by the task or not


def test_a_site_that_hides_its_patients_rows_leaves_the_total_without_intervals():
    shy = binary_site(40, 3, policy(releases=("site",)))
    fed = MemoryFederation({"a": binary_site(80, 1), "shy": shy})
    found = appraised(fed, task=PATIENTS)
    assert FEDERATED not in found and len(found["shy"].roc.x)

    class SumsOfClasses(MemoryFederation):
        def sum(self, step, message, *, sites):
            if step is patient_rows:
                raise Refused("not allowed")
            return super().sum(step, message, sites=sites)

    total = appraised(SumsOfClasses({"a": binary_site(80, 1), "b": binary_site(40, 2)}), task=PATIENTS)[FEDERATED]
    assert total.intervals == () and len(total.roc.x)


@pytest.mark.parametrize(
    ("positives", "negatives", "shown"), [(5, 5, True), (4, 30, False), (30, 4, False), (0, 9, False)]
)
def test_what_looks_at_classes_is_shown_where_both_reach_the_minimum_count(positives, negatives, shown):
    scores = np.random.default_rng(0).uniform(0.1, 0.9, positives + negatives)
    targets = np.array([0] * negatives + [1] * positives)
    fed = MemoryFederation(
        {"a": MemorySite(Predictions(scores, targets), policy(minimum_count=5)), "b": binary_site(50, 1)}
    )
    found = appraised(fed)
    own = found["a"]
    assert (len(own.roc.x) > 0, len(own.precision_recall.x) > 0) == (shown, shown)
    assert by_name(own.measures)["ece"].value is not None
    assert (by_name(own.measures)["average_precision"].value is not None) is shown
    by_class = {each.metric for each in own.intervals} - {"accuracy", "brier", "ece", "specificity"}
    assert bool(by_class) is shown
    assert list(found) == sorted(found)
    assert {"b", FEDERATED} <= set(found)


def test_a_split_of_few_patients_is_withheld_whole():
    fed = MemoryFederation({"a": one_class(4, minimum_count=5), "b": binary_site(50, 1)})
    own = appraised(fed)["a"]
    assert (own.confusion, own.intervals, len(own.calibration.x)) == ((), (), 0)
    assert {each.reason for each in own.measures.measures} == {"withheld"}


def test_a_point_of_the_calibration_that_few_patients_stand_behind_is_left_out():
    scores = np.array([0.15] * 9 + [0.45] * 2 + [0.85] * 9)
    targets = np.array([0] * 8 + [1] + [0, 1] + [1] * 8 + [0])
    fed = MemoryFederation({"a": MemorySite(Predictions(scores, targets), policy(minimum_count=5))})
    np.testing.assert_allclose(appraised(fed)["a"].calibration.x, [0.15, 0.85])


def test_of_several_classes_small_cells_are_withheld_with_one_more_of_their_row():
    targets = np.repeat([0, 1, 2], 20)
    predicted = np.concatenate([[0] * 10 + [1] * 8 + [2] * 2, [1] * 20, [2] * 15 + [0] * 5])
    scores = np.full((60, 3), 0.1)
    scores[np.arange(60), predicted] = 0.8
    fed = MemoryFederation({"a": MemorySite(Predictions(scores, targets), policy(minimum_count=5), classes=3)})
    found = appraised(fed, 3)
    assert found["a"].confusion == (10, None, None, 0, 20, 0, 5, 0, 15)
    assert found[FEDERATED].confusion == (10, 8, 2, 0, 20, 0, 5, 0, 15)
    assert len(found["a"].roc.x) == 0
    macro = np.mean([sklearn.average_precision_score(targets == k, scores[:, k]) for k in range(3)])
    assert by_name(found["a"].measures)["average_precision"].value == pytest.approx(macro)


def test_without_a_total_there_is_no_federated_appraisal(two):
    assert set(appraise(two, candidates(two, 2), TASK, None)) == {"a", "b"}


def test_a_message_of_other_classes_is_refused():
    fed = MemoryFederation({"a": binary_site(50, 1)})
    fed.members["a"].classes = 2
    with pytest.raises(Refused, match="number of classes"):
        own_appraisal.run(fed.members["a"], candidates(fed, 2)["a"].__class__(np.zeros(1, np.float32), "test", 3))


def test_an_appraisal_survives_the_wire(two):
    own = appraised(two)["a"]
    again = decode(encode(own), Appraisal)
    assert again.confusion == own.confusion and again.intervals == own.intervals and again.measures == own.measures
    np.testing.assert_array_equal(again.roc.x, own.roc.x)
