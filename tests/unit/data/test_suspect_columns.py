"""Undeclared identifiers and dates are warned of; measurements and declared columns are not."""

import numpy as np

from medfed.data.columns import suspect_columns
from medfed.data.kinds import objects
from medfed.spec.task import Column, DataSpec

ROWS = 40
COLUMNS = {
    "number": np.arange(1000.0, 1000 + ROWS),
    "date": objects([f"2024-03-{1 + i % 28:02d}" for i in range(ROWS)]),
    "measured": np.linspace(0.5, 9.7, ROWS),
    "age": np.array([50.0 + i % 15 for i in range(ROWS)]),
    "ward": objects(["north", "south"] * (ROWS // 2)),
    "sparse": objects([None] * (ROWS - 5) + list("abcde")),
}


def test_what_hardly_ever_repeats_is_suspect() -> None:
    assert suspect_columns(DataSpec(), COLUMNS) == ("number", "date")


def test_what_was_declared_is_not() -> None:
    declared = DataSpec(columns={"number": Column(type="continuous"), "date": Column(type="categorical")})
    assert suspect_columns(declared, COLUMNS) == ()


def test_a_few_rows_may_all_differ() -> None:
    assert suspect_columns(DataSpec(), {name: values[:10] for name, values in COLUMNS.items()}) == ()
