"""A measured value, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace

from medfed.core.messages import Message


@dataclass(frozen=True)
class Measure(Message, wire="metrics.measure"):
    """One metric of one split.

    value: None where the metric does not exist, and ``reason`` then says why; beside a value it says what is left
    out of it. n: the rows it rests on.
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


def without(sites: int, measured: Measures) -> Measures:
    """Federated metrics that say how many sites are left out of them, if any."""
    if not sites:
        return measured
    left_out = f"without {sites} site{'s' if sites > 1 else ''} of too few patients"
    return Measures(
        tuple(replace(m, reason=f"{m.reason}; {left_out}" if m.reason else left_out) for m in measured.measures)
    )
