"""A measured value, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.core.messages import Message


@dataclass(frozen=True)
class Measure(Message, wire="metrics.measure"):
    """One metric of one split.

    value: None where the metric does not exist, and ``reason`` then says why. n: the rows it rests on.
    error: a bound on the value's distance from the exact one, where it was formed from a histogram.
    """

    metric: str
    value: float | None
    n: int
    error: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Measures(Message, wire="metrics.measures"):
    """All metrics of one split."""

    measures: tuple[Measure, ...]


def ratio(metric: str, numerator: float, denominator: float, n: int, reason: str) -> Measure:
    """``numerator / denominator``, or ``reason`` where the denominator is zero."""
    if denominator == 0:
        return Measure(metric, None, n, reason=reason)
    return Measure(metric, float(numerator / denominator), n)
