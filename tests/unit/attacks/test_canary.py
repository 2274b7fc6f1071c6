from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from medfed.attacks.canary import Planted, chance, epsilon_bound, guesses, wrong_target


@pytest.mark.parametrize(("made", "right"), [(100, 100), (100, 90), (500, 300), (40, 35)])
def test_without_delta_the_bound_is_that_of_clopper_and_pearson(made: int, right: int) -> None:
    """ε = log(p / (1 − p)) with p the lower limit, one-sided at 95 %, of the share of right guesses."""
    low = binomtest(right, made, alternative="greater").proportion_ci(0.95, method="exact").low
    assert epsilon_bound(2 * made, made, right, 0.0) == pytest.approx(math.log(low / (1 - low)), abs=1e-6)


def test_all_right_has_a_closed_form() -> None:
    """p^n = .05, so p = .05^(1/n)."""
    low = 0.05 ** (1 / 128)
    assert epsilon_bound(256, 128, 128, 0.0) == pytest.approx(math.log(low / (1 - low)), abs=1e-6)


@pytest.mark.parametrize("right", [0, 30, 64, 70])
def test_guesses_that_chance_explains_show_nothing(right: int) -> None:
    assert epsilon_bound(256, 128, right, 1e-5) == 0.0


def test_a_delta_lowers_the_bound_and_never_raises_it() -> None:
    bounds = [epsilon_bound(400, 200, 170, delta) for delta in (0.0, 1e-6, 1e-5, 1e-4, 1e-3)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] - bounds[2] < 0.1 < bounds[0] - bounds[4]


def test_the_chance_is_that_of_the_published_code() -> None:
    """The appendix of Steinke, Nasr and Jagielski 2023, as a loop: α is the largest mean of the terms below v."""
    from scipy.stats import binom

    planted, made, right, epsilon, delta = 60, 30, 25, 1.0, 1e-3
    q = 1 / (1 + math.exp(-epsilon))
    total = alpha = 0.0
    for i in range(1, right + 1):
        total += binom.pmf(right - i, made, q)
        alpha = max(alpha, total / i)
    expected = binom.sf(right - 1, made, q) + alpha * delta * 2 * planted
    assert chance(planted, made, right, epsilon, delta) == pytest.approx(expected)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_never_found_to_leak_more_than_it_does(epsilon: float) -> None:
    """Each coin is told truly with probability e^ε / (1 + e^ε): the bound may exceed ε in one audit of twenty."""
    random, beyond, bounds = np.random.default_rng(0), 0, []
    for _ in range(200):
        inside = random.random(800) < 0.5
        told = np.where(random.random(800) < 1 / (1 + math.exp(-epsilon)), inside, ~inside)
        made, right = guesses([Planted(inside, told + random.random(800) / 2)])
        bounds.append(epsilon_bound(800, made, right, 0.0))
        beyond += bounds[-1] > epsilon
    assert beyond <= 20
    assert np.median(bounds) > epsilon / 2


def test_the_surest_are_guessed_in_and_the_least_sure_out() -> None:
    inside = np.array([True, True, False, False, True, False, True, False])
    assert guesses([Planted(inside, np.where(inside, 1.0, 0.0) + np.arange(8) / 100)]) == (4, 4)
    assert guesses([Planted(inside, np.where(inside, 0.0, 1.0) + np.arange(8) / 100)]) == (4, 0)


def test_the_targets_of_canaries_are_wrong() -> None:
    assert wrong_target(np.array([0, 1, 2]), 3).tolist() == [1, 2, 0]
    assert wrong_target(np.array([1.0, 4.0, 2.0]), 0).tolist() == [4.0, 1.0, 3.0]
