"""Whose the rows are: the patient of each, and rows that repeat another."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from medfed.data.columns import Place, absent, with_missing
from medfed.data.kinds import Kind, Texts, objects
from medfed.data.raw import RawTable
from medfed.spec.task import DataSpec


def patients_of_rows(texts: dict[str, Texts], data: DataSpec, place: Place) -> Texts:
    """The patient of each row: the id column, or else a name for each row made from what it holds.

    Equal rows without ids are told apart by their count, so names do not depend on the order of rows.
    """
    if data.id:
        return named_patients(texts[data.id], data.id, place)
    seen: dict[str, int] = {}
    names = []
    for row in zip(*place.raw.columns.values(), strict=True):
        content = hashlib.blake2b(repr(row).encode(), digest_size=16).hexdigest()
        seen[content] = seen.get(content, 0) + 1
        names.append(f"{content}#{seen[content]}")
    return objects(names)


def id_column(data: DataSpec, raw: RawTable, used: NDArray[np.bool_] | None = None) -> str | None:
    """The column that says whose each row is: the task's, or else the connector's own, if each row used has a value."""
    if data.id is not None or raw.patient is None:
        return data.id
    unnamed = absent(with_missing(raw.columns[raw.patient], data.missing.markers), Kind.CATEGORICAL)
    return None if (unnamed if used is None else unnamed & used).any() else raw.patient


def named_patients(values: Texts, column: str, place: Place, used: NDArray[np.bool_] | None = None) -> Texts:
    """The ids of a column. Raises DataError where a row has none; where one of those used has, if some are not."""
    ids = objects([None if v is None else v.strip() for v in values.tolist()])
    unnamed = absent(ids, Kind.CATEGORICAL)
    if (unnamed := unnamed if used is None else unnamed & used).any():
        raise place.error(column, "no patient id", "give every row the id of its patient", unnamed)
    return ids


def in_several_splits(ids: Texts, split: NDArray[np.int8]) -> int:
    """How many patients have rows in more than one split."""
    pairs = set(zip(ids.tolist(), split.tolist(), strict=True))
    return len(pairs) - len({patient for patient, _ in pairs})


def repeated_rows(raw: RawTable) -> NDArray[np.bool_]:
    """A mask of the rows that equal an earlier one in every column."""
    repeated = np.zeros(raw.rows, dtype=bool)
    seen: set[tuple[str | None, ...]] = set()
    for index, row in enumerate(zip(*(values.tolist() for values in raw.columns.values()), strict=True)):
        repeated[index] = row in seen
        seen.add(row)
    return repeated
