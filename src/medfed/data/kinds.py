"""What a column is, and how its text becomes numbers or levels."""

from __future__ import annotations

import enum
import math
import re
import sys
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Texts: TypeAlias = NDArray[Any]
"""An object array of text, with None where a value is missing."""

OTHER = "other"
"""The level that stands for all levels that are too rare to be named."""

_CANONICAL = re.compile(r"-?(0|[1-9]\d{0,14})?(\.\d+)?")


class Kind(enum.StrEnum):
    """What a column holds. ``array``: one array per patient (an image, say), used as it is."""

    CONTINUOUS = "continuous"
    BINARY = "binary"
    CATEGORICAL = "categorical"
    ARRAY = "array"

    @property
    def has_levels(self) -> bool:
        """Whether the column's values are levels."""
        return self in (Kind.BINARY, Kind.CATEGORICAL)


def kind_of_targets(targets: NDArray[Any]) -> Kind:
    """What targets are: numbers, class names, or masks."""
    if targets.ndim > 1:
        return Kind.ARRAY
    return Kind.CONTINUOUS if targets.dtype == np.float64 else Kind.CATEGORICAL


def number(text: str) -> float | None:
    """The number that a text writes (infinities too), or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) or "_" in text else value


def parse_numbers(values: Texts) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The numbers, NaN where missing or unreadable, and a mask of the unreadable."""
    codes, distinct = factorize(values)
    parsed = [number(text) for text in distinct]
    table = np.array([np.nan if n is None else n for n in parsed] + [np.nan], dtype=np.float64)
    unreadable = np.array([n is None for n in parsed] + [False])
    return table[codes], unreadable[codes]


def level(value: str | int | float | bool) -> str:
    """The one spelling of a level: ``1``, ``1.0`` and ``1.00`` are the same level, and so are ``True`` and
    ``true``.

    Codes with leading zeros and numbers of more than 15 digits keep their spelling: they are names, not
    numbers.
    """
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    if text not in ("", "-") and _CANONICAL.fullmatch(text):
        parsed = float(text)
        return str(int(parsed)) if parsed.is_integer() else repr(parsed)
    return text


def parse_levels(values: Texts) -> Texts:
    """Each value as its level, None where missing; equal levels of all tables are one text in memory."""
    codes, distinct = factorize(values)
    return objects([sys.intern(level(text)) for text in distinct] + [None])[codes]


def sort_levels(levels: Iterable[str]) -> tuple[str, ...]:
    """Distinct levels: numbers in numeric order, then text in alphabetical order."""

    def key(text: str) -> tuple[bool, float, str]:
        parsed = number(text)
        return (parsed is None, parsed or 0.0, text)

    return tuple(sorted(set(levels), key=key))


def infer_kind(values: Texts) -> Kind:
    """The kind of an undeclared column: numbers are continuous, or binary where at most two differ."""
    distinct = factorize(values)[1]
    numbers = {number(text) for text in distinct}
    if None in numbers:
        return Kind.CATEGORICAL
    few = len(numbers) <= 2 and len({level(text) for text in distinct}) <= 2
    return Kind.BINARY if few else Kind.CONTINUOUS


def as_numbers(levels: Texts) -> NDArray[np.float64]:
    """Levels that write numbers, as numbers."""
    return parse_numbers(levels)[0]


def as_levels(numbers: NDArray[np.float64]) -> Texts:
    """Numbers as levels, None for NaN."""
    return objects([None if np.isnan(n) else level(repr(float(n))) for n in numbers])


def factorize(values: Texts) -> tuple[NDArray[np.intp], Texts]:
    """The index of each value among the distinct ones (-1 where missing), and these in their order."""
    listed = values.tolist()
    distinct = [value for value in dict.fromkeys(listed) if value is not None]
    index = {value: code for code, value in enumerate(distinct)} | {None: -1}
    return np.fromiter(map(index.__getitem__, listed), np.intp, len(listed)), objects(distinct)


def objects(values: list[Any]) -> Texts:
    """An object array of the values, whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
