"""Every model at every hospital, as a table whose cells are shaded by their value; of many hospitals, a summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from medfed.core.disclosure import WITHHELD
from medfed.report.finals import five_numbers
from medfed.report.records import CrossSite, CrossSiteRow, Measure
from medfed.report.words import by_importance, metric_name, number, strategy_name

MOST_CELLS = 20
"""Up to so many hospitals, each has a column."""


@dataclass(frozen=True)
class HeatCell:
    """A value as text, how good it is from 0 to 100 (None: no value), and whether the model was trained there."""

    text: str
    shade: int | None
    home: bool
    reason: str = ""


@dataclass(frozen=True)
class HeatRow:
    """One model; shared: whether it is no single hospital's."""

    label: str
    shared: bool
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class CrossTable:
    """columns: hospitals, or what is said of them where they are many. low, high: the palest and the deepest value."""

    metric: str
    split: str
    columns: tuple[str, ...]
    external: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    low: str
    high: str
    sentence: str
    summarised: bool


def cross_table(cross: CrossSite) -> CrossTable | None:
    """The main metric of every model at every hospital; None where nothing has a value."""
    sites = tuple(cross.models[0].metrics) if cross.models else ()
    metric = _main_metric(cross)
    if metric is None:
        return None
    lower = bool(metric_name(metric).lower_is_better)
    values = {
        (row.strategy, row.site, site): measures[metric].value
        for row in cross.models
        for site, measures in row.metrics.items()
        if metric in measures and measures[metric].value is not None
    }
    known = [value for value in values.values() if value is not None]
    worst, best = (max(known), min(known)) if lower else (min(known), max(known))
    summarised = len(sites) > MOST_CELLS
    many = len({row.strategy for row in cross.models if row.site}) > 1
    rows = []
    for row in cross.models:
        measures = {site: row.metrics[site].get(metric, Measure(reason="not measured")) for site in sites}
        cells = (
            _summary(measures, row.site)
            if summarised
            else tuple(_cell(m, site == row.site, worst, best) for site, m in measures.items())
        )
        rows.append(HeatRow(_label(row, several=many), not row.site, cells))
    return CrossTable(
        metric=metric,
        split=cross.split,
        columns=("At home", "Lowest elsewhere", "Lower quartile", "Median", "Upper quartile", "Highest")
        if summarised
        else sites,
        external=cross.external,
        rows=tuple(rows),
        low=number(worst),
        high=number(best),
        sentence=_sentence(cross.models, metric, sites),
        summarised=summarised,
    )


def _main_metric(cross: CrossSite) -> str | None:
    valued = {
        metric: None
        for row in cross.models
        for measures in row.metrics.values()
        for metric, measure in measures.items()
        if measure.value is not None
    }
    return next(iter(by_importance(tuple(valued))), None)


def _label(row: CrossSiteRow, *, several: bool) -> str:
    """A site's own model goes by the site, and by its strategy too where several leave such models."""
    if not row.site:
        return strategy_name(row.strategy)
    return f"{row.site}, {strategy_name(row.strategy)}" if several else row.site


def _cell(measure: Measure, home: bool, worst: float, best: float) -> HeatCell:
    if measure.value is None:
        reason = measure.reason or ""
        return HeatCell(WITHHELD if reason.startswith(WITHHELD) else "—", None, home, reason)
    shade = round(100 * (measure.value - worst) / (best - worst)) if best != worst else 50
    return HeatCell(number(measure.value), shade, home)


def _summary(measures: dict[str, Measure], home: str) -> tuple[HeatCell, ...]:
    own = measures[home].value if home in measures else None
    elsewhere = [m.value for site, m in measures.items() if site != home and m.value is not None]
    five = five_numbers(elsewhere) if len(elsewhere) > 1 else ()
    texts = ["—" if own is None else number(own), *([number(v) for v in five] or ["—"] * 5)]
    return tuple(HeatCell(text, None, False) for text in texts)


def _sentence(models: Sequence[CrossSiteRow], metric: str, sites: Sequence[str]) -> str:
    """How a hospital's own model does at home and elsewhere, and each shared model, over the hospitals that trained."""

    def value(row: CrossSiteRow, site: str) -> float | None:
        measure = row.metrics[site].get(metric)
        return measure.value if measure else None

    alone = [row for row in models if row.site and row.strategy == "local"]
    trained = {row.site for row in alone}
    home = [v for row in alone if (v := value(row, row.site)) is not None]
    away = [v for row in alone for site in trained - {row.site} if (v := value(row, site)) is not None]
    if not home or not away:
        return ""
    said = (
        f"A hospital’s own model has a mean {metric_name(metric).inline} of {number(fmean(home))} at home and of "
        f"{number(fmean(away))} at the other hospitals"
    )
    for row in models:
        found = [v for site in sites if site in trained and (v := value(row, site)) is not None]
        if not row.site and found:
            said += f"; {strategy_name(row.strategy)} has {number(fmean(found))}"
    return f"{said}."
