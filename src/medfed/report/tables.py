"""The tables of a report: final metrics, strategies side by side, and what left each hospital."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from medfed.core.disclosure import WITHHELD
from medfed.report.finals import FIVE, final_values, five_numbers, is_crowd, metrics_of, shown_sites
from medfed.report.folder import EXTERNAL, Alike, Comparison, Ledger, RunFolder
from medfed.report.intervals import Counts, interval
from medfed.report.records import FEDERATED, Measure
from medfed.report.words import bound, count, metric_name, number, size

_UNSAID = "no value was written, and no reason for it"
MEAN = "Mean of hospitals"
EVERYONE = "All hospitals"


@dataclass(frozen=True)
class Cell:
    """A value as text with what belongs to it; ``note`` is a footnote's mark."""

    text: str
    error: str = ""
    interval: str = ""
    n: str = ""
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A row of cells; ``n`` where all cells rest on the same count."""

    label: str
    n: str
    cells: tuple[Cell, ...]
    summary: bool = False


@dataclass(frozen=True)
class Table:
    """A table of metrics, its column heads, and its footnotes as mark and sentence."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...]

    @property
    def intervals(self) -> bool:
        """Whether any cell has an interval."""
        return any(cell.interval for row in self.rows for cell in row.cells)

    @property
    def errors(self) -> bool:
        """Whether any cell's error is bounded."""
        return any(cell.error for row in self.rows for cell in row.cells)


@dataclass
class _Notes:
    marks: dict[str, str] = field(default_factory=dict)

    def mark(self, reason: str) -> str:
        letter = chr(ord("a") + len(self.marks) % 26) * (1 + len(self.marks) // 26)
        return self.marks.setdefault(reason, letter)

    @property
    def listed(self) -> tuple[tuple[str, str], ...]:
        return tuple((mark, reason) for reason, mark in self.marks.items())


def class_counts(run: RunFolder, split: str, site: str) -> Counts | None:
    """The rows of both classes in a split; for ``federated`` over all sites; ``None`` unless all show."""
    classes = run.results.classes if run.results else ()
    if len(classes) != 2 or not run.sheets:
        return None
    totals = [0, 0]
    for one in run.sites if site == FEDERATED else (site,):
        shown = run.sheets[one].classes.get(split, {}) if one in run.sheets else {}
        for i, name in enumerate(classes):
            n = shown.get(name)
            if n is None:
                return None
            totals[i] += n
    return Counts(negatives=totals[0], positives=totals[1])


def interval_of(run: RunFolder, split: str, site: str, metric: str, measure: Measure) -> tuple[float, float] | None:
    """The 95 % interval of a final metric: the bootstrap's where the run drew one, else where its counts were shown."""
    if run.results and run.results.appraisal.split == split:
        appraised = run.results.appraisal.sites.get(site)
        if appraised and measure.value is not None and metric in appraised.intervals:
            return appraised.intervals[metric]
    return interval(metric, measure, class_counts(run, split, site))


def final_measures(
    run: RunFolder, split: str, metric: str
) -> tuple[dict[str, Measure], dict[str, tuple[float, float] | None]]:
    """One final metric by site and ``federated``, and the intervals."""
    by_site = run.metrics.get(split, {})
    found = {site: measures[metric] for site, measures in by_site.items() if metric in measures}
    return found, {site: interval_of(run, split, site, metric, measure) for site, measure in found.items()}


def final_metrics(run: RunFolder, split: str) -> Table:
    """One split's final metrics, a row per site shown and the federated one last; for a crowd, its quantiles first.

    Held-out sites have a table of their own.
    """
    by_site, outside = run.metrics[split], split == EXTERNAL
    metrics, notes = metrics_of(by_site), _Notes()
    rows = _quantile_rows(run, split, metrics) if is_crowd(run) and not outside else []
    rows += [
        _metric_row(run, split, site, metrics, notes)
        for site in (run.external if outside else (*shown_sites(run), FEDERATED))
        if site in by_site or site != FEDERATED
    ]
    return Table(split, tuple(metric_name(metric).label for metric in metrics), tuple(rows), notes.listed)


def measured_table(
    title: str,
    by_site: Mapping[str, Mapping[str, Measure]],
    counts: Mapping[str, Counts],
    labels: Mapping[str, str],
) -> Table:
    """Metrics by site, as a table; intervals where a site's counts of both classes are known.

    labels: what stands for a name that is no hospital's; such a row is a summary.
    """
    metrics, notes, rows = metrics_of(by_site), _Notes(), []
    for site, measures in by_site.items():
        bases = {measure.n for measure in measures.values() if measure.value is not None}
        cells = []
        for metric in metrics:
            measure = measures.get(metric, Measure(reason="not measured"))
            ends = interval(metric, measure, counts.get(site))
            cells.append(_cell(measure, ends, notes, show_n=len(bases) > 1))
        n = (count(*bases) if bases else "—") if len(bases) <= 1 else "see cells"
        rows.append(Row(labels.get(site, site), n, tuple(cells), summary=site in labels))
    return Table(title, tuple(metric_name(metric).label for metric in metrics), tuple(rows), notes.listed)


def _quantile_rows(run: RunFolder, split: str, metrics: Sequence[str]) -> list[Row]:
    """Where each metric lies over all hospitals."""
    values = [list(final_values(run, split, metric).values()) for metric in metrics]
    columns = [[number(v) for v in five_numbers(found)] if len(found) > 1 else ["—"] * len(FIVE) for found in values]
    return [Row(name, "—", tuple(Cell(text) for text in texts)) for name, *texts in zip(FIVE, *columns, strict=True)]


def _metric_row(run: RunFolder, split: str, site: str, metrics: Sequence[str], notes: _Notes) -> Row:
    measures = run.metrics[split].get(site, {})
    bases = {measure.n for measure in measures.values() if measure.value is not None}
    shared = len(bases) <= 1
    cells = []
    for metric in metrics:
        measure = measures.get(metric, Measure(reason="not measured on this split"))
        ends = interval_of(run, split, site, metric, measure)
        cells.append(_cell(measure, ends, notes, show_n=not shared))
    summary = site == FEDERATED
    n = (count(*bases) if bases else "—") if shared else "see cells"
    return Row(run.everyone if summary else site, n, tuple(cells), summary)


def _cell(measure: Measure, ends: tuple[float, float] | None, notes: _Notes, *, show_n: bool) -> Cell:
    if measure.value is None:
        if measure.reason and measure.reason.startswith(WITHHELD):
            detail = measure.reason.removeprefix(WITHHELD).lstrip(" :,–—")
            return Cell(WITHHELD, note=notes.mark(detail) if detail else "")
        return Cell("—", note=notes.mark(measure.reason or _UNSAID))
    return Cell(
        number(measure.value),
        error=bound(measure.error) if measure.error else "",
        interval=f"{number(ends[0])} to {number(ends[1])}" if ends else "",
        n=count(measure.n) if show_n else "",
        note=notes.mark(measure.reason) if measure.reason else "",
    )


def side_by_side(comparison: Comparison, split: str, metric: str, sites: Sequence[str], shown: Sequence[str]) -> Table:
    """One metric, a row per site shown and a column per strategy, with the mean over all sites that all have."""
    notes, runs = _Notes(), comparison.runs
    rows = []
    for site in (*shown, FEDERATED):
        found = {s: run.metrics.get(split, {}).get(site, {}).get(metric) for s, run in runs.items()}
        if any(found.values()):
            bases = {measure.n for measure in found.values() if measure and measure.value is not None}
            n = count(*bases) if len(bases) == 1 else "see runs" if bases else "—"
            label, summary = (EVERYONE, True) if site == FEDERATED else (site, False)
            rows.append(Row(label, n, _strategy_cells(metric, tuple(found.values()), notes), summary))
    means = site_means(comparison, split, metric, sites)
    if len(means) > 1 and len(sites) > 1:
        absent = Measure(reason="no hospital has a value under every strategy")
        measures = tuple(Measure(value=means[s]) if s in means else absent for s in runs)
        rows.append(Row(MEAN, "—", _strategy_cells(metric, measures, notes), summary=True))
    return Table(metric_name(metric).label, tuple(runs), tuple(rows), notes.listed)


def _strategy_cells(metric: str, measures: Sequence[Measure | None], notes: _Notes) -> tuple[Cell, ...]:
    lower = metric_name(metric).lower_is_better
    values = [measure.value for measure in measures if measure and measure.value is not None]
    best = number(min(values) if lower else max(values)) if lower is not None and len(values) > 1 else ""
    cells = []
    for measure in measures:
        cell = _cell(measure or Measure(reason="not measured by this strategy"), None, notes, show_n=False)
        cells.append(Cell(cell.text, cell.error, note=cell.note, best=cell.text == best))
    return tuple(cells)


def shared_sites(comparison: Comparison, split: str, metric: str, sites: Sequence[str]) -> tuple[str, ...]:
    """The sites that have a value of the metric under every strategy."""
    per_strategy = [run.metrics.get(split, {}) for run in comparison.runs.values()]
    return tuple(
        site
        for site in sites
        if all((m := by_site.get(site, {}).get(metric)) and m.value is not None for by_site in per_strategy)
    )


def shared_values(
    comparison: Comparison, strategy: str, split: str, metric: str, shared: Sequence[str]
) -> tuple[float, ...]:
    """A strategy's values at the shared sites."""
    by_site = comparison.runs[strategy].metrics.get(split, {})
    return tuple(value for site in shared if (value := by_site[site][metric].value) is not None)


def site_means(comparison: Comparison, split: str, metric: str, sites: Sequence[str]) -> dict[str, float]:
    """Each strategy's unweighted mean over the sites that have a value under every strategy."""
    shared = shared_sites(comparison, split, metric, sites)
    if not shared:
        return {}
    return {s: fmean(shared_values(comparison, s, split, metric, shared)) for s in comparison.runs}


@dataclass(frozen=True)
class Left:
    """What left a site by one step: how often, what, how much."""

    step: str
    times: int
    release: str
    shapes: tuple[str, ...]
    bytes: str
    protection: str


@dataclass(frozen=True)
class SiteLeft:
    """Everything that left one site, by step."""

    site: str
    times: int
    bytes: int
    refusals: int
    steps: tuple[Left, ...]

    @property
    def size(self) -> str:
        """The total in human units."""
        return size(self.bytes)


def what_left(party: str, *ledgers: Ledger) -> SiteLeft:
    """The releases of one ledger or several by step, kind, shapes and protection, in order of first appearance."""
    times: Counter[Alike] = Counter()
    weight: Counter[Alike] = Counter()
    for ledger in ledgers:
        times.update(ledger.times)
        weight.update(ledger.bytes)
    steps = tuple(
        Left(alike.step, n, alike.release, alike.shapes, size(weight[alike]), alike.protection)
        for alike, n in times.items()
    )
    return SiteLeft(party, times.total(), weight.total(), sum(len(one.refusals) for one in ledgers), steps)


def all_that_left(run: RunFolder) -> tuple[SiteLeft, ...]:
    """What left each party that has a line of its own; for a crowd, what left all parties together comes first."""
    shown = {*shown_sites(run)} | ({one.party for one in run.ledgers} - {*run.sites})
    together = (what_left(EVERYONE, *run.ledgers),) if is_crowd(run) else ()
    parties = (*together, *(what_left(one.party, one) for one in run.ledgers if one.party in shown))
    return tuple(left for left in parties if left.times or left.refusals)
