"""The data sheet: what a site may say about its rows before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from medfed.core.disclosure import releasable, suppress_cells
from medfed.core.examples import Split
from medfed.core.messages import Message
from medfed.data.findings import Findings, Tally
from medfed.data.kinds import OTHER, objects
from medfed.data.table import SiteTable

_FEW_PATIENTS = 50
_IMBALANCE = 10
_MUCH_MISSING = 0.2

UNNAMED = (
    "nothing says whose the images are, and each counts as a patient of its own: splits may leak, and small counts are "
    "counts of images (name the column of patients by data.id)"
)
"""The warning of images without patients, which the terminal repeats."""


@dataclass(frozen=True, eq=False)
class Cell(Message, wire="data.cell"):
    """A count of rows under a name; None where it is withheld."""

    name: str
    count: int | None


@dataclass(frozen=True, eq=False)
class ClassCounts(Message, wire="data.class_counts"):
    """Rows of each class in one split."""

    split: str
    classes: tuple[Cell, ...]


@dataclass(frozen=True, eq=False)
class DataSheet(Message, wire="data.sheet"):
    """One site's data sheet. Counts are of rows; None is a count withheld because too few patients stand
    behind it.

    rows, patients: those that can be used. splits: rows of each split. classes: rows of each class in each
    split. missing: rows without a value in each column, before any were dropped. duplicates: rows that repeat
    another. incomplete, unlabelled: rows dropped for want of a feature or of the label. warnings: sentences
    for the reader.
    """

    rows: int | None
    patients: int | None
    splits: tuple[Cell, ...]
    classes: tuple[ClassCounts, ...]
    missing: tuple[Cell, ...]
    duplicates: int | None
    incomplete: int | None
    unlabelled: int | None
    warnings: tuple[str, ...]


def data_sheet(table: SiteTable, classes: tuple[str, ...], minimum: int) -> DataSheet:
    """The sheet of a table whose counts of 1…minimum-1 patients are withheld, with what would give them away.

    classes: the class names to count, of which ``other`` stands for all not named; empty for regression.
    """
    named = table.targets
    if OTHER in classes:
        named = objects([name if name in classes else OTHER for name in named])
    table = replace(table, targets=named)  # a copy, whose counts go with it
    whole, found = table.tally(), table.findings
    splits = shown({split.value: table.tally(split) for split in table.parts}, minimum)
    by_split = {s: _class_counts(table, classes, s, splits[s], minimum) for s in splits if classes}
    missing = {name: shown_share(tally, found.read, minimum) for name, tally in found.missing.items()}
    return DataSheet(
        rows=alone(whole, minimum),
        patients=whole.patients if releasable(whole.patients, minimum) else None,
        splits=cells(splits),
        classes=tuple(ClassCounts(split, cells(counts)) for split, counts in by_split.items()),
        missing=cells(missing),
        duplicates=alone(found.duplicates, minimum),
        incomplete=alone(found.incomplete, minimum),
        unlabelled=alone(found.unlabelled, minimum),
        warnings=tuple(_warnings(table, classes, minimum, missing)),
    )


def alone(tally: Tally, minimum: int) -> int | None:
    """The rows of a tally that stands by itself, or None."""
    return tally.rows if releasable(tally.patients, minimum) else None


def shown(tallies: Mapping[str, Tally], minimum: int) -> dict[str, int | None]:
    """The rows of tallies whose total is shown too; those of few patients and complements are withheld."""
    patients = suppress_cells({name: tally.patients for name, tally in tallies.items()}, minimum)
    return {name: None if patients[name] is None else tally.rows for name, tally in tallies.items()}


def shown_share(part: Tally, whole: Tally, minimum: int) -> int | None:
    """The rows of a part; None where too few patients are in it or outside it."""
    rest = Tally(whole.rows - part.rows, max(whole.patients - part.patients, 0))
    return shown({"part": part, "rest": rest}, minimum)["part"]


def cells(counts: Mapping[str, int | None]) -> tuple[Cell, ...]:
    """Counts as a message's cells."""
    return tuple(Cell(name, count) for name, count in counts.items())


def _class_counts(
    table: SiteTable, classes: tuple[str, ...], split: str, rows: int | None, minimum: int
) -> dict[str, int | None]:
    """The classes of one split; none where the split's own count is withheld, for they add up to it."""
    if rows is None:
        return dict.fromkeys(classes)
    return shown(table.class_tallies(classes, Split(split)), minimum)


def _warnings(table: SiteTable, classes: tuple[str, ...], minimum: int, missing: Mapping[str, int | None]) -> list[str]:
    found = []
    patients = table.patients()
    if patients < max(_FEW_PATIENTS, minimum):
        found.append(f"fewer than {max(_FEW_PATIENTS, minimum)} patients: what is measured here is uncertain")
    found += _class_warnings(table, classes, minimum) if classes else []
    for name, count in missing.items():
        if count is not None and count > _MUCH_MISSING * table.findings.read.rows:
            found.append(f"column {name!r}: more than {_MUCH_MISSING:.0%} of the rows have no value")
    return found + _reading_warnings(table.findings, minimum)


def _class_warnings(table: SiteTable, classes: tuple[str, ...], minimum: int) -> list[str]:
    """Warnings about classes, from counts that may be shown only."""
    found = []
    counts = shown(table.class_tallies(classes), minimum)
    present = [name for name, count in counts.items() if count != 0]
    if len(present) == 1 and present != [OTHER]:
        found.append(f"all rows are of class {present[0]!r}: an AUC does not exist here")
    known = [count for count in counts.values() if count]
    if len(known) > 1 and max(known) > _IMBALANCE * min(known):
        found.append(f"classes are unbalanced beyond 1:{_IMBALANCE}")
    if len(present) > 1:
        for split in table.parts:
            in_split = table.class_tallies(classes, split)
            lacking = [name for name in present if in_split[name].rows == 0]
            if lacking and table.rows(split):
                found.append(f"no row of class {', '.join(map(repr, lacking))} among those for {split.value}")
    return found


def _reading_warnings(findings: Findings, minimum: int) -> list[str]:
    found = []
    if findings.unnamed:
        found.append(UNNAMED)
    if findings.simulated:
        found.append(f"images were changed as another scanner would give them: {findings.simulated}")
    if findings.ignored:
        found.append(f"columns that the task does not use: {', '.join(findings.ignored)}")
    for name in findings.suspects:
        found.append(
            f"column {name!r} was taken for a feature but looks like an identifier or a date: declare its type"
        )
    if findings.in_several_splits:
        found.append("patients are in more than one split: what is measured on test rows is too good")
    if findings.elsewhere:
        found.append("patients have ids that are at another site too: people who count twice, or ids that sites reuse")
    if alone(findings.unreadable, minimum):
        share = findings.unreadable.rows / (findings.unreadable.rows + findings.read.rows)
        found.append(f"images that cannot be read were left out: {share:.1%} of the files")
    if alone(findings.duplicates, minimum):
        kept = "kept, as without ids they may be patients alike" if findings.duplicates_kept else "kept once"
        found.append(f"rows repeat others in every column ({kept})")
    return found
