"""What makes thousands of small sites cheap changes nothing that is read, counted or split."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.examples import Split
from medfed.data.arrays import ArrayData, load_arrays
from medfed.data.connectors import CONNECTORS
from medfed.data.connectors.csv import locked_connection
from medfed.data.delimited import plain_columns
from medfed.data.findings import Tally
from medfed.data.kinds import factorize, number, objects
from medfed.spec.task import DataSpec

DATA = DataSpec.model_validate({"split": {"train": 0.5, "validation": 0.2, "test": 0.3}})


def small(rows: int = 35, seed: int = 0, patients: int = 12):
    rng = np.random.default_rng(seed)
    arrays = ArrayData(rng.normal(size=(rows, 26)), rng.integers(0, 3, rows), rng.integers(0, patients, rows))
    return load_arrays(DATA, "classification", "A", arrays)


# ------------------------------------------------------------------------------------------ counts, kept


@given(st.integers(1, 40), st.integers(0, 50))
def test_tallies_are_the_counts_of_distinct_ids(rows, seed):
    table = small(rows, seed)
    for split in (None, *Split):
        chosen = [
            (patient, name)
            for patient, name, own in zip(table.ids, table.targets, table.split, strict=True)
            if split is None or list(Split)[own] is split
        ]
        assert table.tally(split) == Tally(len(chosen), len({patient for patient, _ in chosen}))
        assert (table.rows(split), table.patients(split)) == (len(chosen), len({patient for patient, _ in chosen}))
        by_class = {
            name: Tally(
                sum(other == name for _, other in chosen), len({patient for patient, other in chosen if other == name})
            )
            for name in "012"
        }
        assert table.class_tallies("012", split) == by_class
        assert table.occurring_classes(split) == {name: tally for name, tally in by_class.items() if tally.rows}


def test_a_table_made_of_another_counts_its_own_rows():
    table = small()
    before = table.patients()
    part = table.where(np.arange(35) < 5)
    renamed = replace(table, targets=objects(["other"] * 35))
    assert (part.rows(), part.patients()) == (5, len(set(table.ids[:5])))
    assert table.class_tallies("012")
    assert renamed.class_tallies(["other", "0"]) == {"other": Tally(35, before), "0": Tally(0, 0)}


def test_its_size_grows_with_its_rows_and_is_near_what_the_columns_take():
    one, ten = small(50).nbytes, small(500).nbytes
    assert 50 * 26 * 8 < one < 2 * 50 * 26 * 8 + 8000
    assert 500 * 26 * 8 < ten < 1.2 * 500 * 26 * 8 + 8000


def test_what_is_loaded_is_a_copy():
    for shape in ((20, 3), (20, 1, 2, 2)):
        features = np.ones(shape, np.float32)
        table = load_arrays(DATA, "classification", "A", ArrayData(features, np.arange(20) % 2))
        features[:] = 7
        assert all((values == 1).all() for values in table.columns.values())


@pytest.mark.parametrize("targets", [[0, 1] * 5, [0.0, 1.0] * 5, [False, True] * 5, ["0", "1"] * 5, ["0", None] * 5])
def test_targets_are_read_as_a_file_would_hold_them(targets):
    table = load_arrays(DATA, "classification", "A", ArrayData(np.ones((10, 1)), np.array(targets)))
    names = {"False": "false", "True": "true"}
    expected = [names.get(str(t), str(t).removesuffix(".0")) for t in targets if t is not None]
    assert table.targets.tolist() == expected
    assert table.findings.unlabelled.rows == targets.count(None)


def test_arrays_are_loaded_without_pandas_or_duckdb():
    code = (
        "import sys, numpy as np; from medfed.data.arrays import ArrayData, load_arrays; "
        "from medfed.data.encoding import encode, new_encoding; from medfed.spec.task import DataSpec; "
        "table = load_arrays(DataSpec(), 'classification', 'A', ArrayData(np.eye(9), np.arange(9) % 2)); "
        "encode(table, new_encoding(table.kinds, {}, 'none', ('0', '1')), None); "
        "print(sorted({'pandas', 'duckdb', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ------------------------------------------------------------------------------------------ text


@given(st.lists(st.sampled_from(["a", "b", "1", "1.0", None]), max_size=12))
def test_factorized_values_are_found_again_by_their_codes(values):
    codes, distinct = factorize(objects(values))
    assert [None if code < 0 else distinct[code] for code in codes] == values
    assert distinct.tolist() == [v for v in dict.fromkeys(values) if v is not None]


WRITTEN = re.compile(r"\s*([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity))\s*", re.IGNORECASE)


@given(st.text("0123456789+-.eE_ infatyNn\t", max_size=8) | st.floats().map(repr) | st.text(max_size=5))
def test_a_number_is_what_decimal_notation_writes(text):
    found = number(text)
    if re.fullmatch(r"[\x00-\x7f]*", text):
        assert (found is not None) == bool(WRITTEN.fullmatch(text.strip()))
    assert found is None or found == float(text)


# ------------------------------------------------------------------------------------------ plain text


cells = st.text(st.characters(codec="utf-8", exclude_characters='",;|\t\r\n\0'), max_size=5)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 4).flatmap(
        lambda n: st.lists(
            st.lists(cells, min_size=n, max_size=n).filter(lambda row: row != [""]), min_size=1, max_size=6
        )
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_plain_text_is_read_as_duckdb_reads_it(tmp_path_factory, rows, delimiter, end, ends):
    names = [f"n{i}" for i in range(len(rows[0]))]
    text = end.join(delimiter.join(row) for row in [names, *rows]) + (end if ends else "")
    path = tmp_path_factory.mktemp("plain") / "data.csv"
    path.write_bytes(text.encode())
    plain = plain_columns(text, delimiter, len(names), skip=1)
    assert plain is not None
    connection = locked_connection(path)
    try:
        parsed = connection.execute("SELECT * FROM rows").fetchall()
    finally:
        connection.close()
    assert list(zip(*plain, strict=True)) == parsed


@pytest.mark.parametrize(
    "text", ['a,b\n1,"2"\n', "a,b\n1,2,3\n", "a,b\n1\n", "a,b\n1,2\n\n3,4\n", "a,b\r1,2\r", "a,b\r\n1,2\n", "a,b\n", ""]
)
def test_text_that_could_be_read_in_two_ways_is_left_to_the_parser(text):
    assert plain_columns(text, ",", 2, skip=1) is None


def test_a_plain_file_needs_no_duckdb(tmp_path):
    (tmp_path / "d.csv").write_text("a,y\n1,0\n,1\n")
    code = (
        "import sys, pathlib; from medfed.data.connectors import CONNECTORS; from medfed.spec.task import DataSpec; "
        "from medfed.data.table import load_table; data = DataSpec(label='y'); "
        "load_table(data, 'classification', 'A', CONNECTORS.get('csv')(pathlib.Path(sys.argv[1]), data, 'A')); "
        "print(sorted({'pandas', 'duckdb', 'torch'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "d.csv"], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_large_file_is_left_to_the_parser(tmp_path):
    (tmp_path / "d.csv").write_text("a,y\n" + "12345678,0\n" * 110_000)
    raw = CONNECTORS.get("csv")(tmp_path / "d.csv", DataSpec(label="y"), "A")
    assert raw.rows == 110_000
    assert set(raw.columns["a"]) == {"12345678"}
