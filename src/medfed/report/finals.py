"""The final metrics of a run: on which splits, which metrics, and which hospitals a page about thousands shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import quantiles

from medfed.report.folder import RunFolder
from medfed.report.records import Measure
from medfed.report.words import by_importance, metric_name

MOST_SITES = 50
"""Up to so many hospitals, all of them are shown; of more, the best and the worst few."""
_FEW = 5
_ORDER = ("test", "validation", "train")
FIVE = ("Lowest hospital", "Lower quartile", "Median hospital", "Upper quartile", "Highest hospital")
"""The names of :func:`five_numbers`."""


def splits_of(run: RunFolder) -> tuple[str, ...]:
    """The splits that have final metrics, held-out ones first."""
    found = run.metrics
    return tuple(s for s in _ORDER if found.get(s)) + tuple(sorted(s for s in found if s not in _ORDER and found[s]))


def metrics_of(by_site: Mapping[str, Mapping[str, Measure]]) -> tuple[str, ...]:
    """The metrics that any site or the federation has, the main one first."""
    return by_importance(tuple(dict.fromkeys(metric for measures in by_site.values() for metric in measures)))


def is_crowd(run: RunFolder) -> bool:
    """Whether a run has too many hospitals for a line each."""
    return len(run.sites) > MOST_SITES


def shown_sites(run: RunFolder) -> tuple[str, ...]:
    """The hospitals that have a line of their own: all, or the best and the worst few by the main final metric."""
    if not is_crowd(run):
        return run.sites
    for split in splits_of(run):
        for metric in metrics_of(run.metrics[split]):
            values = final_values(run, split, metric)
            if len(values) >= 2 * _FEW:
                best_first = not metric_name(metric).lower_is_better
                ranked = sorted(values, key=values.__getitem__, reverse=best_first)
                return (*ranked[:_FEW], *ranked[-_FEW:])
    return run.sites[: 2 * _FEW]


def final_values(run: RunFolder, split: str, metric: str) -> dict[str, float]:
    """One final metric of each hospital that has a value."""
    found = {site: run.metrics.get(split, {}).get(site, {}).get(metric) for site in run.sites}
    return {site: m.value for site, m in found.items() if m is not None and m.value is not None}


def five_numbers(values: Sequence[float]) -> tuple[float, ...]:
    """Minimum, quartiles and maximum (linear interpolation) of at least two values."""
    return (min(values), *quantiles(values, n=4, method="inclusive"), max(values))
