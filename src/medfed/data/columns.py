"""From text to typed columns: which are used, what each holds, and what is wrong with it.

Errors count rows and name columns and lines; they never quote a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.kinds import (
    Kind,
    Texts,
    as_levels,
    as_numbers,
    factorize,
    infer_kind,
    level,
    number,
    objects,
    parse_levels,
    parse_numbers,
    sort_levels,
)
from medfed.data.raw import RawTable
from medfed.spec.task import Column, DataSpec


@dataclass(frozen=True)
class Place:
    """Where a value stands, for messages: the site, and the rows as they were read."""

    site: str
    raw: RawTable

    def error(self, column: str, cause: str, remedy: str, rows: NDArray[np.bool_] | None = None) -> DataError:
        """An error about a column, with the number of rows concerned and where the first stands."""
        source = self.raw.source
        if rows is not None:
            count = int(rows.sum())
            source, first = self.raw.place(int(np.argmax(rows)), column)
            cause = f"{cause} in {count} {'row' if count == 1 else 'rows'} (first at {first})"
        return DataError(cause, where=f"{self.site} ({source}), column {column!r}", remedy=remedy)


def wanted_columns(data: DataSpec) -> tuple[str, ...]:
    """The columns that the task names and uses: features, label, id and split."""
    label = data.label.column if data.label else None
    used = [name for name, column in data.columns.items() if column.type != "ignore"]
    return tuple(dict.fromkeys([*used, *(n for n in (label, data.id, data.split.column) if n)]))


def feature_columns(data: DataSpec, raw: RawTable) -> tuple[str, ...]:
    """The columns that are features: those declared, or every one of the table where none is declared."""
    special = {data.label.column if data.label else None, data.id, data.split.column}
    named = data.columns if data.columns else raw.columns
    return tuple(n for n in named if n not in special and not (n in data.columns and data.columns[n].type == "ignore"))


_FEWEST = 20
"""Fewer values may well all differ."""


def suspect_columns(data: DataSpec, columns: dict[str, NDArray[Any]]) -> tuple[str, ...]:
    """Undeclared columns that are identifiers or dates, by the look of them: see :func:`_looks_like_a_name`."""
    return tuple(n for n, values in columns.items() if n not in data.columns and _looks_like_a_name(values))


def _looks_like_a_name(values: NDArray[Any]) -> bool:
    """Whether whole numbers are all different, or texts mostly so: they name something and measure nothing."""
    kind = Kind.CATEGORICAL if values.dtype == object else Kind.CONTINUOUS
    present = values[~absent(values, kind)]
    distinct = len(set(present.tolist()))
    if len(present) < _FEWEST:
        return False
    if kind is Kind.CATEGORICAL:
        return distinct > len(present) / 2
    return distinct == len(present) and bool(np.all(present == np.floor(present)))


def ignored_columns(data: DataSpec, raw: RawTable) -> tuple[str, ...]:
    """The table's columns that the task says nothing about, where it declares some."""
    if not data.columns:
        return ()
    known = set(wanted_columns(data)) | set(data.columns)
    return tuple(name for name in raw.columns if name not in known)


def require_columns(names: tuple[str, ...], raw: RawTable, site: str) -> None:
    """Raise DataError where the table lacks one of these columns.

    The columns found are listed only where some are known: else they may be a row of values without a header.
    """
    for name in names:
        if name not in raw.columns:
            close = difflib.get_close_matches(name, list(raw.columns), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = set(names) & set(raw.columns)
            listed = f"columns found: {', '.join(list(raw.columns)[:20])}" if known else "check the column names"
            raise DataError(
                f"there is no column {name!r}",
                where=f"{site} ({raw.source})",
                remedy=hint + listed,
            )


def with_missing(values: Texts, markers: tuple[str, ...]) -> Texts:
    """The values with None for each missing marker and each blank field; a marker -9 is also -9.0."""
    missing = {level(marker) for marker in markers} | {""}
    numbers = {number(text) for text in missing}
    codes, distinct = factorize(values)
    return objects([None if number(t) in numbers and level(t) in missing else t for t in distinct] + [None])[codes]


def absent(values: NDArray[Any], kind: Kind) -> NDArray[np.bool_]:
    """A mask of the rows in which a typed column has no value."""
    if kind is Kind.ARRAY:
        return np.zeros(len(values), dtype=bool)
    if kind is Kind.CONTINUOUS:
        return np.asarray(np.isnan(values), dtype=bool)
    return np.array([value is None for value in values.tolist()], dtype=bool)


def kind_of(values: Texts, column: Column | None) -> Kind:
    """The declared kind of a column, or the inferred one."""
    return infer_kind(values) if column is None else Kind(column.type)


def typed(values: Texts, kind: Kind, column: Column | None, name: str, place: Place) -> NDArray[Any]:
    """Text as float64 (continuous) or levels (the others). Raises DataError for values that do not fit."""
    if kind is Kind.CONTINUOUS:
        return typed_numbers(values, column, name, place)
    levels = parse_levels(values)
    if column is not None and column.levels is not None:
        allowed = {level(value) for value in column.levels}
        outside = np.array([v is not None and v not in allowed for v in levels.tolist()], dtype=bool)
        if outside.any():
            raise place.error(name, "a level outside the declared set", "add it to levels, or mend the data", outside)
    elif kind is Kind.BINARY and (found := len(set(levels.tolist()) - {None})) > 2:
        raise place.error(name, f"{found} different values in a binary column", "declare it categorical or continuous")
    return levels


def typed_numbers(values: Texts, column: Column | None, name: str, place: Place) -> NDArray[np.float64]:
    """Text as float64, NaN where missing. Raises DataError for text, infinities and values out of limits."""
    numbers, unreadable = parse_numbers(values)
    if unreadable.any():
        raise place.error(
            name,
            "text where numbers are expected",
            "write decimals with a point, declare the column categorical, or name missing.markers",
            unreadable,
        )
    if (infinite := np.isinf(numbers)).any():
        raise place.error(name, "infinite values", "mend the data, or list the text under missing.markers", infinite)
    low = -np.inf if column is None or column.minimum is None else column.minimum
    high = np.inf if column is None or column.maximum is None else column.maximum
    for bad, which in ((numbers < low, "below the minimum"), (numbers > high, "above the maximum")):
        if bad.any():
            raise place.error(name, f"values {which}", "mend the data, or the limits in the task", bad)
    return numbers


def declared_levels(columns: Mapping[str, Column], name: str) -> tuple[str, ...] | None:
    """The levels that the task declares for a column, in its order; None where it declares none."""
    column = columns.get(name)
    if column is None or column.levels is None:
        return None
    return tuple(dict.fromkeys(level(value) for value in column.levels))


def levels_in(values: Texts) -> tuple[str, ...]:
    """The distinct levels of a column, sorted."""
    return sort_levels(v for v in set(values.tolist()) if v is not None)


def agree_kinds(sites: Mapping[str, Mapping[str, Kind]]) -> dict[str, Kind]:
    """The kind of each column in the federation, from its kind at each site.

    Numbers that take only two values at one site and more at another are continuous everywhere. Raises
    DataError where sites have other columns, or text at one and numbers at another.
    """
    (first, kinds), *others = sites.items()
    agreed = dict(kinds)
    for site, found in others:
        if set(found) != set(agreed):
            name = sorted(set(found) ^ set(agreed))[0]
            raise DataError(
                f"column {name!r} is at one of {first} and {site}, but not at the other",
                remedy="declare under data.columns those that every site has",
            )
        for name, kind in found.items():
            pair = {kind, agreed[name]}
            if len(pair) > 1 and pair != {Kind.BINARY, Kind.CONTINUOUS}:
                raise DataError(
                    f"column {name!r} is {agreed[name]} at {first}, but {kind} at {site}",
                    remedy="declare its type under data.columns",
                )
            agreed[name] = Kind.CONTINUOUS if len(pair) > 1 else kind
    return agreed


def converted(values: NDArray[Any], kind: Kind, wanted: Kind) -> NDArray[Any]:
    """A column's values in another kind: levels as numbers, or numbers as levels; numbers always as float64."""
    if kind is Kind.CONTINUOUS and wanted.has_levels:
        return as_levels(values)
    if kind.has_levels and wanted is Kind.CONTINUOUS:
        return as_numbers(values)
    return values.astype(np.float64, copy=False) if kind is Kind.CONTINUOUS else values
