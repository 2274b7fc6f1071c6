"""Noise in released sums: its scale by what fields declare, its grid, and the odds that it promises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from scipy import stats

from medfed.core.messages import Counts, Message, adds
from medfed.core.sensitivity import Bounds, per_row, unmoved
from medfed.core.spending import Mechanism
from medfed.privacy.release import ReleaseNoise, moved_fields, noised, undeclared
from medfed.spec.task import ReleasePrivacy

LEAST = 1e-7
BOUNDS = Bounds(rows=2, classes=3, loss=4.0)


@dataclass(frozen=True, eq=False)
class Tally(Message, wire="test.noisy_tally"):
    counts: Counts = adds(bound=2.0**30, sensitivity=per_row(fields=lambda bounds: bounds.classes))
    total: float = adds(bound=2.0**30, resolution=2.0**-10, sensitivity=per_row(each=lambda bounds: bounds.loss))
    sites: int = adds(bound=1, sensitivity=unmoved)


@dataclass(frozen=True, eq=False)
class Silent(Message, wire="test.noisy_silent"):
    rows: int = adds(bound=1)
    known: int = adds(bound=1, sensitivity=unmoved)


CELLS = 4000
TALLY = Tally(np.arange(CELLS), 100.0, 1)


def test_laplace_noise_has_the_scale_of_its_share_of_epsilon():
    """Two fields move, so each has scale 2 Δ₁/ε: counts move by 2 rows × 3 cells."""
    release = ReleasePrivacy(epsilon=0.5)
    found = noised(TALLY, ReleaseNoise.of(release), BOUNDS)
    scale = 2 * 6 / 0.5
    assert found.counts.dtype == np.int64 and found.sites == 1
    off = np.abs(found.counts - TALLY.counts)
    # |x| of a discrete Laplace is geometric but for its double weight away from 0; the continuous one is near enough
    assert abs(off.mean() / scale - 1) < 6 / math.sqrt(CELLS)
    draws = [noised(TALLY, ReleaseNoise.of(release), BOUNDS).total - 100.0 for _ in range(30)]
    assert all((draw * 2**10).is_integer() for draw in draws)
    spread = 2 * (2 * 4.0 + 2**-10) / 0.5
    assert 0.2 * spread < np.abs(draws).mean() < 4 * spread


def test_gaussian_noise_has_the_scale_of_the_formula_by_chi_square():
    release = ReleasePrivacy(mechanism="gaussian", epsilon=0.5, delta=1e-6)
    noise = ReleaseNoise.of(release)
    off = noised(TALLY, noise, BOUNDS).counts - TALLY.counts
    sigma = noise.noise_multiplier * math.sqrt(2) * 2 * math.sqrt(3)
    low, high = stats.chi2.interval(1 - LEAST, CELLS)
    assert low < float(((off / sigma) ** 2).sum()) < high
    single = privacy_loss_distribution.from_gaussian_mechanism(noise.noise_multiplier)
    assert single.get_epsilon_for_delta(1e-6) <= 0.5 + 1e-3
    tighter = privacy_loss_distribution.from_gaussian_mechanism(0.97 * noise.noise_multiplier)
    assert tighter.get_epsilon_for_delta(1e-6) > 0.5


def test_the_odds_of_an_answer_are_those_promised():
    """Of a count of 0 and of 1, at ε = 1: the most telling event, that the answer is above 0."""
    noise = ReleaseNoise.of(ReleasePrivacy(epsilon=1.0))

    @dataclass(frozen=True, eq=False)
    class One(Message, wire="test.noisy_one"):
        rows: int = adds(bound=2.0**30, sensitivity=per_row())

    bounds, draws = Bounds(1, 2, 4.0), 20_000
    hits = [sum(noised(One(rows), noise, bounds).rows > 0 for _ in range(draws)) for rows in (0, 1)]
    geometric = math.exp(-1) / (1 + math.exp(-1))
    for found, chance in zip(hits, (geometric, 1 - geometric), strict=True):
        assert stats.binomtest(found, draws, chance).pvalue > LEAST
    assert (1 - geometric) / geometric == pytest.approx(math.e)


def test_what_a_patient_does_not_move_gets_no_noise_and_what_is_not_declared_none_can_be_chosen_for():
    assert set(moved_fields(Tally, BOUNDS)) == {"counts", "total"}
    assert undeclared(Silent) == ("rows",) and undeclared(Tally) == ()
    with pytest.raises(TypeError, match=r"Silent\.rows declares no sensitivity"):
        noised(Silent(1, 1), ReleaseNoise(Mechanism.LAPLACE, 1.0), BOUNDS)


def test_noise_is_never_finer_than_two_steps_of_the_grid():
    noise = ReleaseNoise(Mechanism.GAUSSIAN, 0.3)
    off = noised(Tally(np.zeros(CELLS, np.int64), 0.0, 1), noise, Bounds(1, 2, 1e-9)).counts
    low, high = stats.chi2.interval(1 - LEAST, CELLS)
    assert low < float(((off / 2) ** 2).sum()) < high
