"""Exact intervals of a proportion: Clopper and Pearson 1934."""

from __future__ import annotations

from medfed.attacks.results import Proportion


def exact_interval(count: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of a proportion; (0, 1) of nothing."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, of - count)) if count < of else 1.0
    return low, high


def proportion(count: int, of: int) -> Proportion:
    """A proportion with its 95 % interval."""
    return Proportion(count, of, *exact_interval(count, of))
