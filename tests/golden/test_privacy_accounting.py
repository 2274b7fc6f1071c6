"""Privacy accounting and per-row gradients against the libraries that the field uses."""

from __future__ import annotations

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from medfed.core.spending import Spend
from medfed.models.networks import cnn
from medfed.privacy.accountant import pld_epsilon, prv_epsilon
from medfed.privacy.clipping import clipped_sum

DELTA = 1e-5
SCHEDULES = [
    [Spend(1.0, 0.01, 10_000)],
    [Spend(1.0, 0.01, 1)],
    [Spend(0.8, 0.1, 50)],
    [Spend(10.0, 0.5, 5)],
    [Spend(3.0, 0.1, 100), Spend(2.0, 0.05, 200), Spend(1.0, 0.02, 30)],
]


def by_dp_accounting(spends: list[Spend], delta: float) -> float:
    accountant = PLDAccountant()
    for spend in spends:
        event = dp_accounting.PoissonSampledDpEvent(
            spend.sampling_rate, dp_accounting.GaussianDpEvent(spend.noise_multiplier)
        )
        accountant.compose(event, spend.steps)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("spends", SCHEDULES)
def test_both_accountants_give_the_figures_of_dp_accounting(spends):
    theirs = by_dp_accounting(spends, DELTA)
    assert pld_epsilon(spends, DELTA) == pytest.approx(theirs, rel=1e-3)
    assert theirs - 1e-3 <= prv_epsilon(spends, DELTA) <= theirs + 0.02


def test_published_figures():
    """σ = 1, q = 0.01, T = 10,000, δ = 1e-5: 6.198 by PRV, 6.19 by PLD."""
    assert prv_epsilon(SCHEDULES[0], DELTA) == pytest.approx(6.198, abs=1e-3)
    assert pld_epsilon(SCHEDULES[0], DELTA) == pytest.approx(6.19, abs=5e-3)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (5.0, 10), (20.0, 100)])
def test_without_subsampling_it_is_the_closed_form(sigma, steps):
    """Balle & Wang 2018, Theorem 8: T steps of σ are one of σ/√T, with δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)."""
    mu = np.sqrt(steps) / sigma
    exact = brentq(lambda e: norm.cdf(mu / 2 - e / mu) - np.exp(e) * norm.cdf(-mu / 2 - e / mu) - DELTA, 0, 100)
    for epsilon in (pld_epsilon, prv_epsilon):
        assert exact - 1e-6 <= epsilon([Spend(sigma, 1.0, steps)], DELTA) <= exact + 2e-3


def test_bounds_are_never_below_the_exact_cost_of_one_step():
    """One subsampled step: δ(ε) is a difference of normal integrals, solved here by itself."""
    q, sigma = 0.2, 1.5

    def remove(e: float) -> float:  # where log((1 − q) + q e^{(2x − 1)/2σ²}) > ε, of the mixture over the plain one
        x = sigma**2 * np.log((np.exp(e) - 1 + q) / q) + 0.5
        mixture = (1 - q) * norm.sf(x / sigma) + q * norm.sf((x - 1) / sigma)
        return mixture - np.exp(e) * norm.sf(x / sigma) - DELTA

    exact = brentq(remove, 1e-6, 20)
    for epsilon in (pld_epsilon, prv_epsilon):
        assert exact - 1e-6 <= epsilon([Spend(sigma, q, 1)], DELTA) <= exact + 0.03


def test_clipped_sums_are_those_of_opacus():
    from opacus import GradSampleModule

    torch.manual_seed(0)
    module = cnn.build((1, 8, 8), 3)
    x, y = torch.randn(12, 1, 8, 8), torch.randint(0, 3, (12,))

    def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    ours = clipped_sum(module, losses, 0.5)(x, y)
    hooked = GradSampleModule(module, loss_reduction="sum")
    losses(hooked(x.requires_grad_()), y).sum().backward()
    samples = torch.cat([p.grad_sample.flatten(1) for p in hooked.parameters()], 1)
    theirs = (samples * (0.5 / samples.norm(dim=1, keepdim=True)).clamp(max=1.0)).sum(0)
    assert torch.allclose(ours, theirs, atol=1e-6)
