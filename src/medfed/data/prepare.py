"""The federated preparation: sites describe their rows and agree, by sums, on one encoding.

Every step reaches the site's rows as ``site.resource(SiteTable)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.disclosure import releasable
from medfed.core.errors import DataError, MedFedError, Refused
from medfed.core.examples import Split
from medfed.core.messages import Message, adds
from medfed.core.protocols import Federation, SiteContext
from medfed.core.sensitivity import unmoved
from medfed.core.steps import Release, Step, step
from medfed.data.columns import absent, agree_kinds, declared_levels, levels_in
from medfed.data.encoding import (
    Encoding,
    column_sums,
    design,
    fit_to,
    level_codes,
    new_encoding,
    spread,
    squared_deviations,
)
from medfed.data.findings import Tally
from medfed.data.kinds import OTHER, Kind, Texts, number, sort_levels
from medfed.data.labels import declared_classes
from medfed.data.quality import DataSheet, data_sheet
from medfed.data.table import SiteTable
from medfed.data.totals import (
    LARGEST_SQUARES,
    LARGEST_SUM,
    ColumnTotals,
    Deviations,
    Intensities,
    feature_means,
    imputation,
    without_empty_other,
)
from medfed.spec.policy import Policy
from medfed.spec.task import DataSpec, TaskSpec


@dataclass(frozen=True, eq=False)
class Question(Message, wire="data.question"):
    """A question that says all by its step."""


@dataclass(frozen=True, eq=False)
class ColumnReport(Message, wire="data.column_report"):
    """A column's kind, and those of its undeclared levels that enough patients share."""

    name: str
    kind: Kind
    levels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LevelReport(Message, wire="data.level_report"):
    """A site's columns, and those of its undeclared classes that enough patients share."""

    columns: tuple[ColumnReport, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Adopted(Message, wire="data.adopted"):
    """sites: 1, of a site that has adopted the encoding."""

    sites: int = adds(bound=1, sensitivity=unmoved)


@step(releases=Release.SITE, reads=None)
def describe(site: SiteContext, message: Question) -> DataSheet:
    """The site's data sheet."""
    table = site.resource(SiteTable)
    minimum = site.resource(Policy).minimum_count
    return data_sheet(table, named_classes(table, minimum), minimum)


@step(releases=Release.LEVELS, reads=None)
def report_levels(site: SiteContext, message: Question) -> LevelReport:
    """The kinds of the site's columns, and the undeclared levels and classes that enough patients share."""
    table, minimum = site.resource(SiteTable), site.resource(Policy).minimum_count
    columns = []
    for name, kind in table.kinds.items():
        levels: tuple[str, ...] = ()
        if kind.has_levels and name not in table.levels:
            levels = shared_levels(table.columns[name], table.ids, minimum, rare=(OTHER,))
        columns.append(ColumnReport(name, kind, levels))
    classes = named_classes(table, minimum) if table.classes is None else ()
    return LevelReport(tuple(columns), tuple(name for name in classes if name != OTHER))


@step(releases=Release.SUM)
def moments(site: SiteContext, message: Encoding) -> ColumnTotals:
    """Counts and sums of each column over the site's training rows.

    A column in which a few of the patients have a value, fewer than the policy's minimum count, counts as one in which
    none has: its sum would be theirs.
    """
    table = site.resource(SiteTable)
    rows = np.flatnonzero(table.mask(Split.TRAIN))
    counts, numbers, levels = [], [], [np.empty(0, dtype=np.int64)]
    for name, kind, known in zip(message.columns, message.kinds, message.levels, strict=True):
        values = table.values(name, kind).take(rows)
        missing = absent(values, kind)
        if _few_have(site, table.ids[rows], missing):
            missing[:] = True
        counts.append(len(rows) - int(np.count_nonzero(missing)))
        if kind is Kind.CONTINUOUS:
            numbers.append(np.where(missing, 0.0, values))
        else:
            numbers.append(np.zeros(len(rows)))
            codes = level_codes(values, known, np.nan)[~missing]
            levels.append(np.bincount(codes[codes >= 0], minlength=len(known)))
    sums = column_sums(np.column_stack(numbers))
    _refuse_huge(sums, LARGEST_SUM, message.columns, site.site)
    return ColumnTotals(len(rows), np.array(counts, dtype=np.int64), sums, np.concatenate(levels))


@step(releases=Release.SUM)
def deviations(site: SiteContext, message: Encoding) -> Deviations:
    """Squared deviations of each feature from the federated mean over the site's training rows; see :func:`moments`."""
    table = site.resource(SiteTable)
    matrix = design(table, message, Split.TRAIN)
    squares = squared_deviations(matrix, message.mean)
    squares[_features_of_few(site, table, message)] = 0.0
    _refuse_huge(squares, LARGEST_SQUARES, message.features, site.site)
    return Deviations(len(matrix), squares)


@step(releases=Release.SUM)
def intensities(site: SiteContext, message: Encoding) -> Intensities:
    """Sums over the site's training images by channel; squared deviations, where the message knows the mean."""
    images = _images(site, message)[site.resource(SiteTable).mask(Split.TRAIN)]
    _check_images(site, message)
    sums = np.zeros(images.shape[1])
    mean = message.mean if message.mean.size else np.zeros(images.shape[1])
    power = 2 if message.mean.size else 1
    for image in images:
        by_channel = image.reshape(len(image), -1).astype(np.float64)
        sums += ((by_channel - mean[:, None]) ** power).sum(axis=1)
    _refuse_huge(sums, LARGEST_SQUARES, message.columns * len(sums), site.site)
    return Intensities(int(images[:, 0].size), sums)


@step(releases=Release.SUM, reads=None)
def adopt(site: SiteContext, message: Encoding) -> Adopted:
    """Keep the encoding; under ``standardize: site`` with the site's own mean and scale: they never leave.

    The rows that every round reads are encoded here, so that those that cannot be stop the run before it trains. Raises
    Refused for other classes than the task declares: whether labels fall into them would tell which there are.
    """
    table = site.resource(SiteTable)
    if table.classes is not None and message.classes != table.classes:
        raise Refused("the encoding has other classes than the task declares")
    if message.is_array:
        _check_images(site, message)
    site.keep(fit_to(message, table) if message.standardize == "site" else message)
    read = (Split.TRAIN, Split(site.resource(TaskSpec).monitored_split))
    for split in dict.fromkeys(table.parts if Split.EXTERNAL in table.parts else read):
        site.examples(split)
    return Adopted(1)


def _images(site: SiteContext, encoding: Encoding) -> NDArray[Any]:
    return site.resource(SiteTable).values(encoding.columns[0], Kind.ARRAY)


def _check_images(site: SiteContext, encoding: Encoding) -> None:
    """Raise DataError where images have another shape than the task says, if it says one."""
    wanted = site.resource(TaskSpec).model.input_size
    if wanted is not None:
        check_shape(site.resource(SiteTable), encoding, wanted)


def check_shape(table: SiteTable, encoding: Encoding, wanted: tuple[int, ...]) -> None:
    """Raise DataError where one input has another shape than the model takes. encoding: of arrays."""
    found = table.values(encoding.columns[0], Kind.ARRAY).shape[1:]
    if found == wanted:
        return
    raise DataError(
        f"an image has the shape {list(found)}, and the task's model takes {list(wanted)}",
        where=table.site,
        remedy=_remedy_for(found, wanted),
    )


def _remedy_for(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(found) > len(wanted):
        return (
            "read slices (of DICOM: data: {connector: {name: dicom, read: images}}), or let the model take volumes: "
            "model: {input_size: [channels, depth, height, width]}"
        )
    if len(found) < len(wanted):
        return "let the model take images: model: {input_size: [channels, height, width]}"
    return (
        f"write their shape in model.input_size, or bring the images to it: data: {{images: {{channels: {wanted[0]}, "
        f"transforms: [{{name: resize, size: {list(wanted[1:])}}}]}}}}"
    )


def _few_have(site: SiteContext, ids: NDArray[Any], missing: NDArray[np.bool_]) -> bool:
    """Whether values are missing, and those of too few patients are not."""
    if not missing.any():
        return False
    patients = len(set(ids[~missing].tolist()))
    return not releasable(patients, site.resource(Policy).minimum_count)


def _features_of_few(site: SiteContext, table: SiteTable, encoding: Encoding) -> NDArray[np.bool_]:
    """The features of columns in which too few patients have a value."""
    rows, few = np.flatnonzero(table.mask(Split.TRAIN)), []
    for name, kind, known in zip(encoding.columns, encoding.kinds, encoding.levels, strict=True):
        features = 1 if kind is Kind.CONTINUOUS else max(len(known) - 1, 0)
        missing = absent(table.values(name, kind).take(rows), kind)
        few += [_few_have(site, table.ids[rows], missing)] * features
    return np.array(few, dtype=bool)


STEPS: tuple[Step[Any, Any], ...] = (describe, report_levels, moments, deviations, intensities, adopt)


def describe_sites(fed: Federation) -> Iterator[tuple[str, DataSheet]]:
    """The data sheet of each site that gives one, as they come."""
    return fed.stream(describe, Question())


def adopt_encoding(fed: Federation, encoding: Encoding) -> None:
    """Give every site the encoding by which it turns its rows into examples."""
    fed.sum(adopt, encoding)


def offer_encoding(fed: Federation, encoding: Encoding, sites: Sequence[str]) -> tuple[str, ...]:
    """Give these sites the encoding, each by itself; those that adopted it. One that cannot stops no other."""
    adopted = []
    for site in sites:
        with contextlib.suppress(MedFedError):  # the conversation tells of it
            fed.sum(adopt, encoding, sites=(site,))
            adopted.append(site)
    return tuple(adopted)


def fit_encoding(fed: Federation, encoding: Encoding, data: DataSpec) -> Encoding:
    """The encoding with what is learnt from the sites' training rows.

    Imputed are the federated mean (continuous) and the most frequent level over all training rows; under
    ``standardize: federated`` mean and deviation come from two rounds of sums. Raises DataError where sites
    do not fit together.
    """
    if encoding.is_array:
        return _fit_to_images(fed, encoding) if encoding.standardize == "federated" else encoding
    imputes, standardizes = data.missing.strategy == "impute", encoding.standardize == "federated"
    if not (imputes or standardizes or any(OTHER in known for known in encoding.levels)):
        return encoding
    totals = fed.sum(moments, encoding)
    if totals.rows == 0:
        raise DataError("no site has training rows", remedy="raise data.split.train")
    encoding, totals = without_empty_other(encoding, totals)
    if imputes:
        encoding = replace(encoding, fill=imputation(encoding, totals))
    if not standardizes:
        return encoding
    encoding = replace(encoding, mean=feature_means(encoding, totals))
    total = fed.sum(deviations, encoding)
    return replace(encoding, scale=spread(total.rows, total.squares, encoding.mean))


def _fit_to_images(fed: Federation, encoding: Encoding) -> Encoding:
    """The encoding with mean and standard deviation of each channel over all sites' training images."""
    totals = fed.sum(intensities, encoding)
    if totals.values == 0:
        raise DataError("no site has training images", remedy="raise data.split.train")
    encoding = replace(encoding, mean=totals.sums / totals.values)
    total = fed.sum(intensities, encoding)
    return replace(encoding, scale=spread(total.values, total.sums, encoding.mean))


def agreed_columns(fed: Federation, data: DataSpec, task_type: str) -> Encoding:
    """Columns, levels and classes as declared, or else as the sites report them; no fill and no means yet."""
    kinds = {n: Kind(c.type) for n, c in data.columns.items() if c.type != "ignore"}
    special = {data.id, data.split.column, data.label.column if data.label else None}
    kinds = {n: kind for n, kind in kinds.items() if n not in special}
    levels = {n: found for n in kinds if (found := declared_levels(data.columns, n)) is not None}
    classes: tuple[str, ...] | None = () if task_type == "regression" else declared_classes(data.label)
    undeclared = [n for n, kind in kinds.items() if kind.has_levels and n not in levels]
    if undeclared or classes is None or not data.columns:
        reports = fed.ask(report_levels, Question())
        if not reports:
            raise DataError("no site reports its levels", remedy="declare columns, levels and classes in the task")
        if not data.columns:
            kinds = agree_kinds({site: {c.name: c.kind for c in report.columns} for site, report in reports.items()})
        reported = {name: [c.levels for r in reports.values() for c in r.columns if c.name == name] for name in kinds}
        for name in [n for n in kinds if kinds[n].has_levels and n not in levels]:
            kinds[name], levels[name] = _agreed_levels(name, kinds[name], reported[name], declared=name in data.columns)
        classes = _agreed_classes([r.classes for r in reports.values()]) if classes is None else classes
    standardize = data.standardize
    if Kind.ARRAY in kinds.values():
        standardize = "federated" if data.images.federated else "none"
    encoding = new_encoding(kinds, levels, standardize, classes)
    if not (encoding.features or encoding.is_array):
        raise DataError("no column has two values that enough patients share", remedy="declare its levels in the task")
    return encoding


def _agreed_levels(
    name: str, kind: Kind, reports: list[tuple[str, ...]], *, declared: bool
) -> tuple[Kind, tuple[str, ...]]:
    """The union of the reported levels; numbers that prove not to be binary are continuous."""
    union = {level for report in reports for level in report}
    named = sort_levels(union - {OTHER})
    rest = (OTHER,) if OTHER in union else ()
    if kind is Kind.CATEGORICAL:
        return kind, named + rest
    if not declared and (len(named) != 2 or rest) and all(number(text) is not None for text in named):
        return Kind.CONTINUOUS, ()
    if len(named) > 2:
        raise DataError(
            f"the sites have {len(named)} different levels in the binary column {name!r}",
            remedy="declare its levels, or declare it categorical",
        )
    return kind, (named + rest)[:2]


def _agreed_classes(reports: list[tuple[str, ...]]) -> tuple[str, ...]:
    classes = sort_levels(name for report in reports for name in report)
    several = [set(report) for report in reports if len(report) > 1]
    if any(one.isdisjoint(other) for one in several for other in several):
        raise DataError(
            f"the sites code the label unlike each other: together they have the classes {', '.join(classes)}",
            where="label",
            remedy="code it alike at all sites, or declare it: label: {column: …, positive: [1, yes]}",
        )
    if len(classes) < 2:
        raise DataError(
            "fewer than two classes are shared by enough patients",
            where="label",
            remedy="declare them: label: {column: …, classes: [...]}",
        )
    return classes


def named_classes(table: SiteTable, minimum: int) -> tuple[str, ...]:
    """The declared classes, or those that enough patients share and ``other``; none for numbers and masks."""
    if table.targets.dtype != object:
        return ()
    return table.classes or shared_levels(table.targets, table.ids, minimum, rare=(OTHER,))


def shared_levels(values: Texts, ids: Texts, minimum: int, *, rare: tuple[str, ...]) -> tuple[str, ...]:
    """The levels that at least ``minimum`` patients share, sorted; then ``rare`` where there are others."""
    tallies = {level: Tally.of(ids, values == level) for level in levels_in(values)}
    shared = tuple(level for level, tally in tallies.items() if tally.patients >= minimum)
    return shared + (rare if len(shared) < len(tallies) and OTHER not in shared else ())


def _refuse_huge(values: NDArray[np.float64], bound: float, names: tuple[str, ...], site: str) -> None:
    if (huge := ~(np.abs(values) <= bound)).any():
        name = names[int(np.argmax(huge))]
        raise DataError(
            f"numbers too large to be added in column {name!r}",
            where=f"{site}, column {name!r}",
            remedy="use another unit",
        )
