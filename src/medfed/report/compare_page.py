"""What the report of a comparison shows."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from medfed.algorithms import ALGORITHMS
from medfed.report.canvas import Stroke, stroke
from medfed.report.cross_site import CrossTable, cross_table
from medfed.report.figures import ForestSeries, Legend, Panels, forest, strategy_curves
from medfed.report.findings import monitored
from medfed.report.folder import Comparison, RunFolder
from medfed.report.ranking import compared_metrics, compared_sites, compared_split, comparison_lede, displayed_sites
from medfed.report.records import FEDERATED, CrossSite
from medfed.report.sent import Sent, sent_by_strategy
from medfed.report.tables import EVERYONE, SiteLeft, Table, final_measures, side_by_side, what_left
from medfed.report.words import by_importance, strategy_name


@dataclass(frozen=True)
class ComparePage:
    """Everything that the template of a comparison's report shows.

    hidden: how many hospitals have no line of their own. split: the one that strategies are compared on. left: by
    party, then strategy. links: the runs' reports. personalised: the strategies that leave hospitals something of their
    own.
    """

    comparison: Comparison
    lede: tuple[str, ...]
    split: str | None
    tables: tuple[Table, ...]
    forests: Panels | None
    curves: Panels | None
    left: dict[str, dict[str, SiteLeft]]
    sent: Sent | None
    hidden: int
    links: dict[str, str]
    personalised: tuple[str, ...] = ()
    cross: CrossTable | None = None
    cross_reason: str = ""


def compare_page(comparison: Comparison, cross: CrossSite | None = None) -> ComparePage:
    """Gather what a comparison's report shows. cross: every model at every site, where that was measured."""
    split, sites, shown = compared_split(comparison), compared_sites(comparison), displayed_sites(comparison)
    metrics = compared_metrics(comparison, split) if split else ()
    looks = {s: stroke(i) for i, s in enumerate(comparison.strategies) if s in comparison.runs}
    return ComparePage(
        comparison=comparison,
        lede=comparison_lede(comparison, split, sites),
        split=split,
        tables=tuple(side_by_side(comparison, split, metric, sites, shown) for metric in metrics) if split else (),
        forests=_forests(comparison, split, metrics, shown, looks) if split else None,
        curves=_curves(comparison, looks),
        left=_left(comparison, {*sites} - {*shown}),
        sent=sent_by_strategy(comparison, split, metrics[0]) if split and metrics else None,
        hidden=len(sites) - len(shown),
        links={s: f"{quote(comparison.folders[s])}/report.html" for s in comparison.runs},
        personalised=tuple(strategy_name(s) for s, run in comparison.runs.items() if _is_personalised(run)),
        cross=cross_table(cross) if cross else None,
        cross_reason=cross.not_measured if cross else "",
    )


def _forests(
    comparison: Comparison,
    split: str,
    metrics: tuple[str, ...],
    sites: tuple[str, ...],
    looks: dict[str, Stroke],
) -> Panels | None:
    labels = {site: site for site in sites} | {FEDERATED: "All hospitals"}
    panels = []
    for metric in metrics:
        series = [
            ForestSeries(strategy_name(strategy), looks[strategy], *final_measures(run, split, metric))
            for strategy, run in comparison.runs.items()
        ]
        panels.append(forest(metric, labels, series, name=f"compare-{metric}"))
    drawn = tuple(panel for panel in panels if panel)
    legend = tuple(Legend(strategy_name(strategy), look) for strategy, look in looks.items())
    return Panels(legend, drawn) if drawn else None


def _curves(comparison: Comparison, looks: dict[str, Stroke]) -> Panels | None:
    """The learning curves over all hospitals, on the split that the first run with a value monitors."""
    followed = next((found for run in comparison.runs.values() if (found := monitored(run))), None)
    histories = {strategy_name(strategy): run.history for strategy, run in comparison.runs.items()}
    metrics = by_importance([metric for history in histories.values() for metric in history.metrics])
    named = {strategy_name(strategy): look for strategy, look in looks.items()}
    return strategy_curves(histories, followed[0], metrics, named) if followed else None


def _is_personalised(run: RunFolder) -> bool:
    """Whether every hospital ends with layers or a model of its own, beside what is shared."""
    if run.task is None:
        return False
    federation = run.task.federation
    name = federation.strategy.name
    own_models = name in ALGORITHMS.names() and bool(getattr(ALGORITHMS.get(name), "OWN_MODELS", False))
    return federation.keeps_layers or federation.fine_tunes or own_models


def _left(comparison: Comparison, hidden: set[str]) -> dict[str, dict[str, SiteLeft]]:
    left: dict[str, dict[str, SiteLeft]] = {}
    for strategy, run in comparison.runs.items():
        if hidden:
            left.setdefault(EVERYONE, {})[strategy] = what_left(EVERYONE, *run.ledgers)
        for ledger in run.ledgers:
            if ledger.times and ledger.party not in hidden:
                left.setdefault(ledger.party, {})[strategy] = what_left(ledger.party, ledger)
    return left
