"""Reading run folders: what is malformed is named by file and line, what is absent is absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_folders import Kind, compare_folder, run_folder

from medfed.core.errors import RunFolderError
from medfed.report.folder import read_comparison, read_run
from medfed.report.page import write_report

GOOD = '{"round": 1, "site": "A", "split": "test", "metric": "loss", "value": 0.5, "n": 9}\n'


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("metrics.jsonl", GOOD + "{oops\n" + GOOD, "metrics.jsonl:2"),
        ("metrics.jsonl", GOOD + "\n" + '{"round": "1"}\n', "metrics.jsonl:3"),
        ("metrics.jsonl", GOOD + "[]\n", "metrics.jsonl:2"),
        ("metrics.jsonl", GOOD + GOOD.replace("0.5", '"high"'), "metrics.jsonl:2"),
        ("metrics.jsonl", "[" * 100_000 + "\n", "metrics.jsonl:1"),
        ("results.json", '{\n "medfed": "1",\n oops\n}', "results.json:3"),
        ("results.json", "{}", "results.json:1"),
        ("sheets.json", '{"A": {"rows": "many"}}', "sheets.json:1"),
        ("environment.json", "", "environment.json:1"),
        ("ledger/Cleveland.jsonl", '{"kind": "opened"}\n{"kind": "release"}\n', "Cleveland.jsonl:2"),
        ("ledger/Cleveland.jsonl", '{"run": "x"}\n', "Cleveland.jsonl:1"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, name: str, content: str, where: str) -> None:
    folder = run_folder(tmp_path / "run", Kind(rounds=1))
    (folder / name).write_text(content)
    with pytest.raises(RunFolderError) as caught:
        write_report(folder)
    assert caught.value.where.endswith(where)
    assert caught.value.remedy


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(rounds=1))
    (folder / "metrics.jsonl").write_bytes(GOOD.encode() + b"\xff\n")
    with pytest.raises(RunFolderError, match="UTF-8") as caught:
        write_report(folder)
    assert caught.value.where.endswith("metrics.jsonl:2")


def test_an_error_quotes_no_value(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(rounds=1))
    (folder / "sheets.json").write_text('{"A": {"rows": "secret-value"}}')
    with pytest.raises(RunFolderError) as caught:
        write_report(folder)
    assert "secret-value" not in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run here"):
        write_report(tmp_path)


def test_a_line_that_a_kill_left_unfinished_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(GOOD + GOOD[:30])
    assert read_run(tmp_path).history("test", "A", "loss").values == (0.5,)


def test_the_later_line_of_a_round_counts_and_rounds_are_sorted(tmp_path: Path) -> None:
    lines = [
        GOOD.replace('"round": 1', f'"round": {r}').replace("0.5", str(v)) for r, v in ((2, 0.4), (1, 0.6), (2, 0.3))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    series = read_run(tmp_path).history("test", "A", "loss")
    assert series.rounds == (1, 2)
    assert series.values == (0.6, 0.3)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_value_that_is_no_number_is_none_with_a_reason(tmp_path: Path, value: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(GOOD.replace("0.5", value))
    (measure,) = read_run(tmp_path).history("test", "A", "loss").measures
    assert measure.value is None
    assert measure.reason == "not a finite number"


def test_signed_heads_are_no_ledger_and_parties_are_no_hospitals(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(sites=("A", "B"), rounds=1))
    (folder / "ledger" / "A.heads.jsonl").write_text('{"size": 3}\n')
    (folder / "ledger" / "coordinator.jsonl").write_text('{"kind": "opened"}\n')
    run = read_run(folder)
    assert [ledger.party for ledger in run.ledgers] == ["A", "B", "coordinator"]
    assert run.sites == ("A", "B")


@pytest.mark.parametrize("name", ["../outside", "/etc", "..", ""])
def test_a_comparison_reads_only_folders_in_it(tmp_path: Path, name: str) -> None:
    folder = compare_folder(tmp_path / "cmp", ("local",), rounds=1)
    described = json.loads((folder / "comparison.json").read_text()) | {"folders": {"local": name}}
    (folder / "comparison.json").write_text(json.dumps(described))
    with pytest.raises(RunFolderError, match="folder does not lie"):
        read_comparison(folder)
