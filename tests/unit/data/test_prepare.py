from __future__ import annotations

import re

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_federation import MemoryFederation, prepare

from medfed.core.errors import DataError
from medfed.core.examples import Split
from medfed.core.steps import Release, installed_step
from medfed.data import prepare as preparation
from medfed.data.arrays import ArrayData, load_arrays
from medfed.data.encoding import Encoding, design, encode, new_encoding
from medfed.data.frames import raw_from_frame
from medfed.data.kinds import Kind
from medfed.data.prepare import STEPS, adopt_encoding, check_shape, describe_sites
from medfed.data.table import SiteTable, load_table, merge_tables
from medfed.spec.task import DataSpec


def spec(**data):
    return DataSpec.model_validate({"label": "y", "split": {"stratify": False}, **data})


def federation(data, frames, task_type="classification", **options):
    tables = [load_table(data, task_type, site, raw_from_frame(frame)) for site, frame in frames.items()]
    return MemoryFederation(*tables, **options)


def numbers(rng, n, /, **more):
    return pandas.DataFrame({"a": rng.normal(50, 9, n), "b": rng.exponential(1, n), "y": rng.integers(0, 2, n), **more})


def training_rows(fed):
    tables = [node.resource(SiteTable).select(Split.TRAIN) for node in fed.nodes.values()]
    return merge_tables("all", tables)


def test_the_steps_and_what_they_release():
    assert [(s.name, s.releases, s.reads) for s in STEPS] == [
        ("prepare.describe", Release.SITE, None),
        ("prepare.report_levels", Release.LEVELS, None),
        ("prepare.moments", Release.SUM, Split.TRAIN),
        ("prepare.deviations", Release.SUM, Split.TRAIN),
        ("prepare.intensities", Release.SUM, Split.TRAIN),
        ("prepare.adopt", Release.SUM, None),
    ]
    assert all(installed_step(s.name) is s for s in STEPS)


declared = st.lists(st.floats(-1e9, 1e9, width=32), min_size=4, max_size=30)


@settings(max_examples=40, deadline=None)
@given(st.lists(declared, min_size=1, max_size=4))
def test_federated_moments_equal_those_of_all_rows_together(sites):
    data = spec(
        columns={"a": "continuous"},
        label={"column": "y", "classes": [0, 1]},
        split={"train": 1, "validation": 0, "test": 0},
    )
    frames = {f"s{i}": pandas.DataFrame({"a": values, "y": [0] * len(values)}) for i, values in enumerate(sites)}
    encoding = prepare(federation(data, frames), data, "classification")
    together = np.concatenate([np.array(values, dtype=np.float64) for values in sites])
    size = np.abs(together).max()
    np.testing.assert_allclose(encoding.mean[0], together.mean(), rtol=1e-12, atol=1e-12 * size)
    expected = together.std(ddof=1)
    if expected > 1e-9 * size:
        np.testing.assert_allclose(encoding.scale[0], expected, rtol=1e-12, atol=1e-14 * size)
    if np.ptp(together) == 0:
        assert encoding.scale[0] == 0


def test_moments_of_indicators_and_imputed_values_equal_those_of_all_rows_together():
    rng = np.random.default_rng(0)
    data = spec(
        columns={"a": "continuous", "c": {"type": "categorical", "levels": ["u", "v", "w"]}},
        label={"column": "y", "classes": [0, 1]},
        missing={"strategy": "impute"},
    )
    frames = {}
    for site, n in (("A", 40), ("B", 70), ("C", 25)):
        frame = numbers(rng, n, c=rng.choice(["u", "v", "w"], n, p=[0.2, 0.5, 0.3])).drop(columns="b")
        frame.loc[rng.random(n) < 0.2, "a"] = np.nan
        frame.loc[rng.random(n) < 0.2, "c"] = None
        frames[site] = frame
    fed = federation(data, frames)
    encoding = prepare(fed, data, "classification")
    rows = training_rows(fed)
    a = pandas.Series(rows.columns["a"])
    c = pandas.Series(rows.columns["c"])
    np.testing.assert_allclose(encoding.fill[0], a.mean(), rtol=1e-13)
    assert encoding.levels[1][int(encoding.fill[1])] == c.mode()[0]
    filled = c.fillna(c.mode()[0])
    matrix = np.column_stack([a.fillna(a.mean()), filled == "v", filled == "w"])
    np.testing.assert_allclose(encoding.mean, matrix.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(encoding.scale, matrix.std(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_array_equal(design(rows, encoding), matrix)


def test_nothing_is_asked_site_by_site_where_the_task_declares_all():
    data = spec(columns={"a": "continuous"}, label={"column": "y", "classes": [0, 1]})
    fed = federation(data, {"A": numbers(np.random.default_rng(1), 30)})
    prepare(fed, data, "classification")
    assert fed.called == ["prepare.moments", "prepare.deviations"]


@pytest.mark.parametrize("standardize", ["site", "none"])
def test_no_sums_are_formed_that_nobody_needs(standardize):
    data = spec(columns={"a": "continuous"}, label={"column": "y", "classes": [0, 1]}, standardize=standardize)
    fed = federation(data, {"A": numbers(np.random.default_rng(1), 30)})
    encoding = prepare(fed, data, "classification")
    assert (fed.called, encoding.mean.size, encoding.scale.size) == ([], 0, 0)


def test_levels_that_enough_patients_share_are_named_and_others_are_other():
    frames = {
        "A": pandas.DataFrame({"c": ["x"] * 20 + ["y"] * 4, "y": [0, 1] * 12}),
        "B": pandas.DataFrame({"c": ["x"] * 10 + ["z"] * 10 + ["secret"], "y": [0, 1] * 10 + [0]}),
    }
    data = spec(columns={"c": "categorical"}, split={"train": 1, "validation": 0, "test": 0})
    encoding = prepare(federation(data, frames), data, "classification")
    assert encoding.levels == (("x", "z", "other"),)
    assert encoding.features == ("c=z", "c=other")
    assert encoding.classes == ("0", "1")
    np.testing.assert_allclose(encoding.mean, [10 / 45, 5 / 45])


def test_patients_are_counted_for_levels_not_rows():
    frame = pandas.DataFrame(
        {
            "id": ["p"] * 9 + [f"q{i}" for i in range(9)],
            "n": range(18),
            "c": ["u"] * 9 + ["v"] * 9,
            "y": [0, 1] * 9,
        }
    )
    data = spec(id="id", columns={"c": "categorical"})
    assert prepare(federation(data, {"A": frame}), data, "classification").levels == (("v", "other"),)


def test_a_level_rare_at_one_site_and_named_by_another_needs_no_other():
    frames = {
        "A": pandas.DataFrame({"c": ["x"] * 20 + ["y"] * 2, "y": [0, 1] * 11}),
        "B": pandas.DataFrame({"c": ["x"] * 10 + ["y"] * 10, "y": [0, 1] * 10}),
    }
    data = spec(columns={"c": "categorical"})
    assert prepare(federation(data, frames), data, "classification").levels == (("x", "y"),)


def test_undeclared_columns_have_one_kind_everywhere():
    rng = np.random.default_rng(2)
    frames = {
        "A": numbers(rng, 20, two=[0, 1] * 10, mixed=[0, 1] * 10),
        "B": numbers(rng, 20, two=[1, 0] * 10, mixed=[0.5, 1, 2, 3] * 5),
    }
    fed = federation(spec(), frames)
    encoding = prepare(fed, spec(), "classification")
    assert encoding.kinds == (Kind.CONTINUOUS, Kind.CONTINUOUS, Kind.BINARY, Kind.CONTINUOUS)
    assert encoding.features == ("a", "b", "two", "mixed")
    adopt_encoding(fed, encoding)
    node = fed.nodes["A"]
    examples = encode(node.resource(SiteTable), node.recall(Encoding), Split.TRAIN)
    assert examples.features.shape[1] == 4


def test_binary_numbers_that_differ_between_sites_are_continuous():
    rng = np.random.default_rng(2)
    frames = {"A": numbers(rng, 20, n=[0, 1] * 10), "B": numbers(rng, 20, n=[0, 2] * 10)}
    assert prepare(federation(spec(), frames), spec(), "classification").kinds[2] is Kind.CONTINUOUS


def test_a_declared_binary_column_of_three_levels_over_sites_is_an_error():
    frames = {
        site: pandas.DataFrame({"s": levels * 10, "y": [0, 1] * 10})
        for site, levels in (("A", ["F", "M"]), ("B", ["f", "M"]))
    }
    data = spec(columns={"s": "binary"})
    with pytest.raises(DataError, match="3 different levels in the binary column 's'"):
        prepare(federation(data, frames), data, "classification")


def test_sites_whose_columns_differ_are_an_error():
    rng = np.random.default_rng(3)
    frames = {"A": numbers(rng, 20), "B": numbers(rng, 20).drop(columns="b")}
    with pytest.raises(DataError, match="column 'b' is at one of A and B"):
        prepare(federation(spec(), frames), spec(), "classification")


def test_levels_that_nobody_shares_leave_no_feature():
    frame = pandas.DataFrame({"c": [f"name{i}" for i in range(20)], "y": [0, 1] * 10})
    with pytest.raises(DataError, match="no column has two values"):
        prepare(federation(spec(), {"A": frame}), spec(), "classification")


def test_one_class_everywhere_has_to_be_declared():
    frame = numbers(np.random.default_rng(4), 20).assign(y=1)
    with pytest.raises(DataError, match="fewer than two classes"):
        prepare(federation(spec(), {"A": frame}), spec(), "classification")


def test_a_site_that_refuses_to_report_levels_is_simply_absent():
    rng = np.random.default_rng(5)
    fed = federation(spec(), {"A": numbers(rng, 30), "B": numbers(rng, 30)}, refusing=("B",))
    assert list(dict(describe_sites(fed))) == ["A"]
    assert prepare(fed, spec(), "classification").features == ("a", "b")


def test_no_training_rows_at_all_is_an_error():
    frame = numbers(np.random.default_rng(6), 10, part="test")
    data = spec(split={"column": "part"}, columns={"a": "continuous"}, label={"column": "y", "classes": [0, 1]})
    with pytest.raises(DataError, match="no site has training rows"):
        prepare(federation(data, {"A": frame}), data, "classification")


def test_numbers_too_large_to_add_are_an_error_naming_the_column():
    frame = numbers(np.random.default_rng(7), 20).assign(b=1e300)
    data = spec(columns={"a": "continuous", "b": "continuous"}, label={"column": "y", "classes": [0, 1]})
    with pytest.raises(DataError, match="A, column 'b': numbers too large"):
        prepare(federation(data, {"A": frame}), data, "classification")


def test_a_site_standardises_by_itself_and_its_means_stay():
    rng = np.random.default_rng(8)
    data = spec(columns={"a": "continuous"}, label={"column": "y", "classes": [0, 1]}, standardize="site")
    fed = federation(data, {"A": numbers(rng, 40), "B": numbers(rng, 40) + 0})
    encoding = prepare(fed, data, "classification")
    adopt_encoding(fed, encoding)
    assert encoding.mean.size == 0
    for node in fed.nodes.values():
        table, own = node.resource(SiteTable), node.recall(Encoding)
        train = table.select(Split.TRAIN).columns["a"]
        np.testing.assert_allclose([own.mean[0], own.scale[0]], [train.mean(), train.std(ddof=1)], rtol=1e-12)
        assert abs(encode(table, own, Split.TRAIN).features.mean()) < 1e-6


def test_a_federated_encoding_is_the_same_at_every_site():
    rng = np.random.default_rng(9)
    fed = federation(spec(), {"A": numbers(rng, 30), "B": numbers(rng, 50)})
    adopt_encoding(fed, prepare(fed, spec(), "classification"))
    one, two = (node.recall(Encoding) for node in fed.nodes.values())
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.scale, two.scale)


def test_regression_has_no_classes():
    rng = np.random.default_rng(10)
    frames = {"A": pandas.DataFrame({"a": rng.normal(size=30), "y": rng.normal(size=30)})}
    fed = federation(spec(), frames, "regression")
    assert prepare(fed, spec(), "regression").classes == ()
    assert dict(describe_sites(fed))["A"].classes == ()


def test_the_reply_to_adopt_tells_nothing_of_the_rows():
    rng = np.random.default_rng(11)
    fed = federation(spec(), {"A": numbers(rng, 30), "B": numbers(rng, 12)})
    assert fed.sum(preparation.adopt, prepare(fed, spec(), "classification")).sites == 2


@pytest.mark.parametrize(
    ("shape", "wanted", "remedy"),
    [
        ((1, 4, 8, 8), (1, 8, 8), "read: images"),
        ((1, 4, 8, 8), (1, 8, 8), "input_size: [channels, depth, height, width]"),
        ((1, 8, 8), (1, 4, 8, 8), "input_size: [channels, height, width]"),
        ((3, 9, 8), (1, 8, 8), "{images: {channels: 1, transforms: [{name: resize, size: [8, 8]}]}}"),
    ],
)
def test_images_of_another_shape_are_told_what_would_help(shape, wanted, remedy):
    data = spec(label={"column": "label", "classes": [0, 1]})
    rows = ArrayData(np.zeros((4, *shape), np.float32), np.arange(4) % 2)
    table = load_arrays(data, "classification", "A", rows, 0)
    encoding = new_encoding(table.kinds, {}, "none", ("0", "1"))
    with pytest.raises(DataError, match=re.escape(f"the shape {list(shape)}")) as told:
        check_shape(table, encoding, wanted)
    assert remedy in told.value.remedy
