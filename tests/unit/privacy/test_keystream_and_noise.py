from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medfed.privacy.keystream import Keystream
from medfed.privacy.noise import add_noise, grid_of, normals

LEAST = 1e-7
"""Probability of a false alarm of each statistical test: the noise has no seed."""


def test_two_streams_share_nothing_and_one_never_repeats():
    one, other = Keystream(), Keystream()
    first, second, third = one.words(1000), one.words(1000), other.words(1000)
    assert len({*first.tolist(), *second.tolist(), *third.tolist()}) == 3000


@pytest.mark.parametrize("count", [0, 1, 7, 2**16, 2**16 + 1, 200_001])
def test_any_number_of_words_comes_and_all_are_filled(count):
    words = Keystream().words(count)
    assert words.shape == (count,) and words.dtype == np.uint64
    assert count < 1000 or len(np.unique(words)) == count


def test_words_are_uniform():
    words = Keystream().words(400_000)
    for shift in (0, 24, 56):
        found = np.bincount((words >> np.uint64(shift)) & np.uint64(255), minlength=256)
        assert stats.chisquare(found).pvalue > LEAST


def test_deviates_are_standard_normal_and_independent_in_pairs():
    found = normals(Keystream(), 300_001)
    assert found.shape == (300_001,)
    assert stats.kstest(found, "norm").pvalue > LEAST
    half = 2**15
    pairs = np.corrcoef(found[:half], found[half : 2 * half])[0, 1]
    assert abs(pairs) * math.sqrt(half) < 6


@pytest.mark.parametrize("scale", [0.25, 1.0, 37.5])
def test_the_noise_has_the_scale_of_the_formula_by_chi_square(scale):
    count = 200_000
    total = np.zeros(count)
    add_noise(total, scale, Keystream())
    low, high = stats.chi2.interval(1 - LEAST, count)
    assert low < float(np.square(total / scale).sum()) < high
    assert abs(float(total.mean())) < 6 * scale / math.sqrt(count)


def test_noise_is_added_to_the_total_and_rounded_to_a_grid_that_the_data_do_not_choose():
    for value in (0.0, 1e-9, math.pi, 1e4):
        total = np.full(2000, value)
        add_noise(total, 1.7, Keystream())
        assert abs(float(total.mean()) - value) < 6 * 1.7 / math.sqrt(2000)
        steps = total / grid_of(1.7)
        assert np.array_equal(steps, np.rint(steps))
    assert grid_of(1.7) == 2.0**-20


def test_no_noise_changes_nothing():
    total = np.array([math.pi, -1e-9])
    add_noise(total, 0.0, Keystream())
    assert total.tolist() == [math.pi, -1e-9]
