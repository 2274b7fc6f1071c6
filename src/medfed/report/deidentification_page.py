"""The readable report of a de-identified copy: counts and reasons, no identifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medfed.core.files import write_atomically
from medfed.data.deidentify.summary import REASONS, Summary
from medfed.report.rendering import templates

_DEEDS = {
    "kept": "kept as they were",
    "replaced": "given a pseudonym or a dummy",
    "uids_replaced": "UIDs replaced by keyed ones",
    "dates_shifted": "dates shifted, times of day kept",
    "emptied": "emptied",
    "removed": "removed",
    "private_removed": "removed, since private",
    "texts_removed": "removed, since their words are no terms of the standard",
}


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    label: str
    count: int


@dataclass(frozen=True)
class DeidentificationPage:
    """Everything that the template shows."""

    summary: Summary
    quarantined: tuple[Row, ...]
    refused: tuple[Row, ...]
    deeds: tuple[Row, ...]
    texts: tuple[Row, ...]


def write_deidentification_report(summary: Summary, folder: Path) -> Path:
    """Write ``report.html`` into the copy. Raises RunFolderError where it cannot be written."""
    page = DeidentificationPage(
        summary,
        _rows({REASONS[code]: n for code, n in summary.quarantined.items()}),
        _rows({REASONS[code]: n for code, n in summary.refused.items()}),
        tuple(Row(label, summary.deeds[code]) for code, label in _DEEDS.items()),
        _rows(summary.texts),
    )
    path = folder / "report.html"
    write_atomically(path, templates().get_template("deidentification.html.j2").render(page=page))
    return path


def _rows(counts: dict[str, int]) -> tuple[Row, ...]:
    return tuple(Row(label, n) for label, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
