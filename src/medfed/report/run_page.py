"""What the report of one run shows."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.report import appraisal_figures
from medfed.report.canvas import FEDERATED_STROKE, stroke
from medfed.report.figures import ForestSeries, Panel, Panels, curves, forest, site_curves
from medfed.report.finals import is_crowd, metrics_of, shown_sites, splits_of
from medfed.report.findings import curve_note, data_overview, lede, monitored, per_site, warnings
from medfed.report.folder import Ledger, RunFolder
from medfed.report.records import FEDERATED, Absence, Refusal
from medfed.report.sent import Update, update_of
from medfed.report.tables import (
    SiteLeft,
    Table,
    all_that_left,
    final_measures,
    final_metrics,
)
from medfed.report.words import by_importance

FEW_SITES = 6
"""Up to so many hospitals, what is told per hospital stands unfolded."""

MOST_LINES = 100
"""Refusals and absences beyond so many are counted only."""


@dataclass(frozen=True)
class RunPage:
    """Everything that the template of one run's report shows.

    sites: the hospitals that have a line of their own; hidden: how many more there are. split: the one measured while
    training. refusals, absences: the first of them, with how many follow. compared: whether the run is part of a
    comparison. bootstrapped: whether there are intervals of a bootstrap. audited: whether the run's privacy check has a
    page.
    """

    run: RunFolder
    sites: tuple[str, ...]
    hidden: int
    lede: tuple[str, ...]
    per_site: tuple[str, ...]
    tables: tuple[Table, ...]
    forest: tuple[Panel, ...]
    split: str | None
    curves: Panels | None
    curve_note: str
    site_curves: tuple[tuple[str, Panels], ...]
    roc: Panels | None
    confusions: tuple[Panel, ...]
    explained: Panel | None
    bootstrapped: bool
    row_splits: tuple[str, ...]
    data_overview: str
    warnings: tuple[str, ...]
    left: tuple[SiteLeft, ...]
    update: Update | None
    refusals: tuple[tuple[str, Refusal], ...]
    more_refusals: int
    absences: tuple[Absence, ...]
    more_absences: int
    ledgers: tuple[Ledger, ...]
    compared: bool
    audited: bool
    few: bool


def run_page(run: RunFolder, *, compared: bool, audited: bool = False) -> RunPage:
    """Gather what a run's report shows."""
    followed = monitored(run)
    split, main = followed or (None, None)
    loss_first = dict.fromkeys(("loss", *by_importance(run.history.metrics)))
    facets = dict.fromkeys((main, "loss")) if main and len(run.sites) > 1 and not is_crowd(run) else ()
    sites = shown_sites(run)
    own_line = {*sites} | ({ledger.party for ledger in run.ledgers} - {*run.sites})
    rows = run.results.rows.values() if run.results else ()
    absences = run.results.absences if run.results else ()
    refusals = [(ledger.party, refusal) for ledger in run.ledgers for refusal in ledger.refusals]
    return RunPage(
        run=run,
        sites=sites,
        hidden=len(run.sites) - len(sites),
        lede=lede(run),
        per_site=per_site(run),
        tables=tuple(final_metrics(run, one) for one in splits_of(run)),
        forest=_forest(run),
        split=split,
        curves=curves(run, split, tuple(loss_first)) if split else None,
        curve_note=curve_note(run, split) if split else "",
        site_curves=tuple((metric, panels) for metric in facets if metric and (panels := site_curves(run, metric))),
        roc=appraisal_figures.curves(run),
        confusions=appraisal_figures.confusions(run),
        explained=appraisal_figures.average_explanation(run),
        bootstrapped=_bootstrapped(run),
        row_splits=tuple(dict.fromkeys(split for by_split in rows for split in by_split)),
        data_overview=data_overview(run),
        warnings=warnings(run),
        left=all_that_left(run),
        update=update_of(run),
        refusals=tuple(refusals[:MOST_LINES]),
        more_refusals=max(len(refusals) - MOST_LINES, 0),
        absences=absences[:MOST_LINES],
        more_absences=max(len(absences) - MOST_LINES, 0),
        ledgers=tuple(ledger for ledger in run.ledgers if ledger.party in own_line),
        compared=compared,
        audited=audited,
        few=len(run.sites) <= FEW_SITES,
    )


def _bootstrapped(run: RunFolder) -> bool:
    return run.results is not None and any(each.intervals for each in run.results.appraisal.sites.values())


def _forest(run: RunFolder) -> tuple[Panel, ...]:
    """A forest plot per final metric of the first split, the federated value marked apart."""
    splits = splits_of(run)
    if not splits or len(run.sites) < 2:
        return ()
    split, labels = splits[0], {site: site for site in shown_sites(run)} | {FEDERATED: run.everyone}
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
