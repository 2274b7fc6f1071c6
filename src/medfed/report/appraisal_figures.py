"""The figures of a classifier's final appraisal: ROC, precision-recall, calibration and confusion."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from medfed.core.disclosure import WITHHELD
from medfed.report.canvas import Stroke, Trace, bar_panel, map_panel, matrix_panel, roc_panel, unit_panel
from medfed.report.figures import Legend, Panel, Panels, site_legend, site_looks
from medfed.report.finals import shown_sites
from medfed.report.folder import EXTERNAL, RunFolder
from medfed.report.records import FEDERATED, PrecisionRecall, SiteAppraisal
from medfed.report.words import count, listed, number

MOST_FEATURES = 25
"""Features that have a bar."""

MOST_CLASSES = 10
"""A confusion of more classes is not drawn."""


def curves(run: RunFolder) -> Panels | None:
    """A panel each of the ROC, precision-recall and calibration curves that there are; ``None`` without any."""
    looks = site_looks((*shown_sites(run), *run.external))
    drawn = (_roc(run, looks), _precision_recall(run, looks), _calibration(run, looks))
    panels = [panel for panel, _ in filter(None, drawn)]
    if not panels:
        return None
    parties = {party for _, known in filter(None, drawn) for party in known}
    outside = tuple(Legend(f"{site} (held out)", looks[site]) for site in run.external if site in parties)
    return Panels((*site_legend(run, looks, parties), *outside), tuple(panels))


def _roc(run: RunFolder, looks: Mapping[str, Stroke]) -> tuple[Panel, list[str]] | None:
    roc = run.results.roc if run.results else {}
    known = {party: roc[party] for party in looks if party in roc and roc[party].fpr}
    if not known:
        return None
    traces = tuple(Trace(curve.fpr, curve.tpr, looks[party]) for party, curve in known.items())
    return Panel("ROC", roc_panel(traces, name="roc", alt=f"ROC curves of {_parties(known)}.")), list(known)


def _precision_recall(run: RunFolder, looks: Mapping[str, Stroke]) -> tuple[Panel, list[str]] | None:
    appraised = _appraised(run)
    known = {p: appraised[p].precision_recall for p in looks if p in appraised and appraised[p].precision_recall.recall}
    if not known:
        return None
    share = known[FEDERATED].precision[-1] if FEDERATED in known else 0.0
    svg = unit_panel(
        tuple(Trace(*_steps(curve), looks[party]) for party, curve in known.items()),
        name="precision-recall",
        alt=f"Precision-recall curves of {_parties(known)}.",
        axes=("recall", "precision"),
        reference=(share, share),
    )
    return Panel("Precision-recall", svg), list(known)


def _steps(curve: PrecisionRecall) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The curve as steps: between two thresholds precision is that of the lower one, as average precision takes it."""
    points = [(curve.recall[0], curve.precision[0])]
    for recall, precision in zip(curve.recall[1:], curve.precision[1:], strict=True):
        points += [(points[-1][0], precision), (recall, precision)]
    x, y = zip(*points, strict=True)
    return x, y


def _calibration(run: RunFolder, looks: Mapping[str, Stroke]) -> tuple[Panel, list[str]] | None:
    appraised = _appraised(run)
    known = {p: appraised[p].calibration for p in looks if p in appraised and appraised[p].calibration.predicted}
    if not known:
        return None
    errors = [
        f"{run.everyone if party == FEDERATED else party}: expected calibration error {number(value)}"
        for party in known
        if (value := _error(run, party)) is not None
    ]
    svg = unit_panel(
        tuple(Trace(curve.predicted, curve.observed, looks[party]) for party, curve in known.items()),
        name="calibration",
        alt=f"Reliability of {_parties(known)}. {'; '.join(errors[:9])}.",
        axes=("predicted probability", "share observed"),
        reference=(0, 1),
        marked=True,
    )
    return Panel("Calibration", svg), list(known)


def _error(run: RunFolder, party: str) -> float | None:
    split = run.results.appraisal.split if run.results else ""
    split = EXTERNAL if party in run.external else split
    measure = run.metrics.get(split, {}).get(party, {}).get("ece")
    return measure.value if measure else None


def confusions(run: RunFolder) -> tuple[Panel, ...]:
    """A panel for each party whose confusion is shown, the federated one first."""
    classes = run.results.classes if run.results else ()
    if len(classes) > MOST_CLASSES:
        return ()
    parties = {FEDERATED: run.everyone} | {site: site for site in (*shown_sites(run), *run.external)}
    appraised = _appraised(run)
    known = {party: appraised[party].confusion for party in parties if party in appraised}
    return tuple(
        Panel(parties[party], _matrix(cells, classes, name=f"confusion-{i}", party=parties[party]))
        for i, (party, cells) in enumerate(known.items())
        if len(cells) == len(classes)
    )


def average_explanation(run: RunFolder) -> Panel | None:
    """What the model looks at on average over sites: a bar for each feature, or a map of the image."""
    found = run.results.explanations if run.results else None
    if found is None:
        return None
    if found.map:
        svg = map_panel(found.map, name="average-map", alt=_where(found.map))
        return Panel("Where in the image, on average", svg)
    ranked = dict(sorted(found.features.items(), key=lambda item: -item[1])[:MOST_FEATURES])
    said = "; ".join(f"{feature}: {100 * share:.0f} %" for feature, share in ranked.items())
    percents = {feature: 100 * share for feature, share in ranked.items()}
    svg = bar_panel(percents, name="average-shares", alt=f"Share of the attribution by feature. {said}.")
    return Panel("Share of the attribution by feature, in %", svg)


def _where(cells: tuple[tuple[float, ...], ...]) -> str:
    """Where a map is highest, in words."""
    places = [(value, i, j) for i, line in enumerate(cells) for j, value in enumerate(line)]
    _, row, column = max(places)
    height, width = 100 * (row + 0.5) / len(cells), 100 * (column + 0.5) / len(cells[row])
    return f"The average map is highest {height:.0f} % from the top and {width:.0f} % from the left of the image."


def _matrix(cells: tuple[tuple[int | None, ...], ...], classes: tuple[str, ...], *, name: str, party: str) -> Markup:
    shares = tuple(_shares(row) for row in cells)
    texts = tuple(
        tuple(_text(n, share) for n, share in zip(row, known, strict=True))
        for row, known in zip(cells, shares, strict=True)
    )
    said = [
        f"of class {true}, {count(n)} predicted as {predicted}"
        for true, row in zip(classes, cells, strict=True)
        for predicted, n in zip(classes, row, strict=True)
    ]
    return matrix_panel(shares, texts, classes, name=name, alt=f"Confusion, {party}: {'; '.join(said[:16])}.")


def _shares(row: tuple[int | None, ...]) -> tuple[float | None, ...]:
    """Each cell's share of its row, where all of the row is shown."""
    known = [n for n in row if n is not None]
    if len(known) < len(row) or not sum(known):
        return (None,) * len(row)
    return tuple(n / sum(known) for n in known)


def _text(n: int | None, share: float | None) -> str:
    if n is None:
        return WITHHELD
    return count(n) if share is None else f"{count(n)}\n{100 * share:.0f} %"


def _appraised(run: RunFolder) -> Mapping[str, SiteAppraisal]:
    return run.results.appraisal.sites if run.results else {}


def _parties(known: Mapping[str, object]) -> str:
    return listed(list(known)) if len(known) < 9 else f"{len(known)} parties"
