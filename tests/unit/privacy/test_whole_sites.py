"""The update of a whole site: clipped, with its share of the noise, and a norm that follows the updates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from medfed.core.spending import Mechanism, Spend
from medfed.privacy.accountant import pld_epsilon
from medfed.privacy.keystream import Keystream
from medfed.privacy.wholesite import (
    SitePlan,
    adapted,
    noisy_within,
    norm_of,
    protect_update,
    shares_of_noise,
    site_plan,
    split_noise,
)
from medfed.spec.task import AdaptiveClip, SitePrivacy

LEAST = 1e-7


def plan(noise: float, shares: int = 1, count_noise: float | None = None) -> SitePlan:
    return SitePlan(noise, noise, count_noise, shares, 10)


@pytest.mark.parametrize(
    ("sigma", "rounds", "epsilon"), [(3.0, 10, 4.65), (3.0, 50, 12.3), (10.0, 10, 1.20), (10.0, 50, 2.94)]
)
def test_rounds_cost_what_was_measured_for_whole_sites(sigma, rounds, epsilon):
    spend = Spend(sigma, 1.0, rounds, Mechanism.WHOLE_SITE)
    assert pld_epsilon([spend], 1e-5) == pytest.approx(epsilon, abs=0.05 if epsilon > 10 else 0.006)


def test_a_plan_solves_for_the_noise_that_all_rounds_cost_at_most_epsilon_with():
    found = site_plan(SitePrivacy(epsilon=4.65), asked=4, shares=3, rounds=10)
    assert found.noise_multiplier == pytest.approx(3.0, rel=0.01)
    assert pld_epsilon([found.run], 1e-5) <= 4.65 and found.run.steps == 10


@given(
    arrays(np.float32, 7, elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, 7, elements=st.floats(-100, 100, width=32)),
    st.floats(0.01, 50),
)
def test_no_site_moves_the_total_by_more_than_the_norm(start, weights, norm):
    changed = weights.copy()
    protect_update(start, changed, norm, plan(0.0), Keystream())
    rounding = 1e-5 * (1 + float(np.abs(start).max()))
    assert norm_of(start, changed) <= norm + rounding
    if norm_of(start, weights) <= norm:
        assert np.allclose(changed, weights, rtol=0, atol=rounding)


@pytest.mark.parametrize(
    ("asked", "secure", "shares"),
    [(3, True, 2), (4, True, 2), (7, True, 3), (10, True, 3), (4, False, 3), (2, False, 1)],
)
def test_the_noise_is_shared_by_those_that_no_observer_knows_of(asked, secure, shares):
    """Secure: of two thirds that are asked two thirds answer; fewer than a third, one at least, know their share."""
    assert shares_of_noise(asked, asked, secure=secure) == shares


@pytest.mark.parametrize("sites", [2, 5])
def test_the_total_of_all_shares_carries_the_noise_of_the_formula_by_chi_square(sites):
    size, sigma, norm = 100_000, 2.0, 0.7
    start, total = np.zeros(size, np.float32), np.zeros(size)
    for _ in range(sites):
        weights = start.copy()
        protect_update(start, weights, norm, plan(sigma, shares=sites), Keystream())
        total += weights
    low, high = stats.chi2.interval(1 - LEAST, size)
    assert low < float(((total / (sigma * norm)) ** 2).sum()) < high
    assert stats.kstest(total[:20_000] / (sigma * norm), "norm").pvalue > LEAST


@given(st.floats(0.3, 20), st.floats(1.01, 50))
def test_update_and_count_together_cost_what_is_accounted(noise, factor):
    """Gaussians compose by 1/z² = 1/z_Δ² + 1/(2σ_b)² (Andrew et al. 2021, Theorem 1)."""
    count_noise = factor * noise / 2
    update = split_noise(noise, count_noise)
    assert update >= noise and update**-2 + (2 * count_noise) ** -2 == pytest.approx(noise**-2)


def test_split_noise_against_dp_accounting():
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(split_noise(3.0, 4.0)), 10)
    accountant.compose(dp_accounting.GaussianDpEvent(2 * 4.0), 10)
    assert float(accountant.get_epsilon(1e-5)) == pytest.approx(pld_epsilon([Spend(3.0, 1.0, 10)], 1e-5), rel=1e-3)


def test_a_count_that_costs_more_than_everything_is_refused_and_by_default_none_does():
    with pytest.raises(ValueError, match="leaves none"):
        split_noise(3.0, 1.5)
    privacy = SitePrivacy(noise_multiplier=3.0, adaptive=AdaptiveClip())
    for asked in (2, 20, 1000):
        found = site_plan(privacy, asked=asked, shares=1, rounds=5)
        assert found.count_noise == max(asked / 20, 3.0)
        assert 3.0 < found.update_noise <= 3.0 * math.sqrt(4 / 3) + 1e-9


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_the_norm_comes_to_the_quantile_of_the_updates_norms(quantile):
    """Of 400 sites with norms between 1 and 3, with σ_b = 20; the mean of the last rounds' shares."""
    draw, sites, norm = np.random.default_rng(3), 400, 0.7
    shares = []
    found = plan(1.0, shares=sites, count_noise=20.0)
    for round_ in range(100):
        norms = draw.uniform(1, 3, sites)
        said = sum(noisy_within(bool(each <= norm), found, Keystream()) for each in norms)
        norm = adapted(norm, said, sites, quantile=quantile, rate=0.2)
        if round_ >= 50:
            shares.append(float((norms <= norm).mean()))
    assert np.mean(shares) == pytest.approx(quantile, abs=0.05)
    assert norm == pytest.approx(1 + 2 * quantile, abs=0.3)


def test_noise_moves_the_norm_by_no_more_than_the_rate():
    assert adapted(1.0, 1e9, 2, quantile=0.5, rate=0.2) == pytest.approx(math.exp(-0.1))
    assert adapted(1.0, -1e9, 2, quantile=0.5, rate=0.2) == pytest.approx(math.exp(0.1))


def test_the_count_carries_its_noise():
    found = plan(1.0, shares=4, count_noise=6.0)
    said = np.array([noisy_within(True, found, Keystream()) for _ in range(3000)])
    low, high = stats.chi2.interval(1 - LEAST, len(said))
    assert low < float((((said - 0.5) / 3.0) ** 2).sum()) < high


def test_membership_of_a_site_by_its_updates_norm_is_hidden_by_the_noise_that_accounting_says():
    """The attack: does the total have this site's clipped update in it, which the attacker knows? Its best test is the
    total's projection on that update, whose advantage is 2Φ(1/2σ) − 1; without noise it is always right."""
    draw, norm, size, trials = np.random.default_rng(1), 1.0, 200, 2000
    update = draw.normal(size=size).astype(np.float32)
    update *= np.float32(20 / np.linalg.norm(update))  # far beyond the norm
    start = np.zeros(size, np.float32)
    direction = update / np.linalg.norm(update)

    def seen(member: bool, sigma: float) -> float:
        weights = update.copy() if member else start.copy()
        protect_update(start, weights, norm, plan(sigma), Keystream())
        return float(weights @ direction)

    assert seen(True, 0.0) == pytest.approx(1.0, abs=1e-4) and seen(False, 0.0) == 0.0
    right = sum((seen(member, 3.0) > 0.5) == member for member in (True, False) for _ in range(trials))
    chance = stats.norm.cdf(1 / 6)
    assert stats.binomtest(right, 2 * trials, chance).pvalue > LEAST
