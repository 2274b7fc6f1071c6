from __future__ import annotations

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.codec import decode, encode
from medfed.data.frames import raw_from_frame
from medfed.data.prepare import named_classes
from medfed.data.quality import DataSheet, data_sheet
from medfed.data.table import load_table
from medfed.spec.task import DataSpec


def sheet(frame, *, minimum=5, **data):
    spec = DataSpec.model_validate({"label": "y", "split": {"column": "part"}, **data})
    table = load_table(spec, "classification", "North", raw_from_frame(pandas.DataFrame(frame)))
    return data_sheet(table, named_classes(table, minimum), minimum)


def rows(**counts):
    """A frame of so many rows of each class in each split: ``train_a=10``."""
    keys = [key.split("_") for key, n in counts.items() for _ in range(n)]
    return {"x": [i / 7 for i in range(len(keys))], "y": [name for _, name in keys], "part": [part for part, _ in keys]}


def named(cells):
    return {cell.name: cell.count for cell in cells}


def by_split(found):
    return {split.split: named(split.classes) for split in found.classes}


def test_counts_that_many_patients_stand_behind_are_shown():
    found = sheet(rows(train_a=40, train_b=30, test_a=20, test_b=10))
    assert (found.rows, found.patients) == (100, 100)
    assert named(found.splits) == {"train": 70, "validation": 0, "test": 30}
    assert by_split(found)["train"] == {"a": 40, "b": 30}
    assert found.warnings == ()


def test_small_counts_are_withheld_with_their_complements():
    found = sheet(rows(train_a=40, train_b=30, test_a=20, test_b=3))
    assert by_split(found)["test"] == {"a": None, "b": None}
    assert by_split(found)["train"] == {"a": 40, "b": 30}


def test_the_classes_of_a_withheld_split_do_not_give_it_away():
    found = sheet(rows(train_a=40, train_b=30, validation_b=2, test_b=8))
    assert named(found.splits) == {"train": 70, "validation": None, "test": None}
    assert by_split(found)["test"] == {"a": None, "b": None}
    assert by_split(found)["validation"] == {"a": None, "b": None}


def test_many_rows_of_few_patients_are_withheld():
    frame = rows(train_a=60, train_b=40) | {"id": [f"p{i % 4}" for i in range(100)]}
    found = sheet(frame, id="id")
    assert (found.rows, found.patients) == (None, None)
    assert set(named(found.splits).values()) == {None, 0}


@pytest.mark.parametrize(("missing", "says"), [(0, 0), (3, None), (20, 20), (58, None)])
def test_missing_values_are_counted_before_rows_are_dropped(missing, says):
    frame = rows(train_a=30, train_b=30) | {"z": [None] * missing + [1.5] * (60 - missing)}
    found = sheet(frame)
    assert named(found.missing) == {"x": 0, "z": says}
    assert found.incomplete == (missing if missing in (0, 20, 58) else None)


def test_a_column_that_is_often_missing_is_warned_of():
    frame = rows(train_a=30, train_b=30) | {"z": [None] * 20 + [1.5] * 40}
    assert any("column 'z'" in warning and "20%" in warning for warning in sheet(frame).warnings)


def test_one_class_is_warned_of():
    assert any("all rows are of class 'a'" in warning for warning in sheet(rows(train_a=60)).warnings)


def test_imbalance_is_warned_of_only_where_both_counts_may_be_shown():
    assert any("1:10" in w for w in sheet(rows(train_a=100, train_b=9)).warnings)
    assert not any("1:10" in w for w in sheet(rows(train_a=100, train_b=10)).warnings)
    assert not any("1:10" in w for w in sheet(rows(train_a=100, train_b=3)).warnings)


def test_a_split_without_a_class_is_warned_of():
    found = sheet(rows(train_a=40, train_b=40, test_a=20))
    assert found.warnings == ("no row of class 'b' among those for test",)


def test_a_tiny_site_is_warned_of():
    assert any("fewer than 50 patients" in w for w in sheet(rows(train_a=20, train_b=20)).warnings)


def test_ignored_columns_and_repeated_rows_are_warned_of():
    base = rows(train_a=30, train_b=30)
    frame = pandas.DataFrame(base | {"z": range(60), "id": [f"p{i}" for i in range(60)]})
    doubled = pandas.concat([frame, frame.head(6)])
    found = sheet(doubled, id="id", columns={"x": "continuous"})
    assert (found.duplicates, found.rows) == (6, 60)
    assert any("does not use: z" in w for w in found.warnings)
    assert any("kept once" in w for w in found.warnings)


def test_a_rare_class_is_not_even_named():
    found = sheet(rows(train_a=60, train_b=40, train_secret=2, train_leak=1))
    assert by_split(found)["train"] == {"a": 60, "b": None, "other": None}
    assert "secret" not in repr(found)
    assert "leak" not in repr(found)


def test_the_sheet_crosses_the_wire():
    found = sheet(rows(train_a=40, train_b=30, test_a=3))
    back = decode(encode(found), DataSheet)
    assert by_split(back) == by_split(found)
    assert back.warnings == found.warnings


counts = st.integers(0, 12)


@settings(deadline=None)
@given(counts, counts, counts, counts, counts, st.integers(2, 6))
def test_no_small_count_is_shown_or_follows_by_subtraction(a, b, c, d, e, minimum):
    if a + b + c + d + e == 0:
        return
    found = sheet(rows(train_a=a, train_b=b, validation_a=c, test_a=d, test_b=e), minimum=minimum)
    for total, parts in [
        (found.rows, named(found.splits)),
        *((named(found.splits)[s], by_split(found)[s]) for s in by_split(found)),
    ]:
        known = [n for n in parts.values() if n is not None]
        hidden = len(parts) - len(known)
        assert all(n == 0 or n >= minimum for n in known)
        if total is None:
            assert not known or hidden
        else:
            assert hidden != 1 or total - sum(known) >= minimum or total == sum(known)
