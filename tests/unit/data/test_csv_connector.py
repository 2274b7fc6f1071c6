from __future__ import annotations

import os

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.errors import DataError, TaskError, UserError
from medfed.data.connectors import CONNECTORS
from medfed.data.connectors.csv import locked_connection
from medfed.spec.task import DataSpec


def read(tmp_path, content, *, name="data.csv", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = DataSpec.model_validate({"connector": {"name": "csv", **options}, "label": "y"})
    return CONNECTORS.get("csv")(path, data, "North")


def columns(raw):
    return {name: values.tolist() for name, values in raw.columns.items()}


@pytest.mark.parametrize(
    "content",
    [
        "a,y\n1,0\n,1\n",
        "\ufeffa,y\n1,0\n,1\n",
        "a,y\r\n1,0\r\n,1\r\n",
        "a,y\r1,0\r,1\r",
        "a;y\n1;0\n;1",
        "a\ty\n1\t0\n\t1\n",
        "a|y\n1|0\n|1\n",
        ' a , "y"\n1,"0"\n"",1\n',
        "\n\na,y\n1,0\n,1\n",
        "a,y\n1,0\n\n,1\n\n",
    ],
)
def test_the_same_table_in_every_dialect(tmp_path, content):
    assert columns(read(tmp_path, content)) == {"a": ["1", None], "y": ["0", "1"]}


def test_quoted_fields_keep_delimiters_quotes_and_line_breaks(tmp_path):
    raw = read(tmp_path, 'a,y\n"x,\ny","say ""no"""\n')
    assert columns(raw) == {"a": ["x,\ny"], "y": ['say "no"']}


def test_numbers_and_spaces_are_handed_over_as_written(tmp_path):
    assert columns(read(tmp_path, "a,y\n 007 ,1.00\n")) == {"a": [" 007 "], "y": ["1.00"]}


def test_a_file_without_a_header_is_named_by_the_task(tmp_path):
    raw = read(tmp_path, "1,0\n2,1\n", header=False, names=["a", "y"])
    assert columns(raw) == {"a": ["1", "2"], "y": ["0", "1"]}
    assert raw.place(1, "a")[1] == "line 2"


def test_lines_are_counted_below_the_header(tmp_path):
    assert read(tmp_path, "a,y\n1,0\n2,1\n").place(1, "a")[1] == "line 3"


def test_an_ambiguous_delimiter_is_settled_by_the_columns_of_the_task(tmp_path):
    assert columns(read(tmp_path, "a,b;y\n1,5;0\n")) == {"a,b": ["1,5"], "y": ["0"]}


@pytest.mark.parametrize("content", ["a,y\n", "a,y", "a,y\r\n\r\n"])
def test_a_header_alone_gives_no_rows(tmp_path, content):
    assert read(tmp_path, content).rows == 0


SECRET = "SECRETVALUE"


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (b"", {}, "empty"),
        (b"\xef\xbb\xbf\n\n", {}, "empty"),
        (b"a^y\n1^SECRETVALUE\n", {}, "only one column was found"),
        (b"a,y\n1,SECRETVALUE\n1,SECRETVALUE,3\n", {}, "line 3: 2 columns were expected, 3 found"),
        (b"\n\na,y\n1,SECRETVALUE,3\n", {}, "line 4: 2 columns were expected, 3 found"),
        (b"a,y\nSECRETVALUE\n", {}, "line 2: 2 columns were expected, 1 found"),
        (b'a,y\n1,"SECRETVALUE\n', {}, "line 2: a quotation mark is opened and never closed"),
        (b"a,y\n1,SECRETVALUE\xff\n", {}, "line 2: the file is not UTF-8"),
        (b"a,y\n1,SECRETVALUE\xc3", {}, "the file is not UTF-8"),
        (b"a,y\n1,\0SECRETVALUE\n", {}, "line 2: the file holds NUL bytes"),
        ("a,y\n1,SECRETVALUE\n".encode("utf-16"), {}, "NUL bytes"),
        (b"a,y,a\n1,SECRETVALUE,3\n", {}, "columns 1 and 3 have the same name"),
        (b"63,1,SECRETVALUE\n63,1,2\n", {}, "the first line holds values, not the names"),
        (b"a,,y\n1,SECRETVALUE,3\n", {}, "column 2 has no name"),
        (b"a;b,y;c\n1;2,3;4\n", {}, "the delimiter cannot be told"),
        (b"1,SECRETVALUE,2\n", {"header": False, "names": ["a", "y"]}, "names lists 2 columns"),
        (b"a,y\n1,SECRETVALUE" + b"x" * 17 * 2**20, {}, "line is longer than 16 MiB"),
    ],
)
def test_a_broken_file_is_explained_without_quoting_it(tmp_path, content, options, says):
    with pytest.raises(DataError) as caught:
        read(tmp_path, content, **options)
    assert says in caught.value.cause
    assert "North (data.csv)" in caught.value.where
    assert SECRET not in str(caught.value) + caught.value.remedy
    assert caught.value.__cause__ is None


pieces = st.sampled_from(["SECRETVALUE", ",", ";", '"', '""', "\n", "\r\n", "\r", " ", "\t", "\u2028", "é", "\0"])


@settings(deadline=None, max_examples=150)
@given(st.lists(pieces, max_size=20).map("".join), st.sampled_from(["a,y\n", "a;y\r\n", '"a","y"\r', ""]))
def test_a_garbage_file_is_read_or_explained_without_quoting_it(tmp_path_factory, body, header):
    try:
        raw = read(tmp_path_factory.mktemp("garbage"), header + body)
    except DataError as error:
        assert SECRET not in str(error)
        assert error.__cause__ is None
    else:
        assert {len(values) for values in raw.columns.values()} == {raw.rows}
        assert not header or list(raw.columns) == ["a", "y"]


@pytest.mark.parametrize(
    "options",
    [
        {"delimeter": ","},
        {"delimiter": ",,"},
        {"delimiter": '"'},
        {"header": False},
        {"names": ["a"]},
        {"header": "no"},
    ],
)
def test_wrong_options_are_refused(tmp_path, options):
    with pytest.raises(TaskError):
        read(tmp_path, "a,y\n1,0\n", **options)


def test_a_misspelt_option_is_corrected(tmp_path):
    with pytest.raises(TaskError) as caught:
        read(tmp_path, "a,y\n1,0\n", delimeter=",")
    assert "did you mean 'delimiter'" in caught.value.remedy


def test_a_folder_stands_for_its_only_csv_file(tmp_path):
    connector, data = CONNECTORS.get("csv"), DataSpec(label="y")
    with pytest.raises(DataError, match=r"holds no \.csv"):
        connector(tmp_path, data, "North")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "one.CSV").write_text("a,y\n1,0\n")
    assert connector(tmp_path, data, "North").source == "one.CSV"
    (tmp_path / "two.csv").write_text("a,y\n1,0\n")
    with pytest.raises(DataError, match=r"several \.csv files: one\.CSV, two\.csv"):
        connector(tmp_path, data, "North")


def test_paths_that_are_no_readable_file_are_explained(tmp_path):
    connector, data = CONNECTORS.get("csv"), DataSpec(label="y")
    with pytest.raises(DataError, match="does not exist"):
        connector(tmp_path / "none.csv", data, "North")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        connector(tmp_path / "pipe.csv", data, "North")
    with pytest.raises(DataError, match=r"with \*, \? or \["):
        read(tmp_path, "a,y\n1,0\n", name="a*.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_explained(tmp_path):
    (tmp_path / "data.csv").write_text("a,y\n1,0\n")
    (tmp_path / "data.csv").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        CONNECTORS.get("csv")(tmp_path / "data.csv", DataSpec(label="y"), "North")


def test_an_unknown_connector_names_the_known():
    with pytest.raises(UserError) as caught:
        CONNECTORS.get("cvs")
    assert "csv" in caught.value.remedy


@pytest.fixture
def locked(tmp_path):
    (tmp_path / "data.csv").write_text("a,y\n1,0\n")
    (tmp_path / "other.csv").write_text("a,y\n2,1\n")
    duckdb.connect(str(tmp_path / "other.duckdb")).close()
    connection = locked_connection(tmp_path / "data.csv")
    yield connection
    connection.close()


def test_the_locked_connection_holds_the_file(locked):
    assert locked.execute("SELECT * FROM rows").fetchall() == [("1", "0")]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('{folder}/other.csv')",
        "SELECT * FROM read_csv('{folder}/data.csv')",
        "SELECT * FROM read_text('{folder}/other.csv')",
        "SELECT * FROM read_blob('{folder}/other.csv')",
        "SELECT * FROM glob('{folder}/*')",
        "FROM '{folder}/other.csv'",
        "FROM '{folder}/data.csv'",
        "ATTACH '{folder}/other.duckdb'",
        "ATTACH '{folder}/data.csv' AS d",
        "ATTACH '{folder}/new.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{folder}/x.duckdb_extension'",
        "COPY rows TO '{folder}/copied.csv'",
        "COPY rows TO '{folder}/data.csv' (USE_TMP_FILE false)",
        "COPY rows FROM '{folder}/other.csv'",
        "EXPORT DATABASE '{folder}/exported'",
        "IMPORT DATABASE '{folder}'",
        "SET threads = 2",
        "SET GLOBAL memory_limit = '8GB'",
        "PRAGMA memory_limit = '8GB'",
        "SET enable_external_access = true",
        "SET allowed_paths = ['{folder}/other.csv']",
        "SET allowed_directories = ['{folder}']",
        "SET temp_directory = '{folder}'",
        "SET lock_configuration = false",
        "SET autoload_known_extensions = true",
        "SET allow_community_extensions = true",
        "RESET enable_external_access",
        "RESET lock_configuration",
        "RESET memory_limit",
        "SET profiling_output = '{folder}/profile'",
    ],
)
def test_the_locked_connection_reaches_nothing_else(locked, tmp_path, statement):
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(duckdb.Error, match=r"disabled|locked|does not exist|Cannot change"):
        locked.execute(statement.format(folder=tmp_path))
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
