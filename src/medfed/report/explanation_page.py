"""The page of a site's explanations, for its own people: it holds patients' images or values, and no name of theirs.

It is written beside ``rows.csv``, which says whose each is; both are readable by their owner alone.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from medfed.core.files import write_atomically
from medfed.evaluate.explained import Explained, Group, Method, SiteExplanation
from medfed.report.canvas import bar_panel
from medfed.report.figures import Panel
from medfed.report.pictures import grey, png, signed, slice_of, with_heat
from medfed.report.rendering import templates
from medfed.report.words import number

PAGE, ROWS = "explanation.html", "rows.csv"
_MOST_FEATURES = 25


@dataclass(frozen=True)
class Picture:
    """A picture as PNG in a data address, what it is called, and what is said in place of it."""

    caption: str
    address: str
    alt: str


@dataclass(frozen=True)
class Shown:
    """One row: its heading, its facts, and its pictures."""

    row: Explained
    facts: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ExplanationPage:
    """Everything that the template shows. groups: heading → rows, in order."""

    found: SiteExplanation
    groups: tuple[tuple[Group, tuple[Shown, ...]], ...]
    importance: Panel | None
    gradcam: bool
    gradients: bool


def write_explanation(found: SiteExplanation, folder: Path) -> Path:
    """Write the page and ``rows.csv`` into a folder, which is made where there is none; returns the page."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    shown = {group: tuple(_shown(row) for row in found.explained if row.group is group) for group in Group}
    page = ExplanationPage(
        found=found,
        groups=tuple((group, rows) for group, rows in shown.items() if rows),
        importance=_importance(found),
        gradcam=Method.GRADCAM in found.methods,
        gradients=Method.IG in found.methods,
    )
    html = templates().get_template("explanation.html.j2").render(page=page)
    write_atomically(folder / PAGE, html, mode=0o600)
    write_atomically(folder / ROWS, _rows(found), mode=0o600)
    return folder / PAGE


def _rows(found: SiteExplanation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "patient", "source"))
    writer.writerows((each.name, _safe(each.patient), _safe(each.source)) for each in found.whose)
    return text.getvalue()


def _safe(cell: str) -> str:
    """The cell as text that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t") else cell


def _shown(row: Explained) -> Shown:
    facts = [f"true: {row.true}", f"predicted: {row.predicted}"]
    if row.probability is not None:
        facts[1] += f" with probability {number(row.probability)}"
    facts.append(f"{'loss' if row.probability is not None else 'error'}: {number(row.loss)}")
    return Shown(row, "; ".join(facts), _pictures(row) if row.features.ndim > 1 else ())


def _pictures(row: Explained) -> tuple[Picture, ...]:
    """The image, the image under its Grad-CAM, and its integrated gradients; of a volume, one slice of each."""
    at = slice_of(row.features, row.cam, row.attributions)
    image = row.features if at is None else row.features[:, at]
    which = "" if at is None else f", slice {at + 1} of {row.features.shape[1]}"
    pictures = [Picture(f"Image{which}", png(grey(image)), f"{row.name}{which}")]
    if row.cam is not None:
        cam = row.cam if at is None else row.cam[at]
        alt = f"Grad-CAM of {row.name}: where the model saw {row.predicted}"
        pictures.append(Picture("Grad-CAM", png(with_heat(image, cam)), alt))
    if row.attributions is not None:
        map_ = row.attributions if at is None else row.attributions[:, at]
        alt = f"Integrated gradients of {row.name}: red for {row.predicted}, blue against it"
        pictures.append(Picture("Integrated gradients", png(signed(map_)), alt))
    return tuple(pictures)


def _importance(found: SiteExplanation) -> Panel | None:
    if not found.importance:
        return None
    ranked = sorted(found.importance.items(), key=lambda item: -item[1])[:_MOST_FEATURES]
    said = "; ".join(f"{feature}: {number(value)}" for feature, value in ranked)
    svg = bar_panel(dict(ranked), name="importance", alt=f"Mean attribution by feature. {said}.")
    return Panel("Mean |attribution| by feature", svg)
