"""What a label table beside images says of each: a CSV file, joined by a column of keys."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.columns import require_columns
from medfed.data.connectors.csv import read_csv
from medfed.data.kinds import Texts, objects
from medfed.data.raw import LabelTable, RawTable
from medfed.spec.task import DataSpec, Plugin

USUAL = "labels.csv"
"""The label table's name where none is given."""


def table_of(folder: Path, given: str | None, where: str) -> Path | None:
    """The label table's place: the file named, which has to be in the folder, or ``labels.csv`` if there is one.

    Raises DataError for a name that leads out of the folder, or a file that is not there.
    """
    path = (folder / (given or USUAL)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError("the label table leads out of the folder of images", where=where, remedy="put it into it")
    if path.is_file():
        return path
    if given is None:
        return None
    raise DataError(f"there is no label table {given!r}", where=where, remedy="name a .csv file in the folder")


def joined(
    columns: dict[str, Texts], table: Path, key: str, by: str, where: str
) -> tuple[dict[str, Texts], LabelTable]:
    """The images' own columns and the table's, and where in it these stand.

    They are joined by ``key`` in the table and ``by`` among the images' columns. Keys are compared without outer
    spaces. Images whose key the table lacks have no value in its columns, and lines without an image are not used.
    Raises DataError, which quotes no key, where the table lacks the column, repeats a key, or knows none of the images.
    """
    raw = read_csv(table, DataSpec(connector=Plugin(name="csv")), where)
    where = f"{where} ({table.name})"
    require_columns((key,), raw, where)
    keys = [None if value is None else value.strip() for value in raw.columns[key].tolist()]
    lines = {value: row for row, value in enumerate(keys) if value}
    _refuse_repeated(raw, keys, key, where)
    found = np.array([lines.get(value or "", -1) for value in columns[by].tolist()], dtype=np.int64)
    if len(found) and (found < 0).all():
        raise DataError(
            f"the column {key!r} has the key of no image",
            where=where,
            remedy=f"its values have to be what the connector gives as {by!r}: see the connector's key",
        )
    own = {name: values for name, values in columns.items() if name not in raw.columns or name == by}
    given = {name: _taken(values, found) for name, values in raw.columns.items() if name != by}
    return own | given, LabelTable(table.name, frozenset(given), np.where(found < 0, -1, raw.first_line + found))


def _refuse_repeated(raw: RawTable, keys: list[str | None], key: str, where: str) -> None:
    counts = Counter(value for value in keys if value)
    if repeated := [row for row, value in enumerate(keys) if value and counts[value] > 1]:
        raise DataError(
            f"the column {key!r} repeats a key in {len(repeated)} lines (first at {raw.place(repeated[0], key)[1]})",
            where=where,
            remedy="leave one line for each key",
        )


def _taken(values: NDArray[Any], rows: NDArray[np.int64]) -> Texts:
    listed = values.tolist()
    return objects([listed[row] if row >= 0 else None for row in rows.tolist()])
