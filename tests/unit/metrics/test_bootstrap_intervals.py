"""Bootstrap intervals: against a plain bootstrap of rows with scikit-learn, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn

from medfed.core.examples import Predictions
from medfed.metrics.classification import classification_sums
from medfed.metrics.intervals import by_patient, of_total
from medfed.metrics.resampling import SITE_REPLICATES, drawn_patients, interval

METRICS = ("accuracy", "recall", "specificity", "auc", "average_precision", "ece", "brier")


def drawn(rows: int, seed: int, each: int = 1) -> tuple[Predictions, np.ndarray]:
    """Predictions of patients, each with so many equal rows; the score is calibrated."""
    rng = np.random.default_rng(seed)
    score = rng.beta(1.5, 2.0, rows)
    target = (rng.random(rows) < score).astype(np.int64)
    return Predictions(np.repeat(score, each), np.repeat(target, each)), np.repeat(np.arange(rows), each)


def measured(score: np.ndarray, target: np.ndarray) -> dict[str, float]:
    chosen = score >= 0.5
    group = np.minimum((score * 10).astype(int), 9)
    gaps = (abs((score - target)[group == g].sum()) for g in range(10))
    return {
        "accuracy": sklearn.accuracy_score(target, chosen),
        "recall": sklearn.recall_score(target, chosen),
        "specificity": sklearn.recall_score(1 - target, ~chosen),
        "auc": sklearn.roc_auc_score(target, score),
        "average_precision": sklearn.average_precision_score(target, score),
        "ece": sum(gaps) / len(score),
        "brier": sklearn.brier_score_loss(target, score),
    }


def plain_bootstrap(
    found: Predictions, patients: np.ndarray, seed: int, replicates: int = 400
) -> dict[str, np.ndarray]:
    """Patients drawn with replacement, their rows put together, and every metric measured anew."""
    rng, rows_of = np.random.default_rng(seed), [np.flatnonzero(patients == p) for p in range(patients.max() + 1)]
    values = []
    for _ in range(400):
        rows = np.concatenate([rows_of[p] for p in rng.integers(0, len(rows_of), len(rows_of))])
        values.append(measured(found.scores[rows], found.targets[rows]))
    return {m: np.quantile([v[m] for v in values], (0.025, 0.975)) for m in METRICS}


def compared(ours, plain):
    assert {each.metric for each in ours} == set(METRICS)
    for each in ours:
        width = plain[each.metric][1] - plain[each.metric][0]
        np.testing.assert_allclose([each.low, each.high], plain[each.metric], atol=0.2 * width, err_msg=each.metric)


def test_by_patient_is_the_plain_bootstrap_of_patients():
    found, patients = drawn(80, seed=1, each=3)
    shuffled = np.random.default_rng(5).permutation(len(patients))
    mixed = Predictions(found.scores[shuffled], found.targets[shuffled])
    ours = by_patient(mixed, 2, 0.5, patients[shuffled], np.random.default_rng(2))
    compared(ours, plain_bootstrap(found, patients, seed=3))


def test_of_a_total_is_the_plain_bootstrap_of_pooled_rows():
    """Two sites' sums: what the coordinator draws, against all rows in one place."""
    parts = [drawn(150, seed=7)[0], drawn(90, seed=8)[0]]
    pooled = Predictions(*(np.concatenate(each) for each in zip(*((p.scores, p.targets) for p in parts), strict=True)))
    total = classification_sums(pooled, 2, 0.5, 200)
    ours = of_total(total, len(pooled), np.random.default_rng(0))
    compared(ours, plain_bootstrap(pooled, np.arange(len(pooled)), seed=4))


def test_rows_of_few_patients_are_worth_as_many_independent_ones():
    """Five equal rows a patient: taken as 5n rows an interval is too narrow by √5; as n it is the patients' own."""
    found, patients = drawn(120, seed=11, each=5)
    total = classification_sums(found, 2, 0.5, 200)
    plain = plain_bootstrap(found, patients, seed=6)
    compared(of_total(total, len(found) / 5, np.random.default_rng(0)), plain)
    naive = {each.metric: each for each in of_total(total, len(found), np.random.default_rng(0))}
    for metric in ("accuracy", "auc", "average_precision"):
        width = plain[metric][1] - plain[metric][0]
        assert (naive[metric].high - naive[metric].low) / width == pytest.approx(5**-0.5, abs=0.06)


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    large, _ = drawn(200_000, seed=0)
    truth = measured(large.scores, large.targets)
    held = dict.fromkeys(("accuracy", "auc", "average_precision", "brier"), 0)
    trials = 150
    for seed in range(trials):
        found, _ = drawn(200, seed=1000 + seed)
        for each in of_total(classification_sums(found, 2, 0.5, 200), 200, np.random.default_rng(seed)):
            if each.metric in held:
                held[each.metric] += each.low <= truth[each.metric] <= each.high
    assert all(0.89 <= count / trials <= 0.985 for count in held.values()), held


def test_of_several_classes_a_total_says_what_its_confusion_does_and_a_site_says_all():
    rng = np.random.default_rng(0)
    scores, targets = rng.dirichlet((1, 1, 1), 90), rng.integers(0, 3, 90)
    total = classification_sums(Predictions(scores, targets), 3, 0.5, 50)
    assert {each.metric for each in of_total(total, 90, rng)} == {"accuracy", "recall", "specificity"}
    own = by_patient(Predictions(scores, targets), 3, 0.5, np.arange(90), rng)
    assert {each.metric for each in own} == set(METRICS) - {"brier"}


def test_a_draw_takes_as_many_patients_as_there_are_each_with_all_rows():
    patients = np.array([0, 0, 1, 2, 2, 2])
    weights = np.concatenate(list(drawn_patients(patients, np.random.default_rng(0))))
    assert weights.shape == (SITE_REPLICATES, 6)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()


def test_replicates_that_are_all_alike_give_no_interval():
    assert interval("accuracy", np.ones(10)) is None
    assert interval("auc", np.array([0.5, np.nan])) is None
