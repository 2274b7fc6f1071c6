"""What the report of one run shows."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.report.canvas import FEDERATED_STROKE, stroke
from medfed.report.figures import ForestSeries, Panel, Panels, curves, forest, roc_curves, site_curves
from medfed.report.findings import lede, monitored, per_site
from medfed.report.folder import RunFolder
from medfed.report.records import FEDERATED
from medfed.report.tables import (
    SiteLeft,
    Table,
    final_measures,
    final_metrics,
    metrics_of,
    splits_of,
    what_left,
)
from medfed.report.words import by_importance

FEW_SITES = 6
"""Up to so many hospitals, what is told per hospital stands unfolded."""


@dataclass(frozen=True)
class RunPage:
    """Everything that the template of one run's report shows.

    split: the one measured while training. compared: whether the run is part of a comparison.
    """

    run: RunFolder
    lede: tuple[str, ...]
    per_site: tuple[str, ...]
    tables: tuple[Table, ...]
    forest: tuple[Panel, ...]
    split: str | None
    curves: Panels | None
    site_curves: tuple[tuple[str, Panels], ...]
    roc: Panels | None
    row_splits: tuple[str, ...]
    left: tuple[SiteLeft, ...]
    compared: bool
    few: bool


def run_page(run: RunFolder, *, compared: bool) -> RunPage:
    """Gather what a run's report shows."""
    followed = monitored(run)
    split, main = followed or (None, None)
    loss_first = dict.fromkeys(("loss", *by_importance(run.history.metrics)))
    facets = dict.fromkeys((main, "loss")) if main and len(run.sites) > 1 else ()
    rows = run.results.rows.values() if run.results else ()
    return RunPage(
        run=run,
        lede=lede(run),
        per_site=per_site(run),
        tables=tuple(final_metrics(run, one) for one in splits_of(run)),
        forest=_forest(run),
        split=split,
        curves=curves(run, split, tuple(loss_first)) if split else None,
        site_curves=tuple((metric, panels) for metric in facets if metric and (panels := site_curves(run, metric))),
        roc=roc_curves(run),
        row_splits=tuple(dict.fromkeys(split for by_split in rows for split in by_split)),
        left=tuple(left for ledger in run.ledgers if (left := what_left(ledger)).times or left.refusals),
        compared=compared,
        few=len(run.sites) <= FEW_SITES,
    )


def _forest(run: RunFolder) -> tuple[Panel, ...]:
    """A forest plot per final metric of the first split, the federated value marked apart."""
    splits = splits_of(run)
    if not splits or len(run.sites) < 2:
        return ()
    split, labels = splits[0], {site: site for site in run.sites} | {FEDERATED: run.everyone}
    panels = []
    for metric in metrics_of(run.metrics[split]):
        measures, intervals = final_measures(run, split, metric)
        together = {FEDERATED: measures.pop(FEDERATED)} if FEDERATED in measures else {}
        series = (
            ForestSeries(split, stroke(0), measures, intervals),
            ForestSeries(split, FEDERATED_STROKE, together, intervals),
        )
        panels.append(forest(metric, labels, series, name=f"forest-{metric}"))
    return tuple(panel for panel in panels if panel)
