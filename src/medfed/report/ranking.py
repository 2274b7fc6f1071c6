"""How strategies compare, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from medfed.report.finals import MOST_SITES, metrics_of, shown_sites, splits_of
from medfed.report.folder import ALONE, Comparison
from medfed.report.tables import shared_sites, shared_values, site_means
from medfed.report.words import (
    by_importance,
    capital,
    difference,
    listed,
    metric_name,
    number,
    plural,
    spelled,
    strategy_name,
)


def compared_split(comparison: Comparison) -> str | None:
    """The split on which strategies are compared: the first held-out one that every run has."""
    per_run = [splits_of(run) for run in comparison.runs.values()]
    return next((s for s in (per_run[0] if per_run else ()) if all(s in splits for splits in per_run)), None)


def compared_sites(comparison: Comparison) -> tuple[str, ...]:
    """Every hospital that a run names."""
    return tuple(dict.fromkeys(site for run in comparison.runs.values() for site in run.sites))


def displayed_sites(comparison: Comparison) -> tuple[str, ...]:
    """The hospitals that have a line of their own: all, or those that the first run's report shows."""
    sites = compared_sites(comparison)
    return sites if len(sites) <= MOST_SITES else shown_sites(next(iter(comparison.runs.values())))


def compared_metrics(comparison: Comparison, split: str) -> tuple[str, ...]:
    """Every metric that a run has on that split, the main one first."""
    found = [metrics_of(run.metrics.get(split, {})) for run in comparison.runs.values()]
    return by_importance(tuple(dict.fromkeys(metric for metrics in found for metric in metrics)))


def comparison_lede(comparison: Comparison, split: str | None, sites: Sequence[str]) -> tuple[str, ...]:
    """The strategies in order of the main metric, and at how many hospitals the best beat training alone."""
    opening = capital(f"{plural(len(comparison.runs), 'strategy', spell=True)} on the same task")
    missing = [strategy_name(s) for s in comparison.strategies if s not in comparison.runs]
    absent = (f"Not run yet: {listed(missing)}.",) if missing else ()
    for metric in compared_metrics(comparison, split) if split else ():
        means = site_means(comparison, split or "", metric, sites)
        if len(means) > 1:
            common = shared_sites(comparison, split or "", metric, sites)
            ranking = _ranking(metric, split or "", means, _share(len(common), len(sites)))
            against = _against_local(comparison, split or "", metric, common)
            return tuple(sentence for sentence in (f"{opening}: {ranking}.", against, *absent) if sentence)
    return (f"{opening}; no metric has a value under all of them.", *absent)


def _share(some: int, everyone: int) -> str:
    if everyone == 1:
        return "the one hospital"
    return f"all {spelled(some)} hospitals" if some == everyone else f"{spelled(some)} of {spelled(everyone)} hospitals"


def _ranking(metric: str, split: str, means: dict[str, float], hospitals: str) -> str:
    name = metric_name(metric)
    order = sorted(means, key=means.__getitem__, reverse=not name.lower_is_better)
    values = listed([f"{strategy_name(strategy)} {number(means[strategy])}" for strategy in order])
    return f"best first, the mean {split} {name.inline} over {hospitals} is {values}"


def _against_local(comparison: Comparison, split: str, metric: str, common: Sequence[str]) -> str:
    lower = metric_name(metric).lower_is_better
    federated = [strategy for strategy in comparison.runs if strategy not in ALONE]
    if "local" not in comparison.runs or not federated or lower is None:
        return ""
    means = site_means(comparison, split, metric, common)
    best = min(federated, key=lambda strategy: means[strategy] if lower else -means[strategy])
    values = {s: shared_values(comparison, s, split, metric, common) for s in ("local", best)}
    pairs = zip(values["local"], values[best], strict=True)
    better = sum(mine < alone if lower else mine > alone for alone, mine in pairs)
    return (
        f"Against each hospital training alone, {strategy_name(best)} is better at "
        f"{_share(better, len(common))} ({difference(means[best] - means['local'])} on average)."
    )
