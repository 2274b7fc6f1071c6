"""Exact samplers against the distributions' own formulas, with so small a chance of a false alarm that none is seen."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from medfed.privacy.discrete import bernoulli_exp, discrete_gaussian, discrete_laplace

LEAST = 1e-7
DRAWS = 20_000


def fits(draw: Callable[[], int], weight: Callable[[int], float], reach: int) -> bool:
    """Whether draws follow the weights on −reach … reach, where nearly all lie, the tails in one cell."""
    found = np.array([draw() for _ in range(DRAWS)])
    chances = np.array([weight(x) for x in range(-reach, reach + 1)])
    wide = sum(weight(x) for x in range(-40 * reach, 40 * reach + 1))
    chances = chances / wide
    inside = found[np.abs(found) <= reach] + reach
    counts = np.append(np.bincount(inside, minlength=2 * reach + 1), DRAWS - len(inside))
    expected = np.append(chances, 1 - chances.sum()) * DRAWS
    kept = expected >= 5
    rest = counts[~kept].sum(), expected[~kept].sum()
    counts, expected = np.append(counts[kept], rest[0]), np.append(expected[kept], rest[1])
    if expected[-1] < 1e-9:
        counts, expected = counts[:-1], expected[:-1]
    return bool(stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > LEAST)


@pytest.mark.parametrize(("top", "bottom"), [(0, 1), (1, 3), (1, 1), (7, 2)])
def test_a_coin_falls_with_the_exponential_of_its_fraction(top, bottom):
    hits = sum(bernoulli_exp(top, bottom) for _ in range(DRAWS))
    assert stats.binomtest(hits, DRAWS, math.exp(-top / bottom)).pvalue > LEAST


@pytest.mark.parametrize(("top", "bottom"), [(1, 1), (1, 2), (7, 2), (25, 3)])
def test_laplace(top, bottom):
    scale = top / bottom
    assert fits(lambda: discrete_laplace(top, bottom), lambda x: math.exp(-abs(x) / scale), math.ceil(5 * scale))


@pytest.mark.parametrize(("top", "bottom"), [(1, 2), (4, 1), (50, 3)])
def test_gaussian(top, bottom):
    square = top / bottom
    found = fits(
        lambda: discrete_gaussian(top, bottom), lambda x: math.exp(-x * x / 2 / square), math.ceil(3 * square**0.5)
    )
    assert found


def test_large_scales_have_their_spread():
    square = 10**13
    drawn = np.array([discrete_gaussian(square * 7, 7) for _ in range(4000)], float)
    low, high = stats.chi2.interval(1 - LEAST, len(drawn))
    assert low < float((drawn**2).sum() / square) < high
    assert stats.kstest(drawn / math.sqrt(square), "norm").pvalue > LEAST
