"""What noisy steps cost: (ε, δ) of composed Poisson-subsampled Gaussian mechanisms, by two accountants.

- PRV: Gopi, Lee and Wutschitz 2021, "Numerical composition of differential privacy", as Opacus implements it. It
  solves for the noise of a task and reports what a run has cost.
- PLD: Koskela, Jälkö and Honkela 2020, "Computing tight differential privacy guarantees using FFT", as Google's
  dp-accounting implements it. It composes everything that a dataset has spent.

Both give upper bounds, under the relation that adds or removes one row. The central-limit accountant that Opacus also
offers underestimates and is used nowhere.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from medfed.core.spending import Spend
from medfed.privacy.extra import require_privacy

SMALLEST_NOISE = 0.3
"""The least noise multiplier: below it ε is so large that it protects nobody, and its distribution so long that
composing it takes minutes."""

_FIRST_GUESS = 1.2
_NOISE_PRECISION = 1.005
"""Noise is solved for to half a hundredth, towards more noise."""

_PRV_ERROR = 0.01

_LOSS_INTERVAL = 1e-4

Groups = tuple[tuple[float, float, int], ...]


def prv_epsilon(spends: Iterable[Spend], delta: float) -> float:
    """ε at δ of all these steps together, by PRV; its own numerical error, 0.01, is added. No steps cost nothing.

    Without subsampling (q = 1), which that implementation does not cover, by PLD.
    """
    groups = _grouped(spends)
    if not groups:
        return 0.0
    if _without_noise(groups):
        return math.inf
    if any(rate >= 1.0 for _, rate, _ in groups):
        return _pld_epsilon(groups, delta)
    return _prv_epsilon(groups, delta)


def pld_epsilon(spends: Iterable[Spend], delta: float) -> float:
    """ε at δ of all these steps together, by PLD. No steps cost nothing."""
    groups = _grouped(spends)
    if not groups:
        return 0.0
    return math.inf if _without_noise(groups) else _pld_epsilon(groups, delta)


@lru_cache(maxsize=4096)
def noise_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise multiplier σ with which so many steps at this rate cost at most ε, by PRV; 0.3 at least.

    Solved for by interpolation of log ε over log σ within a bracket. epsilon: above 0.01, the accountant's own error.
    """
    if epsilon <= _PRV_ERROR:
        raise ValueError(f"no noise makes any steps cost {epsilon}")

    def cost(noise: float) -> float:
        return prv_epsilon([Spend(noise, sampling_rate, steps)], delta)

    low, high = _FIRST_GUESS, _FIRST_GUESS
    at_low = at_high = cost(_FIRST_GUESS)
    while at_low <= epsilon:
        if low == SMALLEST_NOISE:
            return low
        high, at_high = low, at_low
        low = max(low / 2, SMALLEST_NOISE)
        at_low = cost(low)
    while at_high > epsilon:
        low, at_low = high, at_high
        high *= 2
        at_high = cost(high)
    while high > low * _NOISE_PRECISION:
        slope = math.log(high / low) / math.log(at_low / at_high)
        nearby: float = low * (at_low / epsilon) ** slope * math.sqrt(_NOISE_PRECISION)
        guess = min(nearby, high)
        found = cost(guess)
        if found > epsilon:
            low, at_low = guess, found
            continue
        high, at_high = guess, found
        guess = max(high / _NOISE_PRECISION, low)
        found = cost(guess)
        if found > epsilon:
            return high
        high, at_high = guess, found
    return high


def _grouped(spends: Iterable[Spend]) -> Groups:
    """Steps by noise and rate, sorted: the order of composition changes nothing."""
    steps: Counter[tuple[float, float]] = Counter()
    for spend in spends:
        steps[spend.noise_multiplier, spend.sampling_rate] += spend.steps
    return tuple((noise, rate, count) for (noise, rate), count in sorted(steps.items()) if count)


def _without_noise(groups: Groups) -> bool:
    return any(noise == 0 for noise, _, _ in groups)


@lru_cache(maxsize=4096)
def _prv_epsilon(groups: Groups, delta: float) -> float:
    require_privacy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the orders that bound the size of its grid
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = list(groups)
        return float(accountant.get_epsilon(delta, eps_error=_PRV_ERROR))


@lru_cache(maxsize=4096)
def _pld_epsilon(groups: Groups, delta: float) -> float:
    return float(_composed(groups).get_epsilon_for_delta(delta))


@lru_cache(maxsize=16)
def _composed(groups: Groups) -> Any:
    """The privacy loss distribution of all groups: the last one's is composed with that of those before it."""
    *before, last = groups
    found = _steps(*last)
    return _composed(tuple(before)).compose(found) if before else found


@lru_cache(maxsize=64)
def _steps(noise: float, rate: float, steps: int) -> Any:
    require_privacy()
    from dp_accounting.pld import privacy_loss_distribution

    single = privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=noise,
        sampling_prob=rate,
        pessimistic_estimate=True,
        value_discretization_interval=_LOSS_INTERVAL,
    )
    return single.self_compose(steps)
