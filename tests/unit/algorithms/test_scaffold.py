"""SCAFFOLD against Karimireddy et al. 2020, Algorithm 1 with option II, worked in scalars on quadratics."""

import numpy as np
import pytest
from logistic_sites import task, trained, unequal_sites
from quadratic_sites import QuadraticSite, federation_of, float32, run_rounds

from medfed.algorithms.fedavg import FedAvg
from medfed.algorithms.scaffold import Scaffold, SiteVariate

A = {"a": 1.0, "b": 2.0, "c": 0.5}
B = {"a": 0.6, "b": -0.4, "c": 0.2}
ROWS = {"a": 50, "b": 10, "c": 25}
COHORTS = (("a", "b"), ("b", "c"), ("a", "c"), ("a", "b"), ("b", "c"), ("a", "b"))
LR, STEPS = 0.1, 4


def by_hand(x: float, server_lr: float, cohorts, weight) -> list[tuple[float, float, dict[str, float]]]:
    """(x, c, {site: c_i}) after each round; ``weight`` gives a site's weight in both means."""
    c, c_i, history = 0.0, dict.fromkeys(A, 0.0), []
    for cohort in cohorts:
        changes, corrections, weights = [], [], [weight(k) for k in cohort]
        for k in cohort:
            y = x
            for _ in range(STEPS):
                y = y - LR * (A[k] * (y - B[k]) - c_i[k] + c)
            new = c_i[k] - c + (x - y) / (STEPS * LR)
            changes.append(y - x)
            corrections.append(new - c_i[k])
            c_i[k] = new
        x = x + server_lr * np.average(changes, weights=weights)
        c = c + len(cohort) / len(A) * np.average(corrections, weights=weights)
        history.append((x, c, dict(c_i)))
    return history


def hospitals():
    return [QuadraticSite(k, [A[k]], [B[k]], ROWS[k], LR, STEPS) for k in A]


@pytest.mark.parametrize("server_lr", [1.0, 0.5])
@pytest.mark.parametrize("weighting", ["uniform", "rows"])
def test_partial_participation_by_hand(weighting: str, server_lr: float) -> None:
    sites = hospitals()
    fed = federation_of(*sites, cohorts=COHORTS)
    algorithm = Scaffold(float32(1.0), rounds=6, lr=server_lr, weighting=weighting)
    weight = (lambda k: 1) if weighting == "uniform" else ROWS.__getitem__
    expected = by_hand(1.0, server_lr, COHORTS, weight)

    state = algorithm.initialize(fed)
    for number, (x, c, c_i) in enumerate(expected, start=1):
        fed.round = number
        state = algorithm.round(fed, state)
        kept = {site.site: site.recall(SiteVariate) for site in sites}
        found = [state.weights[0], state.variate[0], *(v.variate[0] if v else 0.0 for v in kept.values())]
        np.testing.assert_allclose(found, [x, c, *c_i.values()], rtol=0, atol=1e-6)


def test_it_finds_the_minimum_that_fedavg_misses() -> None:
    """With K > 1 and unlike curvatures FedAvg is drawn off the minimum of the mean; SCAFFOLD is not."""
    minimum = sum(A[k] * B[k] for k in A) / sum(A.values())
    scaffold = run_rounds(Scaffold(float32(1.0), rounds=80), federation_of(*hospitals()), 80)[-1]
    alike = [QuadraticSite(k, [A[k]], [B[k]], 10, LR, STEPS) for k in A]
    fedavg = run_rounds(FedAvg(float32(1.0), rounds=80), federation_of(*alike), 80)[-1]
    assert scaffold.weights[0] == pytest.approx(minimum, abs=1e-5)
    assert abs(fedavg.weights[0] - minimum) > 0.01


def test_variates_of_a_full_cohort_average_to_the_servers() -> None:
    sites = hospitals()
    state = run_rounds(Scaffold(float32(1.0), rounds=7), federation_of(*sites), 7)[-1]
    mean = np.mean([site.recall(SiteVariate).variate for site in sites], axis=0)
    np.testing.assert_allclose(state.variate, mean, rtol=0, atol=1e-6)


def test_a_schedule_that_ends_at_rate_zero_leaves_the_variates_as_they_are() -> None:
    sites = unequal_sites(a=30, b=40)
    cosine = {"local_updates": 3, "batch_size": 8, "lr": 0.1, "schedule": "cosine"}
    _, after = trained(task("scaffold", rounds=4, **cosine), sites)
    assert np.isfinite(after).all()
