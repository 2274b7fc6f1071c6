"""What sites add up about their columns, and what the totals say: imputation, means, levels in use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.core.messages import Counts, Message, Moments, adds
from medfed.data.encoding import Encoding, new_encoding
from medfed.data.kinds import OTHER, Kind

LARGEST_COUNT = 2.0**40
LARGEST_SUM = 2.0**80
LARGEST_SQUARES = 2.0**128
_RESOLUTION = 2.0**-32


@dataclass(frozen=True, eq=False)
class ColumnTotals(Message, wire="data.column_totals"):
    """Over training rows: their number; per column how many have a value, and (continuous) these values' sum;
    and how many have each level, over all columns' levels one after another."""

    rows: int = adds(bound=LARGEST_COUNT)
    counts: Counts = adds(bound=LARGEST_COUNT)
    sums: Moments = adds(bound=LARGEST_SUM, resolution=_RESOLUTION)
    levels: Counts = adds(bound=LARGEST_COUNT)


@dataclass(frozen=True, eq=False)
class Deviations(Message, wire="data.deviations"):
    """Over training rows: their number, and each feature's squared deviations from the federated mean."""

    rows: int = adds(bound=LARGEST_COUNT)
    squares: Moments = adds(bound=LARGEST_SQUARES, resolution=_RESOLUTION)


@dataclass(frozen=True, eq=False)
class Intensities(Message, wire="data.intensities"):
    """Over training images: the numbers of one channel, and of each channel their sum, or once the federated mean is
    known, their squared deviations from it."""

    values: int = adds(bound=LARGEST_COUNT)
    sums: Moments = adds(bound=LARGEST_SQUARES, resolution=_RESOLUTION)


def without_empty_other(encoding: Encoding, totals: ColumnTotals) -> tuple[Encoding, ColumnTotals]:
    """Leave out ``other`` where every level that is rare at one site is named by another."""
    flat = [(column, text) for column, known in enumerate(encoding.levels) for text in known]
    used = np.array([text != OTHER or count > 0 for (_, text), count in zip(flat, totals.levels, strict=True)], bool)
    levels = {
        name: tuple(text for (column, text), kept in zip(flat, used, strict=True) if kept and column == index)
        for index, name in enumerate(encoding.columns)
    }
    kinds = dict(zip(encoding.columns, encoding.kinds, strict=True))
    pruned = new_encoding(kinds, levels, encoding.standardize, encoding.classes)
    return pruned, replace(totals, levels=totals.levels[used])


def imputation(encoding: Encoding, totals: ColumnTotals) -> NDArray[np.float64]:
    """What a missing value becomes, per column: the mean, or the index of the most frequent level (ties:
    first)."""
    fills = []
    for index, (name, levels) in enumerate(zip(encoding.columns, _by_column(encoding, totals.levels), strict=True)):
        if totals.counts[index] == 0:
            raise DataError("no training row has a value", where=f"column {name!r}", remedy="declare it: ignore")
        if encoding.kinds[index] is Kind.CONTINUOUS:
            fills.append(totals.sums[index] / totals.counts[index])
        else:
            fills.append(float(np.argmax(levels)) if len(levels) else 0.0)
    return np.array(fills, dtype=np.float64)


def feature_means(encoding: Encoding, totals: ColumnTotals) -> NDArray[np.float64]:
    """The mean of each feature over all training rows, imputed values included."""
    means: list[float] = []
    for index, levels in enumerate(_by_column(encoding, totals.levels)):
        fill, missing = encoding.fill[index], int(totals.rows - totals.counts[index])
        if encoding.kinds[index] is Kind.CONTINUOUS:
            means.append((totals.sums[index] + (missing * fill if missing else 0.0)) / totals.rows)
        else:
            imputed = np.arange(len(levels)) == fill
            means += ((levels + missing * imputed) / totals.rows)[1:].tolist()
    return np.array(means, dtype=np.float64)


def _by_column(encoding: Encoding, flat: Counts) -> list[Counts]:
    """The flat level counts, cut into those of each column."""
    return np.split(flat, np.cumsum([len(levels) for levels in encoding.levels])[:-1])
