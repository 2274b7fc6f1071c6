"""What noise costs: (ε, δ) of composed mechanisms, by two accountants.

- PRV: Gopi, Lee and Wutschitz 2021, "Numerical composition of differential privacy", as Opacus implements it. It
  solves for the noise of a task and reports what a run has cost.
- PLD: Koskela, Jälkö and Honkela 2020, "Computing tight differential privacy guarantees using FFT", as Google's
  dp-accounting implements it. It composes everything that a dataset has spent.

Both give upper bounds, under the relation that adds or removes one row. What is (ε, 0)-differentially private enters by
its dominating pair, randomized response over two answers (Kairouz, Oh and Viswanath 2015), which bounds any of them:
the discrete Laplace mechanism loses more in composition than the continuous one. The central-limit accountant that
Opacus also offers underestimates and is used nowhere.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from medfed.core.spending import Mechanism, Spend
from medfed.privacy.extra import require_privacy

SMALLEST_NOISE = 0.3
"""The least noise multiplier: below it ε is so large that it protects nobody, and its distribution so long that
composing it takes minutes."""

_STRIDE = 1.25
_NOISE_PRECISION = 1.005
"""Noise is solved for to half a hundredth, towards more noise."""

_PRV_ERROR = 0.01
_LARGEST_MU = 40.0
"""Of a Gaussian mechanism with ε of about 900."""

_LEAST_COMPOSED = 1 / 25
"""The noise below which e^(1/σ²) leaves the range of floats; an ε without δ of 25 protects nobody either."""
_LOSS_INTERVAL = 1e-4

Groups = tuple[tuple[Mechanism, float, float, int], ...]


def prv_epsilon(spends: Iterable[Spend], delta: float) -> float:
    """ε at δ of all these steps together, by PRV; its own numerical error, 0.01, is added. No steps cost nothing.

    Without subsampling (q = 1) and for other mechanisms, which that implementation does not cover, by PLD.
    """
    groups = _grouped(spends)
    if not groups:
        return 0.0
    if _protects_nobody(groups):
        return math.inf
    if any(kind is not Mechanism.SAMPLED_GAUSSIAN or rate >= 1.0 for kind, _, rate, _ in groups):
        return _pld_epsilon(groups, delta)
    return _prv_epsilon(groups, delta)


def pld_epsilon(spends: Iterable[Spend], delta: float) -> float:
    """ε at δ of all these steps together, by PLD. No steps cost nothing; what costs hundreds is said to cost ∞."""
    groups = _grouped(spends)
    if not groups:
        return 0.0
    return math.inf if _protects_nobody(groups) else _pld_epsilon(groups, delta)


@lru_cache(maxsize=4096)
def noise_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise multiplier σ with which so many steps at this rate cost at most ε, by PRV; 0.3 at least.

    Solved for by interpolation of log ε over log σ within a bracket. epsilon: above 0.01, the accountant's own error.
    """
    if epsilon <= _PRV_ERROR:
        raise ValueError(f"no noise makes any steps cost {epsilon}")

    def cost(noise: float) -> float:
        return prv_epsilon([Spend(noise, sampling_rate, steps)], delta)

    low = high = _first_guess(epsilon, delta, sampling_rate, steps)
    at_low = at_high = cost(low)
    while at_low <= epsilon:
        if low == SMALLEST_NOISE:
            return low
        high, at_high = low, at_low
        low = max(low / _STRIDE, SMALLEST_NOISE)
        at_low = cost(low)
    while at_high > epsilon:
        low, at_low = high, at_high
        high *= _STRIDE
        at_high = cost(high)
    while high > low * _NOISE_PRECISION:
        nearby = math.sqrt(low * high)
        if at_low < math.inf:
            slope = math.log(high / low) / math.log(at_low / at_high)
            nearby = float(low * (at_low / epsilon) ** slope * math.sqrt(_NOISE_PRECISION))
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


def _first_guess(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """About the noise sought: where to look first, and nothing else.

    By concentrated differential privacy ε = μ²/2 + μ √(2 ln 1/δ), with μ as in :func:`_protects_nobody`.
    """
    tail = 2 * math.log(1 / delta)
    mu = math.sqrt(tail + 2 * epsilon) - math.sqrt(tail)
    return max(SMALLEST_NOISE, 1 / math.sqrt(math.log1p(mu**2 / (sampling_rate**2 * steps))))


def _grouped(spends: Iterable[Spend]) -> Groups:
    """Steps by mechanism, noise and rate, sorted: the order of composition changes nothing."""
    steps: Counter[tuple[Mechanism, float, float]] = Counter()
    for spend in spends:
        steps[spend.mechanism, spend.noise_multiplier, spend.sampling_rate] += spend.steps
    return tuple((*kind, count) for kind, count in sorted(steps.items()) if count)


def _protects_nobody(groups: Groups) -> bool:
    """Whether ε would lie in the hundreds at least, and composing distributions so long would fill the memory.

    By μ of the Gaussian mechanism with which the steps compare (Dong, Roth and Su 2022): √T/σ without subsampling, and
    q √(T (e^(1/σ²) − 1)) in the limit with it; for an ε without δ by ε √T (q = 1, σ = 1/ε). As ∞ is an upper bound too,
    the estimate decides only what is refused.
    """
    if any(noise < _LEAST_COMPOSED for _, noise, _, _ in groups):
        return True
    squared = sum(min(steps / noise**2, rate**2 * steps * math.expm1(noise**-2)) for _, noise, rate, steps in groups)
    return squared > _LARGEST_MU**2


@lru_cache(maxsize=4096)
def _prv_epsilon(groups: Groups, delta: float) -> float:
    require_privacy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the orders that bound the size of its grid
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = [(noise, rate, steps) for _, noise, rate, steps in groups]
        return float(accountant.get_epsilon(delta, eps_error=_PRV_ERROR))


@lru_cache(maxsize=4096)
def _pld_epsilon(groups: Groups, delta: float) -> float:
    """By PLD; at most the plain sum, where every ε stands without a δ."""
    pure = all(kind.pure for kind, *_ in groups)
    added = sum(steps / noise for _, noise, _, steps in groups) if pure else math.inf
    return min(added, float(_composed(groups).get_epsilon_for_delta(delta)))


@lru_cache(maxsize=16)
def _composed(groups: Groups) -> Any:
    """The privacy loss distribution of all groups: the last one's is composed with that of those before it."""
    *before, last = groups
    found = _steps(*last)
    return _composed(tuple(before)).compose(found) if before else found


@lru_cache(maxsize=64)
def _steps(mechanism: Mechanism, noise: float, rate: float, steps: int) -> Any:
    require_privacy()
    from dp_accounting.pld import common, privacy_loss_distribution

    if mechanism.pure:
        pure = common.DifferentialPrivacyParameters(1 / noise, 0)
        single = privacy_loss_distribution.from_privacy_parameters(pure, _LOSS_INTERVAL)
        return single.self_compose(steps)
    single = privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=noise,
        sampling_prob=rate,
        pessimistic_estimate=True,
        value_discretization_interval=_LOSS_INTERVAL,
    )
    return single.self_compose(steps)
