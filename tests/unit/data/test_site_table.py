from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.errors import DataError, MedFedError
from medfed.core.examples import Split
from medfed.data.kinds import Kind, level, objects, sort_levels
from medfed.data.raw import RawTable
from medfed.data.splits import DRAWN
from medfed.data.table import load_table, merge_tables
from medfed.spec.task import DataSpec


def table(rows, task_type="classification", site="North", /, **data):
    raw = RawTable({n: objects(v.split() if isinstance(v, str) else v) for n, v in rows.items()}, "d.csv", 2)
    return load_table(DataSpec.model_validate({"label": "y", **data}), task_type, site, raw)


def refused(rows, task_type="classification", /, **data):
    with pytest.raises(DataError) as caught:
        table(rows, task_type, **data)
    return str(caught.value)


def test_undeclared_columns_are_typed_by_what_they_hold():
    loaded = table({"a": "1 2.5 -3e2", "b": "1 0 1.0", "c": "x y x", "d": "7 7 7", "y": "u v u"})
    assert loaded.kinds == {
        "a": Kind.CONTINUOUS,
        "b": Kind.BINARY,
        "c": Kind.CATEGORICAL,
        "d": Kind.BINARY,
    }
    np.testing.assert_array_equal(loaded.columns["a"], [1.0, 2.5, -300.0])
    assert loaded.columns["b"].tolist() == ["1", "0", "1"]
    assert loaded.targets.tolist() == ["u", "v", "u"]


def test_where_some_columns_are_declared_the_others_are_ignored_and_noted():
    loaded = table({"a": "1 2", "b": "3 4", "c": "5 6", "y": "0 1"}, columns={"a": "continuous", "c": "ignore"})
    assert list(loaded.columns) == ["a"]
    assert loaded.findings.ignored == ("b",)


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        *((v, "1") for v in (1, 1.0, "1", "1.0", "1.00", " 1 ")),
        (True, "true"),
        ("True", "true"),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("-0", "0"),
        ("007", "007"),
        ("1234567890123456", "1234567890123456"),
        ("1e3", "1e3"),
        ("-", "-"),
        ("NO", "NO"),
    ],
)
def test_a_level_has_one_spelling(value, spelling):
    assert level(value) == spelling


def test_levels_are_sorted_as_numbers_then_as_text():
    assert sort_levels(["10", "b", "9", "a", "-1"]) == ("-1", "9", "10", "a", "b")


def test_levels_of_the_task_match_numbers_of_the_file():
    loaded = table(
        {"a": "1.0 2.00 1", "y": "0.0 1 2.0"},
        columns={"a": {"type": "categorical", "levels": [1, 2]}},
        label={"column": "y", "positive": [1, 2], "negative": [0]},
    )
    assert loaded.columns["a"].tolist() == ["1", "2", "1"]
    assert loaded.targets.tolist() == ["negative", "positive", "positive"]
    assert loaded.classes == ("negative", "positive")


def test_without_negative_values_every_other_label_is_negative():
    loaded = table({"a": "1 2 3", "y": "x z w"}, label={"column": "y", "positive": ["x"]})
    assert loaded.targets.tolist() == ["positive", "negative", "negative"]


def test_missing_markers_and_blank_fields_mean_missing():
    loaded = table(
        {"a": ["?", " ", None, "4"], "b": ["1", "2", "3", "NA"], "y": "0 1 0 1"},
        missing={"markers": ["?", "NA"], "strategy": "impute"},
    )
    np.testing.assert_array_equal(loaded.columns["a"], objects([None, None, None, "4"]))
    assert loaded.findings.missing["a"].rows == 3
    np.testing.assert_array_equal(loaded.columns["b"], [1, 2, 3, np.nan])


def test_incomplete_rows_are_dropped_before_the_split_is_drawn():
    complete = {"id": [f"p{i}" for i in range(40)], "a": [str(i) for i in range(40)], "y": ["0", "1"] * 20}
    holed = {n: [*v, x] for (n, v), x in zip(complete.items(), ("late", None, "0"), strict=True)}
    left, right = (
        table(complete, id="id", split={"stratify": True}),
        table(holed, id="id", split={"stratify": True}),
    )
    assert right.findings.incomplete.rows == 1
    assert left.ids.tolist() == right.ids.tolist()
    assert left.split.tolist() == right.split.tolist()


def test_rows_without_a_label_are_dropped_and_counted():
    loaded = table({"a": "1 2 3", "y": ["0", None, "1"]})
    assert (loaded.rows(), loaded.findings.unlabelled.rows) == (2, 1)


def test_repeated_rows_of_a_patient_are_kept_once():
    loaded = table({"id": "p p q p", "a": "1 1 1 2", "y": "0 0 0 0"}, id="id")
    assert loaded.ids.tolist() == ["p", "q", "p"]
    assert loaded.findings.duplicates.rows == 1
    assert (loaded.rows(), loaded.patients()) == (3, 2)


def test_without_ids_equal_rows_may_be_patients_alike_and_stay():
    loaded = table({"a": "1 1 2", "y": "0 0 1"})
    assert (loaded.rows(), loaded.patients(), loaded.findings.duplicates.rows) == (3, 3, 1)


def test_the_rows_of_a_patient_stay_in_one_split():
    loaded = table(
        {"id": [f"p{i % 30}" for i in range(90)], "a": [str(i) for i in range(90)], "y": ["0", "1"] * 45},
        id="id",
    )
    for patient in set(loaded.ids):
        assert len(set(loaded.split[loaded.ids == patient])) == 1
    assert sum(loaded.patients(s) for s in Split) == 30
    assert sum(loaded.select(s).rows() for s in Split) == 90


def test_a_column_may_say_the_split():
    loaded = table({"a": "1 2 3", "y": "0 1 0", "part": "test Train validation"}, split={"column": "part"})
    assert [loaded.rows(s) for s in DRAWN] == [1, 1, 1]
    assert loaded.select(Split.TEST).columns["a"].tolist() == [1.0]
    assert "part" not in loaded.columns


def test_regression_targets_are_numbers():
    loaded = table({"a": "1 2 3", "y": "0.5 1 NA"}, "regression")
    np.testing.assert_array_equal(loaded.targets, [0.5, 1.0])
    assert loaded.classes is None


@pytest.mark.parametrize(
    ("rows", "data", "says"),
    [
        ({"a": "1 2"}, {}, "there is no column 'y'"),
        ({"age": "1 2", "y": "0 1"}, {"columns": {"agee": "continuous"}}, "did you mean 'age'"),
        ({"a": "1 2", "y": "0 1"}, {"id": "id"}, "there is no column 'id'"),
        (
            {"a": "1 hidden", "y": "0 1"},
            {"columns": {"a": "continuous"}},
            "text where numbers are expected in 1 row (first at line 3)",
        ),
        ({"a": "1 1,5 2,5", "y": "0 1 0"}, {"columns": {"a": "continuous"}}, "in 2 rows (first at line 3)"),
        ({"a": "1 inf", "y": "0 1"}, {"columns": {"a": "continuous"}}, "infinite values in 1 row"),
        ({"a": "1 1e999", "y": "0 1"}, {"columns": {"a": "continuous"}}, "infinite values in 1 row"),
        (
            {"a": "1 -5", "y": "0 1"},
            {"columns": {"a": {"type": "continuous", "minimum": 0}}},
            "below the minimum in 1 row",
        ),
        (
            {"a": "1 500", "y": "0 1"},
            {"columns": {"a": {"type": "continuous", "maximum": 99}}},
            "above the maximum in 1 row",
        ),
        (
            {"a": "1 2 hidden", "y": "0 1 0"},
            {"columns": {"a": "binary"}},
            "3 different values in a binary column",
        ),
        (
            {"a": "x hidden", "y": "0 1"},
            {"columns": {"a": {"type": "categorical", "levels": ["x"]}}},
            "outside the declared set in 1 row",
        ),
        (
            {"a": "1 2", "y": "0 hidden"},
            {"label": {"column": "y", "classes": [0, 1]}},
            "label outside the declared set in 1 row",
        ),
        (
            {"a": "1 2", "y": "0 hidden"},
            {"label": {"column": "y", "positive": [1], "negative": [0]}},
            "label outside the declared set",
        ),
        ({"a": "? ?", "y": "0 1"}, {"missing": {"markers": ["?"]}}, "no row has a value"),
        ({"a": "1 ?", "b": "? 1", "y": "0 1"}, {"missing": {"markers": ["?"]}}, "no row is left"),
        ({"a": "1 2", "y": "NA NA"}, {}, "no row is left"),
        ({"a": "", "y": ""}, {}, "there are no rows"),
        ({"id": ["p", None], "a": "1 2", "y": "0 1"}, {"id": "id"}, "no patient id in 1 row"),
        ({"y": "0 1"}, {}, "there is no feature column"),
        ({"a": "1 2", "y": "0 1"}, {"label": None}, "which column is the label"),
        (
            {"a": "1 2", "y": "0 1", "s": "train hidden"},
            {"split": {"column": "s"}},
            "neither train, validation nor test in 1 row",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_that_counts_and_never_quotes(rows, data, says):
    message = refused(rows, **data)
    assert says in message
    assert "North" in message
    assert "hidden" not in message


def test_text_as_a_regression_target_is_an_error():
    assert "column 'y'" in refused({"a": "1 2", "y": "1 hidden"}, "regression")


def test_merged_tables_keep_patients_apart_and_in_their_split():
    one = table(
        {"id": "p q", "a": "1 2", "y": "0 1", "s": "train test"},
        "classification",
        "A",
        id="id",
        split={"column": "s"},
    )
    two = table(
        {"id": "p r", "a": "5 6", "y": "1 1", "s": "test test"},
        "classification",
        "B",
        id="id",
        split={"column": "s"},
    )
    pooled = merge_tables("pooled", [one, two])
    assert pooled.ids.tolist() == ["A:p", "A:q", "B:p", "B:r"]
    assert [pooled.patients(s) for s in DRAWN] == [1, 0, 3]
    assert pooled.findings.read.rows == 4


def test_merged_columns_take_the_wider_kind():
    two_values = table({"a": "0 1 1", "y": "0 1 0"}, "classification", "A")
    many_values = table({"a": "0 1 2.5", "y": "0 1 0"}, "classification", "B")
    assert (two_values.kinds["a"], many_values.kinds["a"]) == (Kind.BINARY, Kind.CONTINUOUS)
    pooled = merge_tables("pooled", [two_values, many_values])
    np.testing.assert_array_equal(pooled.columns["a"], [0, 1, 1, 0, 1, 2.5])


def test_tables_of_other_columns_do_not_merge():
    with pytest.raises(DataError, match="column 'a' is at one of A and B"):
        merge_tables(
            "p",
            [
                table({"a": "1 2", "y": "0 1"}, "classification", "A"),
                table({"b": "1 2", "y": "0 1"}, "classification", "B"),
            ],
        )
    with pytest.raises(DataError, match="column 'a' is binary at A, but categorical at B"):
        merge_tables(
            "p",
            [
                table({"a": "1 2", "y": "0 1"}, "classification", "A"),
                table({"a": "u v", "y": "0 1"}, "classification", "B"),
            ],
        )


cell = st.one_of(st.none(), st.sampled_from(["", "NA", "inf", "1", "2"]), st.integers(0, 999).map("#{}#".format))
KINDS = [
    "continuous",
    "binary",
    "categorical",
    {"type": "continuous", "minimum": 5},
    {"type": "categorical", "levels": [1]},
]


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(cell, cell, cell, cell), min_size=1, max_size=6),
    kinds=st.one_of(st.just([]), st.lists(st.sampled_from(KINDS), min_size=2, max_size=2)),
    label=st.sampled_from([{}, {"classes": [1, 2]}, {"positive": [1], "negative": [2]}, {"positive": [1]}]),
    task_type=st.sampled_from(["classification", "regression"]),
    split=st.sampled_from([None, "s"]),
)
def test_no_error_quotes_a_value_of_a_garbage_table(rows, kinds, label, task_type, split):
    names = ("a", "b", "y", "s")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    try:
        table(
            columns,
            task_type,
            label={"column": "y", **label},
            columns=dict(zip("ab", kinds, strict=False)),
            split={"column": split},
        )
    except MedFedError as error:
        assert "#" not in str(error) + repr(error.__cause__)
        assert error.remedy
