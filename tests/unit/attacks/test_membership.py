from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from medfed.attacks.intervals import exact_interval
from medfed.attacks.membership import Shadow, judged, judged_model, members_of, success


def drawn(shift: float, *, quarters: int = 2, models: int = 16, records: int = 400, seed: int = 3) -> list[Shadow]:
    """Models whose members' scores are higher by so many standard deviations."""
    random = np.random.default_rng(seed)
    members = np.concatenate([members_of(records, quarters, random) for _ in range(models // 4)])
    easy = random.normal(0, 2, records)
    return [Shadow(each, easy + shift * each + random.normal(0, 1, records)) for each in members]


def found(shadows: list[Shadow]):  # type: ignore[no-untyped-def]
    return success(judged(shadows, np.random.default_rng(1)), np.random.default_rng(2))


def test_members_are_found_as_well_as_two_normal_distributions_allow() -> None:
    """The likelihood ratio of N(2, 1) and N(0, 1) has AUC Φ(2/√2) and, at 1 % false positives, 1 − Φ(z₀.₉₉ − 2). Means
    are estimated from a few models, which costs some of both."""
    attack = found(drawn(2.0, models=64))
    assert norm.cdf(2 / np.sqrt(2)) - 0.03 < attack.auc < norm.cdf(2 / np.sqrt(2)) + 0.01
    best = norm.sf(norm.ppf(0.99) - 2)
    assert best - 0.1 < attack.tpr < best + 0.02
    assert attack.tpr_low < attack.tpr < attack.tpr_high


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("models", [8, 16])
def test_nobody_is_found_where_members_score_like_others(quarters: int, models: int) -> None:
    """Also where few models have a record, or few have it not: their number must not tell."""
    attack = found(drawn(0.0, quarters=quarters, models=models, records=1_500))
    assert abs(attack.auc - 0.5) < 0.02
    assert attack.auc_low < 0.5 < attack.auc_high
    assert attack.tpr_low < 0.01 < attack.tpr_high


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of 40 audits of models that tell nothing, about two miss by chance; seven or more would be a fault."""
    missed = sum(
        not (attack.auc_low <= 0.5 <= attack.auc_high)
        for attack in (found(drawn(0.0, models=8, records=60, seed=seed)) for seed in range(40))
    )
    assert missed < 7


@pytest.mark.slow
def test_the_intervals_allow_for_patients_of_several_alike_records() -> None:
    """Twenty patients of ten records each. As if each record were a patient, they miss far more often than they say."""
    missed = {"records": 0, "patients": 0}
    whose = np.repeat(np.arange(20), 10)
    for seed in range(40):
        random = np.random.default_rng(seed)
        members = np.concatenate([members_of(20, 2, random) for _ in range(4)])[:, whose]
        noise = random.normal(0, 1, (16, 20))[:, whose] + random.normal(0, 0.1, (16, 200))
        trials = judged([Shadow(m, n) for m, n in zip(members, noise, strict=True)], np.random.default_rng(1))
        for name, patients in (("records", None), ("patients", whose)):
            attack = success(trials, np.random.default_rng(2), patients=patients)
            missed[name] += not (attack.auc_low <= 0.5 <= attack.auc_high)
    assert missed["patients"] < 7 < 12 < missed["records"]


def test_the_area_is_that_of_another_implementation() -> None:
    trials = judged(drawn(1.0, records=60, models=8), np.random.default_rng(0))
    area = success(trials, np.random.default_rng(0)).auc
    assert area == pytest.approx(roc_auc_score(trials.members, trials.ratios))


def test_one_more_model_is_attacked_by_all_shadows() -> None:
    *shadows, target = drawn(2.0, models=20)
    trials = judged_model(target.scores, target.members, shadows)
    assert roc_auc_score(trials.members, trials.ratios) > 0.85
    mistaken = judged_model(target.scores, ~target.members, shadows)
    assert roc_auc_score(mistaken.members, mistaken.ratios) < 0.15


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("records", [4, 31, 200])
def test_models_have_their_share_and_every_record_as_many_models(quarters: int, records: int) -> None:
    members = members_of(records, quarters, np.random.default_rng(0))
    assert (members.sum(0) == quarters).all()
    assert np.abs(members.sum(1) - quarters * records / 4).max() < quarters
    assert members.any(1).all()


def test_a_site_of_one_patient_has_nobody_to_tell_from() -> None:
    with pytest.raises(ValueError, match="no record"):
        judged([Shadow(np.ones(1, bool), np.zeros(1)) for _ in range(8)], np.random.default_rng(0))


@pytest.mark.parametrize(("count", "of"), [(0, 20), (7, 20), (20, 20), (3, 1000)])
def test_the_exact_interval_is_that_of_scipy(count: int, of: int) -> None:
    from scipy.stats import binomtest

    known = binomtest(count, of).proportion_ci(method="exact")
    assert exact_interval(count, of) == pytest.approx((known.low, known.high))
