"""Sites given as pandas data frames."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.kinds import Texts, objects
from medfed.data.raw import RawTable

if TYPE_CHECKING:
    import pandas


def raw_from_frame(frame: pandas.DataFrame, source: str = "data frame") -> RawTable:
    """The frame's rows as text, as if they had been read from a file; the index is not used.

    Raises DataError for duplicate column names, or names that are no text.
    """
    names = list(frame.columns)
    if not all(isinstance(name, str) for name in names):
        raise DataError("column names have to be text", where=source, remedy="frame.columns = frame.columns.map(str)")
    if len(set(names)) < len(names):
        raise DataError("two columns have the same name", where=source, remedy="rename one of them")
    return RawTable({name: as_texts(frame[name].to_numpy(dtype=object)) for name in names}, source)


def as_texts(values: NDArray[Any]) -> Texts:
    """Objects as the text that a file would hold; None for None, NaN and pandas' own missing values."""
    return objects([_text(value) for value in values.tolist()])


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value)
    return None if text in ("<NA>", "NaT") else text
