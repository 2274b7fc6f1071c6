"""Intervals against the worked examples of the papers that define them."""

from __future__ import annotations

import pytest

from medfed.report.intervals import Counts, hanley_mcneil, interval, wilson
from medfed.report.records import Measure


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_table_of_newcombe_1998(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=5e-5)


def test_hanley_and_mcneil_give_the_standard_error_of_their_example() -> None:
    low, high = hanley_mcneil(0.893, Counts(negatives=58, positives=51))
    assert (high - low) / 2 / 1.96 == pytest.approx(0.032, abs=6e-4)
    assert (low + high) / 2 == pytest.approx(0.893)


def test_an_interval_needs_counts_that_agree_with_n() -> None:
    measure = Measure(value=0.8, n=100)
    assert interval("recall", measure, Counts(60, 40)) == wilson(0.8, 40)
    assert interval("specificity", measure, Counts(60, 40)) == wilson(0.8, 60)
    assert interval("recall", measure, Counts(60, 41)) is None
    assert interval("recall", measure, None) is None
    assert interval("auc", measure, Counts(100, 0)) is None
    assert interval("accuracy", Measure(value=0.8, n=None), None) is None
    assert interval("loss", measure, Counts(60, 40)) is None
