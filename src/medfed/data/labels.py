"""From the label's text to targets: numbers for regression, class names for classification."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.data.columns import Place, typed_numbers
from medfed.data.kinds import Texts, level, objects, parse_levels
from medfed.spec.task import Label

NEGATIVE, POSITIVE = "negative", "positive"
"""The classes of a label that lists its positive values."""


def declared_classes(label: Label | None) -> tuple[str, ...] | None:
    """The class names in the order of their indices, where the task declares them."""
    if label is None:
        return None
    if label.positive is not None:
        return (NEGATIVE, POSITIVE)
    if label.classes is not None:
        return tuple(dict.fromkeys(level(value) for value in label.classes))
    return None


def typed_targets(values: Texts, label: Label, task_type: str, place: Place) -> NDArray[Any]:
    """Float64 targets (regression; NaN where missing) or class names (classification; None where missing).

    Raises DataError for labels outside the declared set.
    """
    if task_type == "regression":
        return typed_numbers(values, None, label.column, place)
    found = parse_levels(values)
    if label.positive is not None:
        names = _two_classes(label)
        outside = np.array([v is not None and v not in names for v in found.tolist()], dtype=bool)
        if label.negative is None:
            names |= {v: NEGATIVE for v in set(found.tolist()) - set(names) if v is not None}
            outside[:] = False
        classes = objects([names.get(v) for v in found.tolist()])
    else:
        allowed = declared_classes(label)
        outside = np.array(
            [v is not None and allowed is not None and v not in allowed for v in found.tolist()], dtype=bool
        )
        classes = found
    if outside.any():
        raise place.error(
            label.column,
            "a label outside the declared set",
            "add it to the task's label, or mend the data",
            outside,
        )
    return classes


def _two_classes(label: Label) -> dict[Any, str]:
    names: dict[Any, str] = {level(value): NEGATIVE for value in label.negative or ()}
    return names | {level(value): POSITIVE for value in label.positive or ()}
