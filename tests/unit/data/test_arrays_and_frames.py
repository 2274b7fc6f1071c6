from __future__ import annotations

import numpy as np
import pandas
import pytest
from memory_federation import MemoryFederation, prepare
from sklearn.datasets import load_breast_cancer

from medfed.core.errors import DataError
from medfed.core.examples import Split
from medfed.data.arrays import ArrayData, load_arrays
from medfed.data.encoding import Encoding, encode
from medfed.data.frames import raw_from_frame
from medfed.data.partition import HOSPITALS, breast_cancer_hospitals
from medfed.data.prepare import adopt_encoding, describe_sites
from medfed.data.table import SiteTable, load_table, merge_tables
from medfed.spec.task import DataSpec


def images(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return ArrayData(rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8), rng.permutation(np.arange(n) % 2))


def test_a_frame_becomes_text_as_if_it_had_been_read():
    frame = pandas.DataFrame(
        {
            "a": [1, 2],
            "b": [1.5, None],
            "c": ["x", None],
            "d": [True, False],
            "e": pandas.Categorical(["u", None]),
            "f": pandas.array([1, None], dtype="Int64"),
        }
    )
    raw = raw_from_frame(frame)
    assert {n: v.tolist() for n, v in raw.columns.items()} == {
        "a": ["1", "2"],
        "b": ["1.5", None],
        "c": ["x", None],
        "d": ["True", "False"],
        "e": ["u", None],
        "f": ["1", None],
    }


@pytest.mark.parametrize("columns", [["a", "a"], [0, 1]])
def test_a_frame_of_unclear_columns_is_refused(columns):
    with pytest.raises(DataError):
        raw_from_frame(pandas.DataFrame([[1, 2]], columns=columns))


def test_images_are_used_as_they_are():
    data = DataSpec(label="target")
    arrays = images()
    tables = [
        load_arrays(data, "classification", "A", arrays),
        load_arrays(data, "classification", "B", images(30, 1)),
    ]
    fed = MemoryFederation(*tables)
    encoding = prepare(fed, data, "classification")
    adopt_encoding(fed, encoding)
    node = fed.nodes["A"]
    examples = encode(node.resource(SiteTable), node.recall(Encoding), None)
    np.testing.assert_array_equal(examples.features, arrays.features.astype(np.float32))
    assert examples.features.dtype == np.float32
    np.testing.assert_array_equal(examples.targets, arrays.targets)
    assert sum(len(encode(tables[0], encoding, split)) for split in Split) == 40
    assert dict(describe_sites(fed))["A"].rows == 40
    assert merge_tables("pooled", tables).columns["x"].shape == (70, 1, 4, 4)


def test_a_matrix_of_narrow_floats_takes_half_the_memory_and_gives_the_same_examples():
    rng = np.random.default_rng(3)
    narrow, targets = rng.lognormal(20, 9, size=(50, 3)).astype(np.float32), np.arange(50) % 2
    data, examples, sizes = DataSpec(label="target"), [], []
    for features in (narrow, narrow.astype(np.float64)):
        fed = MemoryFederation(load_arrays(data, "classification", "A", ArrayData(features, targets)))
        adopt_encoding(fed, prepare(fed, data, "classification"))
        node = fed.nodes["A"]
        sizes.append(sum(column.nbytes for column in node.resource(SiteTable).columns.values()))
        examples.append(encode(node.resource(SiteTable), node.recall(Encoding), None).features)
    np.testing.assert_array_equal(*examples)
    assert 2 * sizes[0] == sizes[1]


def test_a_matrix_becomes_continuous_columns():
    rng = np.random.default_rng(2)
    features, targets = rng.normal(size=(50, 3)), rng.normal(size=50)
    features[3, 1] = np.nan
    data = DataSpec()
    table = load_arrays(data, "regression", "A", ArrayData(features, targets))
    assert list(table.columns) == ["x0", "x1", "x2"]
    assert (table.rows(), table.findings.incomplete.rows) == (49, 1)
    encoding = prepare(MemoryFederation(table), data, "regression")
    train = table.select(Split.TRAIN)
    np.testing.assert_allclose(encoding.mean, np.column_stack(list(train.columns.values())).mean(axis=0), rtol=1e-12)


def test_the_rows_of_a_patient_given_as_arrays_stay_together():
    ids = np.repeat(np.arange(20), 3)
    table = load_arrays(DataSpec(), "regression", "A", ArrayData(np.arange(120.0).reshape(60, 2), np.arange(60.0), ids))
    assert table.patients() == 20
    assert (table.split.reshape(20, 3) == table.split.reshape(20, 3)[:, :1]).all()


@pytest.mark.parametrize(
    "arrays",
    [
        ArrayData(np.zeros(4), np.zeros(4)),
        ArrayData(np.zeros((4, 2)), np.zeros(3)),
        ArrayData(np.zeros((4, 2)), np.zeros(4), np.zeros(3)),
        ArrayData(np.zeros((0, 2)), np.zeros(0)),
        ArrayData(np.array([["a", "b"]]), np.zeros(1)),
        ArrayData(np.array([[1.0, np.inf]]), np.zeros(1)),
        ArrayData(np.full((2, 2, 2), np.nan), np.zeros(2)),
    ],
)
def test_arrays_that_do_not_fit_are_explained(arrays):
    with pytest.raises(DataError, match="A"):
        load_arrays(DataSpec(), "regression", "A", arrays)


def test_the_hospitals_of_the_demo_share_out_every_patient_once():
    hospitals = breast_cancer_hospitals(3)
    together = pandas.concat(hospitals.values()).sort_values("id").reset_index(drop=True)
    bunch = load_breast_cancer()
    np.testing.assert_array_equal(together.drop(columns=["id", "diagnosis"]), bunch.data)
    assert (together["diagnosis"] == bunch.target_names[bunch.target]).all()
    assert together["id"].is_unique
    for name, mix in HOSPITALS.items():
        counts = hospitals[name]["diagnosis"].value_counts()
        assert (counts["malignant"], counts["benign"]) == (mix.malignant, mix.benign)


def test_the_hospitals_depend_on_the_seed_alone():
    first, again, other = breast_cancer_hospitals(0), breast_cancer_hospitals(0), breast_cancer_hospitals(1)
    assert all(first[name].equals(again[name]) for name in HOSPITALS)
    assert not first["Rural"].equals(other["Rural"])


def test_the_hospitals_load_without_a_warning_but_their_own_case_mix():
    data = DataSpec(label="diagnosis", id="id")
    for name, frame in breast_cancer_hospitals().items():
        table = load_table(data, "classification", name, raw_from_frame(frame))
        assert set(table.kinds.values()) == {"continuous"}
        assert table.patients() == len(frame)
