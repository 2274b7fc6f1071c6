"""Tables as hospitals send them: each mistake is one clear error, and no cell is ever shown."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cli_runs import SECRET, TASK, Workplace, changed, table, with_cell
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from medfed import api
from medfed.core.errors import QuorumLost, UserError

HEADER = "id,age,sex,ill\n"


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    return Workplace(tmp_path, capsys)


REFUSED: dict[str, tuple[str | bytes, dict[str, Any], tuple[str, ...]]] = {
    "empty file": ("", TASK, ("North (north.csv)", "the file is empty", "remedy: ")),
    "blank lines alone": ("\n \n\r\n", TASK, ("North (north.csv)", "the file is empty")),
    "header only": (HEADER, TASK, ("North (north.csv)", "no rows")),
    "wrong delimiter": (
        table(),
        changed("data.connector", {"name": "csv", "delimiter": ";"}),
        ("North (north.csv)", "no column 'age'"),
    ),
    "a delimiter nobody uses": (table().replace(",", "~"), TASK, ("North (north.csv)", "another delimiter")),
    "missing column": (
        table().replace("age", "aeg"),
        TASK,
        ("North (north.csv)", "no column 'age'", "did you mean 'aeg'"),
    ),
    "no header": (table().partition("\n")[2], TASK, ("North (north.csv)", "remedy: ")),
    "two columns of one name": (table().replace("sex", "age"), TASK, ("columns 2 and 3 have the same name",)),
    "text in numbers": (
        with_cell(5, 1, SECRET),
        TASK,
        ("North (north.csv), column 'age'", "text where numbers are expected in 1 row (first at line 5)"),
    ),
    "decimal commas": (
        table().replace(",", ";").replace("4;", "4,5;"),
        TASK,
        ("column 'age'", "write decimals with a point"),
    ),
    "infinity": (with_cell(3, 1, "inf"), TASK, ("column 'age'", "infinite values in 1 row (first at line 3)")),
    "minus infinity": (with_cell(3, 1, "-Infinity"), TASK, ("column 'age'", "infinite values")),
    "a number beyond float64": (with_cell(3, 1, "1e999"), TASK, ("column 'age'", "infinite values")),
    "label outside its set": (
        with_cell(9, 3, SECRET),
        TASK,
        ("column 'ill'", "a label outside the declared set in 1 row (first at line 9)"),
    ),
    "level outside its set": (with_cell(9, 2, "7"), TASK, ("column 'sex'", "a level outside the declared set")),
    "no id": (with_cell(4, 0, ""), TASK, ("column 'id'", "no patient id in 1 row (first at line 4)")),
    "a column without any value": (
        HEADER + "".join(f"{SECRET}{k},,{k % 2},1\n" for k in range(9)),
        TASK,
        ("North, column 'age'", "no row has a value"),
    ),
    "no label at all": (
        HEADER + "".join(f"{SECRET}{k},5,{k % 2},\n" for k in range(9)),
        TASK,
        ("North", "no row is left"),
    ),
    "all missing": (
        HEADER + "".join(f"{SECRET}{k},NA,,\n" for k in range(9)),
        TASK,
        ("North", "no row has a value"),
    ),
    "a line too long": (with_cell(4, 3, f"1,{SECRET}"), TASK, ("line 4: 4 columns were expected, 5 found",)),
    "a line too short": (table() + f"{SECRET}\n", TASK, ("North (north.csv)", "line 26: ")),
    "an open quotation mark": (table() + f'"{SECRET},1,1,1\n', TASK, ("North (north.csv)", "quot")),
    "not UTF-8": (table().encode() + SECRET.encode() + b"\xff\xfe,4,1,0\n", TASK, ("line 26: ", "not UTF-8")),
    "UTF-16": (table().encode("utf-16"), TASK, ("North (north.csv)", "save it as UTF-8 text")),
    "NUL bytes": (table().encode() + SECRET.encode() + b"\0,4,1,0\n", TASK, ("line 26: ", "NUL")),
    "a value out of its bounds": (
        with_cell(3, 1, "400"),
        changed("data.columns.age", {"type": "continuous", "maximum": 120}),
        ("column 'age'", "values above the maximum in 1 row (first at line 3)"),
    ),
    "a split of another name": (
        table().replace("sex", "part"),
        changed("data.split", {"column": "part"}),
        ("North (north.csv)",),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_cannot_be_used_is_one_clear_error(place: Workplace, case: str) -> None:
    content, task, fragments = REFUSED[case]
    place.write(content, task)
    ended = place.run()
    place.assert_nothing_leaked(ended)
    for fragment in fragments:
        assert fragment in ended.told
    assert ended.status == 2, ended.told
    assert len(re.findall("^error: ", ended.err, re.MULTILINE)) == 1


@pytest.mark.parametrize("line", [3, 5], ids=["where it is scored", "where it is trained on"])
def test_a_number_too_huge_to_count_with_stops_the_run_before_it_trains_and_says_why(
    place: Workplace, line: int
) -> None:
    """Nothing was computed, so no folder is left."""
    place.write(with_cell(line, 1, "1e308"))
    ended = place.run()
    place.assert_nothing_leaked(ended)
    assert ended.status == 2
    assert "North: numbers too large" in ended.err
    assert "in column 'age'" in ended.err
    assert "1e308" not in ended.told
    assert not (place.folder / "run").exists()
    place.write()
    assert place.run().status == 0


@pytest.mark.parametrize("case", ["empty file", "text in numbers", "label outside its set", "a line too long"])
def test_the_same_as_json(place: Workplace, case: str) -> None:
    content, task, _ = REFUSED[case]
    place.write(content, task)
    ended = place.run("--json")
    place.assert_nothing_leaked(ended)
    assert ended.status == 2
    told = json.loads(ended.out.splitlines()[-1])
    assert set(told) == {"error", "where", "cause", "remedy"}
    assert told["error"] == "data"
    assert "North" in told["where"]
    assert told["remedy"]


def test_nothing_is_begun_where_the_data_cannot_be_read(place: Workplace) -> None:
    place.write(with_cell(5, 1, SECRET))
    assert place.run().status == 2
    assert not (place.folder / "run").exists()
    place.write()
    assert place.run("--quiet").status == 0


def test_a_second_run_into_the_same_folder_destroys_nothing(place: Workplace) -> None:
    place.write()
    assert place.run("--quiet").status == 0
    before = {path: path.read_bytes() for path in (place.folder / "run").rglob("*") if path.is_file()}
    again = place.run("--quiet")
    assert again.status == 2
    assert "there is a finished run in this folder already" in again.err
    assert {path: path.read_bytes() for path in (place.folder / "run").rglob("*") if path.is_file()} == before


RUNS: dict[str, str | bytes] = {
    "byte order mark": b"\xef\xbb\xbf" + table().encode(),
    "Windows line ends": table().replace("\n", "\r\n"),
    "semicolons": table().replace(",", ";"),
    "duplicated rows": table() + table().splitlines()[3] + "\n",
    "one patient in several rows": table() + f"{SECRET}-000,77,1,1\n",
    "some missing": with_cell(3, 1, "NA"),
    "NaN is a missing marker": with_cell(3, 1, "NaN"),
    "a huge but finite number": with_cell(3, 1, "1e9"),
    "one class": table(ill="1"),
    "one row": table(1),
    "unicode cells": with_cell(3, 0, f"{SECRET}-Müller-Ωμέγα-病人"),
    "an extra column": table()
    .replace("ill\n", f"ill,{'comment'}\n")
    .replace("0\n", f"0,{SECRET}\n")
    .replace("1\n", f"1,{SECRET}\n"),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_table_that_is_unusual_but_sound_runs(place: Workplace, case: str) -> None:
    place.write(RUNS[case])
    ended = place.run()
    assert ended.status == 0, ended.told
    place.assert_nothing_leaked(ended)
    assert (place.folder / "run" / "report.html").is_file()


def results(place: Workplace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place.folder / "run" / "results.json").read_text())
    return found


def test_at_a_site_of_one_class_the_auc_is_said_not_to_exist(place: Workplace) -> None:
    place.write(table(60, ill="1"))
    assert place.run("--quiet").status == 0
    measured = results(place)["metrics"]["test"]["North"]
    assert measured["auc"]["value"] is None
    assert "class" in measured["auc"]["reason"]
    assert measured["loss"]["value"] is not None


def test_rows_that_repeat_are_kept_once(place: Workplace) -> None:
    place.write(table(40) + "\n".join(table(40).splitlines()[1:13]) + "\n")
    assert place.run("--quiet").status == 0
    sheet = json.loads((place.folder / "run" / "sheets.json").read_text())["North"]
    assert (sheet["rows"], sheet["duplicates"]) == (40, 12)


def test_a_site_without_validation_rows_runs(place: Workplace) -> None:
    task = changed("data.split", {"column": "part"})
    parts = ["train"] * 10 + ["test"] * 10
    north = "\n".join(
        ["id,age,sex,ill,part", *(f"{SECRET}{k},{40 + k},{k % 2},{k // 2 % 2},{p}" for k, p in enumerate(parts))]
    )
    parts = ["train"] * 10 + ["validation"] * 8 + ["test"] * 10
    south = "\n".join(
        ["id,age,sex,ill,part", *(f"other{k},{40 + k},{k % 2},{k // 2 % 2},{p}" for k, p in enumerate(parts))]
    )
    task["evaluation"] = {"split": "validation"}
    place.write(north + "\n", task)
    (place.folder / "south.csv").write_text(south + "\n")
    ended = place.run()
    assert ended.status == 0, ended.told
    place.assert_nothing_leaked(ended)
    assert results(place)["metrics"]["validation"]["North"]["loss"]["value"] is None


@pytest.mark.parametrize("column", ["Größe", "年齢", "l'âge (ans)", "a.b", "x,y", "o'; DROP TABLE rows --"])
def test_columns_and_sites_of_any_script(place: Workplace, column: str) -> None:
    task = changed("data.columns", {column: "continuous", "sex": {"type": "binary", "levels": [0, 1]}})
    task["sites"] = {"Łódź": "łódź.csv", "東京": "south.csv"}
    quoted = f'"{column}"'
    place.write(task=task)
    (place.folder / "łódź.csv").write_text(table().replace("age", quoted))
    (place.folder / "south.csv").write_text(table(prefix="other").replace("age", quoted))
    ended = place.run()
    assert ended.status == 0, ended.told
    assert "- Łódź Loss: " in ended.out
    assert "- 東京 Loss: " in ended.out
    assert column in results(place)["features"]
    assert place.medfed("ledger", "verify", place.folder / "run").status == 0


def test_a_folder_in_place_of_a_file_and_an_empty_one(place: Workplace) -> None:
    place.write()
    (place.folder / "north.csv").unlink()
    (place.folder / "north.csv").mkdir()
    ended = place.run()
    assert ended.status == 2
    assert "holds no .csv file" in ended.err
    assert "North" in ended.err
    for name in ("a.csv", "b.csv"):
        (place.folder / "north.csv" / name).write_text(table())
    ended = place.run()
    assert ended.status == 2
    assert "several .csv files: a.csv, b.csv" in ended.err


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads every file")
def test_a_file_that_may_not_be_read(place: Workplace) -> None:
    place.write()
    (place.folder / "north.csv").chmod(0)
    ended = place.run()
    assert ended.status == 2
    assert "cannot be read (Permission denied)" in ended.err


def test_a_pipe_is_no_file(place: Workplace) -> None:
    place.write()
    (place.folder / "north.csv").unlink()
    os.mkfifo(place.folder / "north.csv")
    ended = place.run()
    assert ended.status == 2
    assert "neither a file nor a folder" in ended.err


def test_a_file_that_is_not_there(place: Workplace) -> None:
    place.write()
    (place.folder / "north.csv").unlink()
    ended = place.run()
    assert ended.status == 2
    assert "task.yaml:" in ended.err
    assert "there is no 'north.csv'" in ended.err
    assert "south.csv" in ended.err


def test_an_id_from_a_bad_prediction_table_is_not_shown(place: Workplace) -> None:
    place.write()
    assert place.run("--quiet").status == 0
    (place.folder / "new.csv").write_text(with_cell(4, 1, SECRET))
    ended = place.medfed("predict", place.folder / "run", place.folder / "new.csv")
    assert ended.status == 2
    assert "column 'age'" in ended.err
    place.assert_nothing_leaked(ended)


cells = st.sampled_from(
    ["", "0", "1", "40", "NA", "1e308", "-inf", "nan", SECRET, '"', '""', ",", ";", "\x00", "\u2028"]
)
garbage = (
    st.binary(max_size=200)
    | st.lists(st.lists(cells, max_size=6).map(",".join), max_size=12).map(lambda rows: "\n".join(rows).encode())
    | st.lists(st.lists(cells, min_size=4, max_size=4).map(",".join), max_size=20).map(
        lambda rows: (HEADER + "\n".join(rows)).encode()
    )
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=garbage)
@example(content=b"\xef\xbb\xbf")
@example(content=b"id,age,sex,ill\r")
@example(content=HEADER.encode() + b'"' * 50)
def test_any_bytes_in_place_of_a_table_are_read_or_explained(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "north.csv").write_bytes(content)
        (folder / "south.csv").write_text(table(prefix="other"))
        try:
            api.build(TASK, data=folder).initialize()
        except (UserError, QuorumLost) as error:
            assert error.where or "North: " in error.cause
            assert SECRET not in str(error)
