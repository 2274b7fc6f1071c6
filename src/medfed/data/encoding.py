"""The encoding: how rows become features, agreed once and the same at every site."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.core.examples import Examples, Split
from medfed.core.messages import Message
from medfed.data.columns import Place, absent, require_columns, typed, with_missing
from medfed.data.kinds import OTHER, Kind, Texts
from medfed.data.raw import RawTable
from medfed.data.table import SiteTable
from medfed.spec.task import DataSpec

_EPSILON = 1e-9
"""Added to each standard deviation, as in the published heart benchmark (FLamby, NeurIPS 2022)."""

_CONSTANT = 1e-12
"""A standard deviation below this share of the mean is rounding: the column is constant."""


@dataclass(frozen=True, eq=False)
class Encoding(Message, wire="data.encoding"):
    """Everything needed to turn rows into features.

    columns, kinds, levels: the feature columns in order; the first level is the reference and has no feature.
    fill: what a missing value becomes: a number, or the index of a level; NaN where nothing is imputed.
    standardize: ``federated``, ``site`` or ``none``. mean, scale: of each feature (of images: each channel) over the
    training rows, float64; empty under ``none``, and under ``site`` until a site fills in its own. A scale of 0 marks a
    constant feature. features: their names (``age``, ``cp=2``, …). classes: the class names by index; empty
    for regression.
    """

    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    levels: tuple[tuple[str, ...], ...]
    fill: NDArray[np.float64]
    standardize: str
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    features: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def is_array(self) -> bool:
        """Whether the one column holds arrays, which are used as they are."""
        return self.kinds == (Kind.ARRAY,)

    @property
    def fitted(self) -> bool:
        """Whether rows can be encoded: the standardisation, if there is one, is known."""
        if self.is_array:
            return self.standardize == "none" or self.scale.size > 0
        return self.standardize == "none" or self.scale.size == len(self.features)


def new_encoding(
    kinds: dict[str, Kind], levels: dict[str, tuple[str, ...]], standardize: str, classes: tuple[str, ...]
) -> Encoding:
    """An encoding that neither imputes nor knows means yet."""
    names = [name for column, kind in kinds.items() for name in _feature_names(column, kind, levels.get(column, ()))]
    return Encoding(
        columns=tuple(kinds),
        kinds=tuple(kinds.values()),
        levels=tuple(levels.get(column, ()) for column in kinds),
        fill=np.full(len(kinds), np.nan),
        standardize=standardize,
        mean=np.empty(0),
        scale=np.empty(0),
        features=tuple(names),
        classes=classes,
    )


def _feature_names(column: str, kind: Kind, levels: tuple[str, ...]) -> list[str]:
    if kind is Kind.ARRAY:
        return []
    if kind is Kind.CONTINUOUS or (kind is Kind.BINARY and levels == ("0", "1")):
        return [column]
    return [f"{column}={level}" for level in levels[1:]]


def encode(table: SiteTable, encoding: Encoding, split: Split | None) -> Examples:
    """The features (float32) and targets of one split's rows; of all rows for None.

    Standardised by ``(x - mean) / (scale + 1e-9)``; a constant feature is 0. Raises DataError for a class
    that the encoding does not know, or a number beyond float32.
    """
    mask = table.mask(split)
    features = (
        _standardized(design(table, encoding, split), encoding, table.site)
        if not encoding.is_array
        else normalised(table.columns[encoding.columns[0]][mask], encoding, table.site)
    )
    return Examples(features, _targets(table.targets[mask], encoding, table.site))


def encode_rows(raw: RawTable, data: DataSpec, encoding: Encoding) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The features of new rows, which need no label, and the index in ``raw`` of each row that was kept.

    Rows with a missing feature are left out unless the encoding imputes, and so are those with a level that no
    training row had. Raises DataError as loading a table
    does.
    """
    place = Place("new data", raw)
    if encoding.is_array:
        return _encode_images(raw, data, encoding, place)
    require_columns(encoding.columns, raw, place.site)
    columns = {}
    kept = np.ones(raw.rows, dtype=bool)
    for index, (name, kind, fill) in enumerate(zip(encoding.columns, encoding.kinds, encoding.fill, strict=True)):
        text = with_missing(raw.columns[name], data.missing.markers)
        columns[name] = typed(text, kind, data.columns.get(name), name, place)
        if np.isnan(fill):
            kept &= ~absent(columns[name], kind)
        if kind.has_levels:
            kept &= level_codes(columns[name], encoding.levels[index], 0.0) >= 0
    matrix = _design({name: values[kept] for name, values in columns.items()}, encoding, place.site)
    return _standardized(matrix, encoding, place.site), np.flatnonzero(kept)


def _encode_images(
    raw: RawTable, data: DataSpec, encoding: Encoding, place: Place
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from medfed.data.images.loading import load_pictures

    if raw.pictures is None:
        raise DataError("the model takes images", where=f"{place.site} ({raw.source})", remedy="give images")
    loaded = load_pictures(raw.pictures, data.images, place.site)
    return normalised(loaded.array, encoding, place.site), loaded.kept


def normalised(arrays: NDArray[np.float32], encoding: Encoding, where: str) -> NDArray[np.float32]:
    """Arrays (n, channels, …) as they are, or by channel ``(x - mean) / (scale + 1e-9)``."""
    if encoding.standardize == "none":
        return arrays
    if not encoding.fitted:
        raise _unprepared(where)
    if arrays.shape[1] != encoding.mean.size:
        raise DataError(
            f"the images have {arrays.shape[1]} channels here, and {encoding.mean.size} elsewhere",
            where=where,
            remedy="say how many the model takes: data: {images: {channels: 1}}",
        )
    shape = (-1, *[1] * (arrays.ndim - 2))
    mean, scale = encoding.mean.reshape(shape), encoding.scale.reshape(shape) + _EPSILON
    return ((arrays - mean.astype(np.float32)) / scale.astype(np.float32)).astype(np.float32)


def design(table: SiteTable, encoding: Encoding, split: Split | None = None) -> NDArray[np.float64]:
    """The features of a split's rows (None: of all) before standardisation, (n, features) float64, imputed."""
    rows = np.flatnonzero(table.mask(split))
    if set(encoding.kinds) == {Kind.CONTINUOUS} and set(map(table.kinds.get, encoding.columns)) == {Kind.CONTINUOUS}:
        numbers = np.array([table.columns[name] for name in encoding.columns])
        return _filled(numbers.T.take(rows, axis=0), encoding.fill, encoding, table.site)
    kinds = zip(encoding.columns, encoding.kinds, strict=True)
    return _design({name: table.values(name, kind).take(rows) for name, kind in kinds}, encoding, table.site)


def _design(columns: dict[str, NDArray[Any]], encoding: Encoding, where: str) -> NDArray[np.float64]:
    matrix = np.empty((len(columns[encoding.columns[0]]), len(encoding.features)))
    fills = np.zeros(len(encoding.features))
    feature = 0
    for name, kind, levels, fill in zip(
        encoding.columns, encoding.kinds, encoding.levels, encoding.fill.tolist(), strict=True
    ):
        values = columns[name]
        if kind is Kind.CONTINUOUS:
            matrix[:, feature], fills[feature] = values, fill
            feature += 1
            continue
        if math.isnan(fill) and absent(values, kind).any():
            raise _nothing_to_impute(name, where)
        codes = level_codes(values, levels, fill)
        for code in range(1, len(levels)):
            matrix[:, feature] = codes == code
            feature += 1
    return _filled(matrix, fills, encoding, where)


def _filled(
    matrix: NDArray[np.float64], fills: NDArray[np.float64], encoding: Encoding, where: str
) -> NDArray[np.float64]:
    """The matrix with each feature's fill in place of missing values."""
    missing = np.isnan(matrix)
    if missing.any():
        if (unfilled := missing.any(axis=0) & np.isnan(fills)).any():
            raise _nothing_to_impute(encoding.features[int(np.argmax(unfilled))], where)
        matrix = np.where(missing, fills, matrix)
    return matrix


def _nothing_to_impute(column: str, where: str) -> DataError:
    return DataError(
        "missing values, and nothing to impute",
        where=f"{where}, column {column!r}",
        remedy="missing: {strategy: drop}",
    )


def level_codes(values: Texts, levels: tuple[str, ...], fill: float) -> NDArray[np.int64]:
    """The index of each value's level; ``fill`` where missing; ``other``, or else -1, where not listed."""
    codes: dict[Any, int] = {level: code for code, level in enumerate(levels)}
    unknown = codes.get(OTHER, -1)
    codes[None] = -1 if np.isnan(fill) else int(fill)
    return np.array([codes.get(value, unknown) for value in values.tolist()], dtype=np.int64)


def spread(rows: int, squares: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The unbiased standard deviation from squared deviations; 0 for a constant feature or a single row."""
    deviation = np.sqrt(squares / max(rows - 1, 1))
    return np.where(deviation <= _CONSTANT * np.abs(mean), 0.0, deviation)


def column_sums(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of each column, the same to the bit for any order of rows; infinite where it is too large."""
    columns = np.array(matrix.T, order="C")
    columns.sort(axis=-1)
    with np.errstate(over="ignore"):
        return np.asarray(columns.sum(axis=-1))


def squared_deviations(matrix: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of each column's squared deviations from ``mean``, as :func:`column_sums`."""
    with np.errstate(over="ignore"):
        return column_sums((matrix - mean) ** 2)


def fit_to(encoding: Encoding, table: SiteTable) -> Encoding:
    """The encoding with mean and scale of a table's own training rows. Raises DataError without any."""
    matrix = design(table, encoding, Split.TRAIN)
    rows = len(matrix)
    if rows == 0:
        raise DataError(
            "there are no training rows to standardise by", where=table.site, remedy="standardize: federated"
        )
    mean = column_sums(matrix) / rows
    return replace(encoding, mean=mean, scale=spread(rows, squared_deviations(matrix, mean), mean))


def _standardized(matrix: NDArray[np.float64], encoding: Encoding, where: str) -> NDArray[np.float32]:
    if not encoding.fitted:
        raise _unprepared(where)
    if encoding.standardize != "none":
        with np.errstate(over="ignore"):
            scaled = (matrix - encoding.mean) / (encoding.scale + _EPSILON)
        matrix = np.where(encoding.scale == 0, 0.0, scaled)
    with np.errstate(over="ignore"):
        features = matrix.astype(np.float32)
    if not np.isfinite(features).all():
        name = encoding.features[int(np.flatnonzero(~np.isfinite(features).all(axis=0))[0])]
        raise DataError(
            f"numbers too large for the model's 32-bit floats in column {name!r}",
            where=f"{where}, column {name!r}",
            remedy="use another unit",
        )
    return features


def _unprepared(where: str) -> DataError:
    return DataError(
        "the mean and scale of each feature are not known yet", where=where, remedy="prepare the data first"
    )


def _targets(targets: NDArray[Any], encoding: Encoding, site: str) -> NDArray[Any]:
    if not encoding.classes:
        return targets.astype(np.float32)
    if targets.ndim > 1:
        return targets
    codes = {name: index for index, name in enumerate(encoding.classes)}
    found = np.array([codes.get(name, -1) for name in targets.tolist()], dtype=np.int64)
    if (found < 0).any():
        raise DataError(
            "some rows have a class that the federation does not know: too few patients share it",
            where=f"{site}, label",
            remedy="declare the classes: label: {column: …, classes: [...]}",
        )
    return found


def continued(earlier: Encoding, agreed: Encoding, *, new_classes: bool) -> Encoding:
    """An earlier run's encoding for rows whose columns, levels and classes are these.

    new_classes: the classes may be others, which are then taken. Raises DataError where a feature would mean something
    else than it did, or there is a level that had none.
    """
    for what, before, now in (
        ("columns", earlier.columns, agreed.columns),
        ("kinds of columns", earlier.kinds, agreed.kinds),
        ("standardisation", (earlier.standardize,), (agreed.standardize,)),
        *((("classes", earlier.classes, agreed.classes),) if not new_classes else ()),
    ):
        if before != now:
            raise DataError(
                f"the earlier run had other {what}: {_listed(before)}, and now there are {_listed(now)}",
                remedy="continue it on rows alike, or start without it"
                + ("; `head: new` beside it begins with a last layer for other classes" if what == "classes" else ""),
            )
    for column, known, found in zip(earlier.columns, earlier.levels, agreed.levels, strict=True):
        if more := [level for level in found if level not in (*known, OTHER)]:
            raise DataError(
                f"the column {column!r} has levels that the earlier run did not know: {_listed(more)}",
                remedy="declare its levels as they were (data.columns), or start without the earlier run",
            )
    return replace(earlier, classes=agreed.classes)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
