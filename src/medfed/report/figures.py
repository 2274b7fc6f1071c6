"""The figures of a report: which series they show, in what look, and what they say in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

from markupsafe import Markup

from medfed.report.canvas import (
    CROWD_STROKE,
    FEDERATED_STROKE,
    MOST_STROKES,
    Dot,
    Dots,
    Stroke,
    Trace,
    dot_panel,
    line_panel,
    stroke,
    value_limits,
)
from medfed.report.finals import is_crowd, shown_sites
from medfed.report.folder import EXTERNAL, RunFolder
from medfed.report.history import History, Series
from medfed.report.records import FEDERATED, Measure
from medfed.report.words import metric_name, number, plural

Interval = tuple[float, float] | None

_BEHIND = Stroke(FEDERATED_STROKE.colour, width=1.1)
_OUTER = Stroke(stroke(0).colour, dash="6 2", width=1.1)
_SPREAD = {
    "90th percentile of hospitals": _OUTER,
    "Median of hospitals": Stroke(stroke(0).colour),
    "10th percentile of hospitals": _OUTER,
}
_MOST_SAID = 9
"""An alternative text names so many series; the tables have them all."""


@dataclass(frozen=True)
class Panel:
    """One figure: its caption and its SVG."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Legend:
    """One entry of a legend."""

    label: str
    stroke: Stroke


@dataclass(frozen=True)
class Panels:
    """Small multiples under one legend."""

    legend: tuple[Legend, ...]
    panels: tuple[Panel, ...]


def site_looks(sites: Sequence[str]) -> dict[str, Stroke]:
    """A look per site, ``federated`` last and so in front; where sites are many, they are one grey crowd."""
    few = len(sites) <= MOST_STROKES
    looks = {site: stroke(i) if few else CROWD_STROKE for i, site in enumerate(sites)}
    return looks | {FEDERATED: FEDERATED_STROKE}


def site_legend(run: RunFolder, looks: Mapping[str, Stroke], drawn: set[str]) -> tuple[Legend, ...]:
    """The legend of the parties that a figure drew."""
    sites = shown_sites(run)
    if len(sites) > MOST_STROKES:
        entries = [Legend(f"Each of {plural(len(sites), 'hospital')}", CROWD_STROKE)]
    else:
        entries = [Legend(site, looks[site]) for site in sites if site in drawn]
    return (*entries, *_federated_legend(run, looks, drawn))


def _federated_legend(run: RunFolder, looks: Mapping[str, Stroke], drawn: set[str]) -> tuple[Legend, ...]:
    return (Legend(run.everyone, looks[FEDERATED]),) if FEDERATED in drawn else ()


def _trace(series: Series, look: Stroke) -> Trace:
    return Trace(tuple(map(float, series.rounds)), series.values, look)


def _journey(label: str, series: Series) -> str:
    if series.ends is None:
        return f"{label}: no value"
    (first, start), (last, end) = series.ends
    if first == last:
        return f"{label}: {number(start)} after round {first}"
    return f"{label}: {number(start)} after round {first}, {number(end)} after round {last}"


def curves(run: RunFolder, split: str, metrics: Sequence[str]) -> Panels | None:
    """A panel per metric with a line per site, or for a crowd its spread, and the federated one in front.

    ``None`` without any value.
    """
    crowd = is_crowd(run)
    looks = (_SPREAD | {FEDERATED: FEDERATED_STROKE}) if crowd else site_looks(run.sites)
    panels, drawn = [], set()
    for metric in metrics:
        lines = spread(run, split, metric) if crowd else {s: run.history(split, s, metric) for s in run.sites}
        lines[FEDERATED] = run.history(split, FEDERATED, metric)
        known = {name: series for name, series in lines.items() if series.ends}
        if not known:
            continue
        drawn |= set(known)
        label = metric_name(metric).label
        said = [_journey(name, known[name]) for name in (FEDERATED, *looks) if name in known]
        svg = line_panel(
            tuple(_trace(series, looks[name]) for name, series in known.items()),
            name=f"curve-{split}-{metric}",
            alt=f"{label} on the {split} split by round. {'; '.join(dict.fromkeys(said[:_MOST_SAID]))}.",
        )
        panels.append(Panel(label, svg))
    if crowd:
        legend = tuple(Legend(name, look) for name, look in _SPREAD.items() if name in drawn)
        legend += _federated_legend(run, looks, drawn)
    else:
        legend = site_legend(run, looks, drawn)
    return Panels(legend, tuple(panels)) if panels else None


def spread(run: RunFolder, split: str, metric: str) -> dict[str, Series]:
    """The deciles 9, 5 and 1 of the sites that have a value, in each round in which two have one."""
    by_round: defaultdict[int, list[float]] = defaultdict(list)
    for site in run.sites:
        series = run.history(split, site, metric)
        for number_of, value in zip(series.rounds, series.values, strict=True):
            if value is not None:
                by_round[number_of].append(value)
    deciles = {r: quantiles(found, n=10, method="inclusive") for r, found in sorted(by_round.items()) if len(found) > 1}
    return {
        name: Series(tuple(deciles), tuple(Measure(value=cut[decile - 1]) for cut in deciles.values()))
        for name, decile in zip(_SPREAD, (9, 5, 1), strict=True)
    }


def site_curves(run: RunFolder, metric: str) -> Panels | None:
    """A panel per site: its own splits in front of the federated value, all on one scale."""
    splits = _facet_splits(run.history, metric)
    looks = {split: stroke(i) for i, split in enumerate(splits)}
    reference = run.history(splits[0], FEDERATED, metric) if splits else Series((), ())
    behind = [_trace(reference, _BEHIND)] if reference.ends else []
    own = {site: {split: run.history(split, site, metric) for split in splits} for site in run.sites}
    if not any(series.ends for by_split in own.values() for series in by_split.values()):
        return None
    traces = {
        site: (*behind, *(_trace(series, looks[split]) for split, series in by_split.items() if series.ends))
        for site, by_split in own.items()
    }
    limits = value_limits(tuple(trace for drawn in traces.values() for trace in drawn))
    label = metric_name(metric).label
    panels = []
    for i, (site, by_split) in enumerate(own.items()):
        said = "; ".join(_journey(split, series) for split, series in by_split.items())
        alt = f"{label} at {site} by round. {said}."
        svg = line_panel(traces[site], name=f"site-{i}-{metric}", limits=limits, alt=alt)
        valueless = not any(series.ends for series in by_split.values())
        panels.append(Panel(f"{site} (no value)" if valueless else site, svg))
    legend = [Legend(f"This hospital, {split}", look) for split, look in looks.items()]
    legend += [Legend(f"{run.everyone}, {splits[0]}", _BEHIND)] if behind else []
    return Panels(tuple(legend), tuple(panels))


def _facet_splits(history: History, metric: str) -> tuple[str, ...]:
    """The first held-out split that has the metric, and the training split if it has it too."""
    having = {split for (split, _site, name), series in history.series.items() if name == metric and series.ends}
    held_out = [split for split in history.splits if split in having and split not in ("train", EXTERNAL)]
    return (*held_out[:1], *(["train"] if "train" in having else []))


def strategy_curves(
    histories: Mapping[str, History], split: str, metrics: Sequence[str], looks: Mapping[str, Stroke]
) -> Panels | None:
    """A panel per metric with each strategy's curve over all hospitals; strategies go by their names."""
    panels, shown = [], set()
    for metric in metrics:
        lines = {strategy: history(split, FEDERATED, metric) for strategy, history in histories.items()}
        known = {strategy: series for strategy, series in lines.items() if series.ends}
        if not known:
            continue
        shown |= set(known)
        name = metric_name(metric).label
        svg = line_panel(
            tuple(_trace(series, looks[strategy]) for strategy, series in known.items()),
            name=f"strategies-{split}-{metric}",
            alt=f"{name} over all hospitals on the {split} split by round. "
            + "; ".join(_journey(strategy, series) for strategy, series in known.items())
            + ".",
        )
        panels.append(Panel(name, svg))
    legend = tuple(Legend(strategy, look) for strategy, look in looks.items() if strategy in shown)
    return Panels(legend, tuple(panels)) if panels else None


@dataclass(frozen=True)
class ForestSeries:
    """The values of one series in a forest plot, by row, with their intervals."""

    label: str
    stroke: Stroke
    measures: Mapping[str, Measure]
    intervals: Mapping[str, Interval]


def forest(metric: str, rows: Mapping[str, str], series: Sequence[ForestSeries], *, name: str) -> Panel | None:
    """Values and intervals by row (site or ``federated`` → its label); ``None`` where no row has a value."""
    drawn, said = [], []
    for one in series:
        dots = []
        for i, (row, row_label) in enumerate(rows.items()):
            value = one.measures[row].value if row in one.measures else None
            if value is not None:
                dots.append(Dot(i, value, one.intervals.get(row)))
                said.append(f"{row_label} {one.label}: {number(value)}")
        drawn.append(Dots(tuple(dots), one.stroke))
    if not said:
        return None
    label = metric_name(metric).label
    alt = f"{label}. {'; '.join(said[: 6 * _MOST_SAID])}."
    return Panel(label, dot_panel(tuple(rows.values()), tuple(drawn), name=name, alt=alt))
