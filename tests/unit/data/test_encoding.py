from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.codec import decode
from medfed.core.codec import encode as to_bytes
from medfed.core.errors import DataError
from medfed.core.examples import Split
from medfed.data.encoding import Encoding, encode, encode_rows, fit_to, new_encoding
from medfed.data.kinds import Kind, objects
from medfed.data.raw import RawTable
from medfed.data.table import load_table
from medfed.spec.task import DataSpec

DATA = DataSpec.model_validate(
    {
        "label": "y",
        "columns": {"age": "continuous", "cp": "categorical", "sex": "binary"},
        "split": {"column": "part"},
    }
)
KINDS = {"age": Kind.CONTINUOUS, "cp": Kind.CATEGORICAL, "sex": Kind.BINARY}
LEVELS = {"cp": ("1", "2", "3"), "sex": ("F", "M")}


def raw(**columns):
    return RawTable({n: objects(v.split() if isinstance(v, str) else v) for n, v in columns.items()}, "d.csv", 2)


def sample(part="train train train test"):
    rows = raw(age="40 50 60 70", cp="1 2 3 2", sex="F M M F", y="0 1 1 0", part=part)
    return load_table(DATA, "classification", "North", rows)


def plain(standardize="none", levels=LEVELS, classes=("0", "1")):
    return new_encoding(KINDS, levels, standardize, classes)


def test_features_are_numbers_and_indicators_without_the_first_level():
    encoding = plain()
    assert encoding.features == ("age", "cp=2", "cp=3", "sex=M")
    examples = encode(sample(), encoding, None)
    expected = [[40, 0, 0, 0], [50, 1, 0, 1], [60, 0, 1, 1], [70, 1, 0, 0]]
    np.testing.assert_array_equal(examples.features, np.array(expected, dtype=np.float32))
    assert examples.features.dtype == np.float32
    assert examples.targets.tolist() == [0, 1, 1, 0]
    assert examples.targets.dtype == np.int64


def test_a_binary_column_of_0_and_1_keeps_its_name():
    encoding = new_encoding({"fbs": Kind.BINARY}, {"fbs": ("0", "1")}, "none", ())
    assert encoding.features == ("fbs",)


def test_a_site_standardises_by_its_training_rows_with_the_unbiased_deviation():
    fitted = fit_to(plain("site"), sample())
    train = np.array([[40, 0, 0, 0], [50, 1, 0, 1], [60, 0, 1, 1]], dtype=float)
    np.testing.assert_allclose(fitted.mean, train.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(fitted.scale, train.std(axis=0, ddof=1), rtol=1e-15)
    test = encode(sample(), fitted, Split.TEST)
    expected = (np.array([[70, 1, 0, 0]]) - train.mean(axis=0)) / (train.std(axis=0, ddof=1) + 1e-9)
    np.testing.assert_array_equal(test.features, expected.astype(np.float32))


@pytest.mark.parametrize("value", ["0.1", "1e9", "123456.789"])
def test_a_constant_column_is_zero(value):
    rows = raw(a=[value] * 7, b=[str(i) for i in range(7)], y=["0", "1"] * 3 + ["0"])
    data = DataSpec.model_validate({"label": "y", "columns": {"a": "continuous", "b": "continuous"}})
    loaded = load_table(data, "classification", "North", rows)
    columns = {"a": Kind.CONTINUOUS, "b": Kind.CONTINUOUS}
    fitted = fit_to(new_encoding(columns, {}, "site", ("0", "1")), loaded)
    assert (encode(loaded, fitted, None).features[:, 0] == 0).all()


def test_a_new_row_with_an_unknown_level_is_other_or_else_left_out():
    unknown = raw(age="40", cp="9", sex="F")
    features, kept = encode_rows(unknown, DATA, plain())
    assert features.shape == (0, 4)
    assert kept.tolist() == []
    features, _ = encode_rows(unknown, DATA, plain(levels={**LEVELS, "cp": ("1", "2", "other")}))
    np.testing.assert_array_equal(features, [[40, 0, 1, 0]])


def test_new_rows_need_no_label_and_incomplete_ones_are_left_out():
    features, kept = encode_rows(raw(sex="F M M", cp=["1", "NA", "2"], age="40 50 60"), DATA, plain())
    assert kept.tolist() == [0, 2]
    np.testing.assert_array_equal(features, [[40, 0, 0, 0], [60, 1, 0, 1]])


def test_an_encoding_that_imputes_keeps_every_row():
    encoding = dataclasses.replace(plain(), fill=np.array([55.5, 2.0, 0.0]))
    features, kept = encode_rows(raw(age=["NA", "50"], cp=["1", None], sex=[None, "M"]), DATA, encoding)
    assert kept.tolist() == [0, 1]
    np.testing.assert_array_equal(features, [[55.5, 0, 0, 0], [50, 0, 1, 1]])


def test_no_new_rows_give_no_features():
    features, kept = encode_rows(raw(age="", cp="", sex=""), DATA, plain())
    assert (features.shape, kept.shape) == ((0, 4), (0,))


def test_new_rows_lacking_a_column_are_refused():
    with pytest.raises(DataError, match="there is no column 'cp'"):
        encode_rows(raw(age="1", cpp="1", sex="F"), DATA, plain())


def test_a_number_beyond_float32_is_an_error_naming_the_column():
    with pytest.raises(DataError, match="column 'age'") as caught:
        encode_rows(raw(age="1 1e39", cp="1 1", sex="F F"), DATA, plain())
    assert "1e39" not in str(caught.value)


def test_rows_are_not_encoded_before_the_site_knows_its_means():
    with pytest.raises(DataError, match="not known yet"):
        encode(sample(), plain("site"), Split.TRAIN)


def test_a_site_without_training_rows_cannot_standardise_by_its_own():
    with pytest.raises(DataError, match="no training rows"):
        fit_to(plain("site"), sample("test test test test"))


def test_a_class_that_the_federation_does_not_know_is_an_error():
    with pytest.raises(DataError, match="a class that the federation does not know"):
        encode(sample(), plain(classes=("0", "2")), None)


def test_regression_targets_are_float32():
    loaded = load_table(
        DATA.model_copy(update={"columns": {}}), "regression", "N", raw(a="1 2", y="0.1 7", part="train test")
    )
    examples = encode(loaded, new_encoding({"a": Kind.CONTINUOUS}, {}, "none", ()), None)
    assert examples.targets.dtype == np.float32
    np.testing.assert_array_equal(examples.targets, np.array([0.1, 7], dtype=np.float32))


def test_the_encoding_crosses_the_wire():
    encoding = fit_to(plain("site"), sample())
    back = decode(to_bytes(encoding), Encoding)
    for field in dataclasses.fields(Encoding):
        sent, received = getattr(encoding, field.name), getattr(back, field.name)
        assert type(received) is type(sent)
        assert np.array_equal(received, sent, equal_nan=True) if isinstance(sent, np.ndarray) else received == sent


values = st.floats(-1e6, 1e6).map(repr)


@settings(deadline=None)
@given(
    st.data(),
    st.lists(st.tuples(values, st.sampled_from("123"), st.sampled_from("FM")), min_size=2, max_size=20),
)
def test_the_features_of_a_row_do_not_depend_on_the_order_of_rows(data, rows):
    order = data.draw(st.permutations(range(len(rows))))

    def features(chosen):
        age, cp, sex = zip(*chosen, strict=True)
        count = len(chosen)
        named = raw(age=list(age), cp=list(cp), sex=list(sex), y=["0"] * count, part=["train"] * count)
        loaded = load_table(DATA, "classification", "North", named)
        return encode(loaded, fit_to(plain("site", classes=("0",)), loaded), Split.TRAIN).features

    np.testing.assert_array_equal(features([rows[i] for i in order]), features(rows)[list(order)])
