"""A site's typed rows: what its data are, before they become numbers for a model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError, Refused
from medfed.core.examples import Split
from medfed.data.columns import (
    Place,
    absent,
    agree_kinds,
    converted,
    declared_levels,
    feature_columns,
    ignored_columns,
    kind_of,
    require_columns,
    suspect_columns,
    typed,
    wanted_columns,
    with_missing,
)
from medfed.data.findings import NONE, Findings, Tally, tallies_by_class, tallies_by_presence
from medfed.data.kinds import Kind, Texts, kind_of_targets, objects
from medfed.data.labels import declared_classes, typed_targets
from medfed.data.patients import in_several_splits, patients_of_rows, repeated_rows
from medfed.data.raw import RawTable
from medfed.data.splits import DRAWN, SPLITS, SplitCodes, assign_splits
from medfed.spec.task import DataSpec, Label

_ARRAY_HEADER = sys.getsizeof(np.empty(0))


@dataclass(frozen=True, eq=False)
class SiteTable:
    """One site's complete, labelled rows; every column has one value a row.

    columns: float64 with NaN for missing (continuous), levels with None for missing (binary, categorical), or
    float32 of shape (n, …) (array). levels: the declared levels of those columns that have any.
    ids: the patient of each row. targets: float64 (regression), class names, or masks: uint8 (n, …) class indices.
    classes: the declared classes. split: the index in SPLITS of each row's split. sources: of images, the file of each,
    for the site's own people.
    """

    site: str
    kinds: dict[str, Kind]
    columns: dict[str, NDArray[Any]]
    levels: dict[str, tuple[str, ...]]
    ids: Texts
    targets: NDArray[Any]
    classes: tuple[str, ...] | None
    split: SplitCodes
    findings: Findings
    sources: Texts | None = None

    def values(self, column: str, kind: Kind) -> NDArray[Any]:
        """A column's values as the federation understands them, which may be wider than here (see
        agree_kinds)."""
        if column not in self.columns:
            raise DataError(f"there is no column {column!r}", where=self.site, remedy="declare it, or leave it out")
        if kind.has_levels and not self.kinds[column].has_levels:
            raise Refused(f"{column!r} holds numbers here, and counting them as levels would tell single patients'")
        return converted(self.columns[column], self.kinds[column], kind)

    def mask(self, split: Split | None) -> NDArray[np.bool_]:
        """Which rows belong to a split; all of them for None."""
        if split is None:
            return np.ones(len(self.ids), dtype=bool)
        return np.asarray(self.split == SPLITS.index(split))

    @cached_property
    def _tallies(self) -> dict[Split | None, Tally]:
        """Counted once, for every request asks how many patients its split has."""
        return {split: Tally.of(self.ids, self.mask(split)) for split in (None, *SPLITS)}

    @cached_property
    def _class_tallies(self) -> dict[Split | None, dict[Any, Tally]]:
        """Of the splits that were asked about."""
        return {}

    def tally(self, split: Split | None = None) -> Tally:
        """Rows and patients of a split."""
        return self._tallies[split]

    @property
    def parts(self) -> tuple[Split, ...]:
        """The splits that the table's rows may be in."""
        return (Split.EXTERNAL,) if self.rows(Split.EXTERNAL) else DRAWN

    def rows(self, split: Split | None = None) -> int:
        """The number of rows of a split."""
        return self._tallies[split].rows

    def patients(self, split: Split | None = None) -> int:
        """The number of distinct patients of a split."""
        return self._tallies[split].patients

    def occurring_classes(self, split: Split | None = None) -> dict[Any, Tally]:
        """Rows and patients of each class that occurs in a split; of masks, see :func:`tallies_by_presence`."""
        if split not in self._class_tallies:
            mask, tallies = self.mask(split), tallies_by_class if self.targets.ndim == 1 else tallies_by_presence
            self._class_tallies[split] = tallies(self.targets[mask], self.ids[mask])
        return self._class_tallies[split]

    def class_tallies(self, classes: Iterable[str], split: Split | None = None) -> dict[str, Tally]:
        """Rows and patients of each of these classes in a split."""
        found = self.occurring_classes(split)
        return {name: found.get(name, NONE) for name in classes}

    @cached_property
    def nbytes(self) -> int:
        """About how many bytes the table holds."""
        arrays = (*self.columns.values(), self.ids, self.targets, self.split)
        mappings = (self.columns, self.kinds, self.findings.missing)
        return sum(map(_bytes_held, arrays)) + sum(map(sys.getsizeof, mappings))

    def select(self, split: Split | None) -> SiteTable:
        """The table of one split's rows."""
        return self.where(self.mask(split))

    def where(self, mask: NDArray[np.bool_]) -> SiteTable:
        """The table of the rows that a mask marks."""
        return replace(
            self,
            columns={name: values[mask] for name, values in self.columns.items()},
            ids=self.ids[mask],
            targets=self.targets[mask],
            split=self.split[mask],
            sources=None if self.sources is None else self.sources[mask],
        )


def _bytes_held(values: NDArray[Any]) -> int:
    """The bytes of an array and of the different objects that it points to."""
    objects_held = {id(value): value for value in values.tolist()} if values.dtype == object else {}
    return _ARRAY_HEADER + values.nbytes + sum(map(sys.getsizeof, objects_held.values()))


def load_table(data: DataSpec, task_type: str, site: str, raw: RawTable, seed: int = 0) -> SiteTable:
    """The typed rows of a site.

    seed: decides the splits unless ``data.split.seed`` does. Rows that repeat another in every column, the
    patient's id included, are kept once; without an id they may be two patients alike, and stay. Rows without
    a label are dropped, and under ``missing: {strategy: drop}`` those without a feature, both before splits
    are drawn. Rows with images: see :mod:`medfed.data.images.tables`. Raises DataError naming site, file and column,
    never a value.
    """
    if raw.pictures is not None:
        from medfed.data.images.tables import load_images

        return load_images(data, task_type, site, raw, seed, raw.pictures)
    if task_type == "segmentation":
        raise DataError(
            "a segmentation is of images, and these are rows of a table",
            where=f"{site} ({raw.source})",
            remedy="read images with their masks: data: {connector: npz}, image_folder or dicom",
        )
    label = label_of(data, site, raw)
    require_columns(wanted_columns(data), raw, site)
    if raw.rows == 0:
        raise DataError("there are no rows", where=f"{site} ({raw.source})", remedy="the file needs rows of values")
    place = Place(site, raw)
    texts = {n: with_missing(raw.columns[n], data.missing.markers) for n in _used(data, raw)}
    kinds, columns = typed_features(data, texts, place)
    table = SiteTable(
        site=site,
        kinds=kinds,
        columns=columns,
        levels={n: found for n in columns if (found := declared_levels(data.columns, n)) is not None},
        ids=patients_of_rows(texts, data, place),
        targets=typed_targets(texts[label.column], label, task_type, place),
        classes=declared_classes(label) if task_type != "regression" else None,
        split=np.zeros(raw.rows, dtype=np.int8),
        findings=Findings(
            read=Tally(0, 0), ignored=ignored_columns(data, raw), suspects=suspect_columns(data, columns)
        ),
    )
    given = given_splits(texts[data.split.column], data.split.column, place) if data.split.column else None
    return assembled(table, data, seed, given=given, repeated=repeated_rows(raw))


def typed_features(
    data: DataSpec, texts: dict[str, Texts], place: Place
) -> tuple[dict[str, Kind], dict[str, NDArray[Any]]]:
    """The kind and the typed values of each feature column. Raises DataError where there is none."""
    names = feature_columns(data, place.raw)
    if not names:
        raise DataError(
            "there is no feature column",
            where=f"{place.site} ({place.raw.source})",
            remedy="the table needs columns beside label and id; declare them under data.columns",
        )
    kinds = {name: kind_of(texts[name], data.columns.get(name)) for name in names}
    columns = {name: typed(texts[name], kinds[name], data.columns.get(name), name, place) for name in names}
    return kinds, columns


def assembled(
    table: SiteTable, data: DataSpec, seed: int, *, given: SplitCodes | None, repeated: NDArray[np.bool_]
) -> SiteTable:
    """The table without repeated, unlabelled and (under drop) incomplete rows, counted, and with its splits.

    given: the splits that the data themselves say. repeated: rows equal to an earlier one.
    """
    kept = ~repeated if data.id else np.ones(len(repeated), dtype=bool)
    unlabelled = kept & absent(table.targets, kind_of_targets(table.targets))
    missing = _missing(table, kept)
    incomplete = np.zeros_like(kept)
    if data.missing.strategy == "drop":
        incomplete = kept & ~unlabelled & np.logical_or.reduce([incomplete, *missing.values()])
    findings = replace(
        table.findings,
        read=Tally.of(table.ids, kept),
        duplicates=Tally.of(table.ids, repeated),
        duplicates_kept=data.id is None,
        unlabelled=Tally.of(table.ids, unlabelled),
        incomplete=Tally.of(table.ids, incomplete),
        missing={n: Tally.of(table.ids, missing[n]) if n in missing else NONE for n in table.columns},
    )
    complete = kept & ~unlabelled & ~incomplete
    if not complete.any():
        raise DataError(
            "no row is left: each lacks its label or a feature",
            where=table.site,
            remedy="check missing.markers, or impute: missing: {strategy: impute}",
        )
    split = given if given is not None else np.zeros(len(kept), dtype=np.int8)
    left = replace(table, findings=findings, split=split)
    left = left if complete.all() else left.where(complete)
    if given is None:
        return replace(left, split=_drawn_splits(left, data, seed))
    return replace(left, findings=replace(left.findings, in_several_splits=in_several_splits(left.ids, left.split)))


def _missing(table: SiteTable, kept: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """The rows without a value of each column that has any. Raises DataError for a column without a value."""
    missing = {}
    for name, values in table.columns.items():
        rows = absent(values, table.kinds[name])
        if np.count_nonzero(rows):
            missing[name] = kept & rows
            if rows[kept].all():
                where = f"{table.site}, column {name!r}"
                raise DataError("no row has a value", where=where, remedy="declare it: ignore")
    return missing


def held_out(table: SiteTable) -> SiteTable:
    """The table of a site that is held out of training: all of its rows are ``external``."""
    return replace(table, split=np.full(len(table.ids), SPLITS.index(Split.EXTERNAL), dtype=np.int8))


def merge_tables(name: str, tables: Sequence[SiteTable]) -> SiteTable:
    """One site of all sites' rows, for the pooled baseline; patients stay apart, and keep their split.

    Raises DataError where the tables' columns differ.
    """
    kinds = agree_kinds({table.site: table.kinds for table in tables})
    return SiteTable(
        site=name,
        kinds=kinds,
        columns={n: np.concatenate([t.values(n, kind) for t in tables]) for n, kind in kinds.items()},
        levels=tables[0].levels,
        ids=objects([f"{t.site}:{patient}" for t in tables for patient in t.ids]),
        targets=np.concatenate([t.targets for t in tables]),
        classes=tables[0].classes,
        split=np.concatenate([t.split for t in tables]),
        findings=merge_findings([t.findings for t in tables]),
    )


def merge_findings(found: Sequence[Findings]) -> Findings:
    """The findings of several sites, whose patients differ, as one."""

    def total(tallies: list[Tally]) -> Tally:
        return Tally(sum(t.rows for t in tallies), sum(t.patients for t in tallies))

    return Findings(
        read=total([f.read for f in found]),
        duplicates=total([f.duplicates for f in found]),
        unlabelled=total([f.unlabelled for f in found]),
        incomplete=total([f.incomplete for f in found]),
        missing={name: total([f.missing[name] for f in found]) for name in found[0].missing},
        unreadable=total([f.unreadable for f in found]),
        in_several_splits=sum(f.in_several_splits for f in found),
        ignored=tuple(dict.fromkeys(name for f in found for name in f.ignored)),
        suspects=tuple(dict.fromkeys(name for f in found for name in f.suspects)),
        duplicates_kept=found[0].duplicates_kept,
        simulated="; ".join(dict.fromkeys(f.simulated for f in found if f.simulated)),
        unnamed=any(f.unnamed for f in found),
    )


def label_of(data: DataSpec, site: str, raw: RawTable) -> Label:
    """The task's label. Raises DataError where it has none."""
    if data.label is None:
        raise DataError(
            "the task does not say which column is the label",
            where=f"{site} ({raw.source})",
            remedy="add to the task, under data:  label: COLUMN",
        )
    return data.label


def _used(data: DataSpec, raw: RawTable) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*wanted_columns(data), *feature_columns(data, raw)]))


def given_splits(values: Texts, column: str, place: Place, used: NDArray[np.bool_] | None = None) -> SplitCodes:
    """The splits that a column says; -1 for a row that says none and is not used (all are, if not given).

    Raises DataError for a row that is used and says none.
    """
    codes = np.array([_CODE.get(v.strip().lower(), -1) if v else -1 for v in values.tolist()], dtype=np.int8)
    unknown = codes < 0
    if used is not None:
        unknown &= used
    if unknown.any():
        raise place.error(column, "neither train, validation nor test", "give every row one of the three", unknown)
    return codes


_CODE = {split.value: SPLITS.index(split) for split in DRAWN}


def _drawn_splits(table: SiteTable, data: DataSpec, seed: int) -> SplitCodes:
    classes = table.targets.tolist() if table.targets.dtype == object else None
    chosen = seed if data.split.seed is None else data.split.seed
    return assign_splits(table.ids.tolist(), classes, data.split, chosen)
