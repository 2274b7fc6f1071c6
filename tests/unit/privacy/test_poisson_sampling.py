from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medfed.privacy.keystream import Keystream
from medfed.privacy.sampling import poisson_sample

LEAST = 1e-7


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.97])
def test_batch_sizes_are_binomial_and_rows_come_alike(rate):
    rows, draws, stream = 500, 400, Keystream()
    batches = [poisson_sample(rows, rate, stream) for _ in range(draws)]
    sizes = sum(len(batch) for batch in batches)
    assert stats.binomtest(sizes, rows * draws, rate).pvalue > LEAST
    assert stats.chisquare(_spread([len(b) for b in batches], rows, rate)).pvalue > LEAST
    seen = np.bincount(np.concatenate(batches), minlength=rows)
    variance = draws * rate * (1 - rate)
    low, high = stats.chi2.interval(1 - LEAST, rows)
    assert low < float(np.square(seen - draws * rate).sum() / variance) < high


def _spread(sizes: list[int], rows: int, rate: float) -> np.ndarray:
    """How many sizes fall into each tenth of the binomial distribution, ties split by a uniform draw."""
    draw = np.random.default_rng()
    below, at = stats.binom.cdf(np.array(sizes) - 1, rows, rate), stats.binom.pmf(sizes, rows, rate)
    return np.bincount(((below + at * draw.random(len(sizes))) * 10).astype(int).clip(0, 9), minlength=10)


def test_a_batch_is_in_order_without_repetition_and_may_be_empty():
    stream = Keystream()
    batch = poisson_sample(1000, 0.5, stream)
    assert np.all(np.diff(batch) > 0) and batch[-1] < 1000
    assert not any(len(poisson_sample(5, 1e-12, stream)) for _ in range(50))
    assert not len(poisson_sample(5, 0.0, stream))


def test_every_row_comes_at_rate_one():
    assert poisson_sample(7, 1.0, Keystream()).tolist() == list(range(7))
