from __future__ import annotations

from pathlib import Path

import pytest
from report_folders import Kind, compare_folder, run_folder

from medfed.core.errors import RunFolderError
from medfed.report import write_model_card


def card(folder: Path) -> str:
    return write_model_card(folder).read_text(encoding="utf-8")


def test_it_says_what_a_reader_must_know(tmp_path: Path) -> None:
    text = card(run_folder(tmp_path / "run", Kind(rounds=50)))
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "The model",
        "Intended use",
        "Data",
        "What it reached",
        "How it was trained",
        "Privacy: what left each hospital",
        "Limits",
        "How to use it",
        "Environment",
    ]
    assert "It is **not** a medical device." in text
    assert "| Switzerland | 197 | withheld | 30 |" in text
    assert "± 0.0004" in text
    assert "- [a] one class only" in text
    assert "| Cleveland | fedavg.train\\_locally | 50 | sum | 7.6 kB |" in text
    assert "medfed predict run patients.csv" in text
    assert "Optimiser adam, learning rate 0.01, batches of 4, 1 local epoch per round." in text


def test_tables_have_as_many_cells_in_every_row(tmp_path: Path) -> None:
    text = card(run_folder(tmp_path / "run", Kind(sites=("a|b", "<script>", "c\\"), rounds=2)))
    widths: list[int] = []
    for line in text.splitlines():
        if line.startswith("|"):
            widths.append(line.replace("\\\\", "").replace("\\|", "").count("|"))
        elif widths:
            assert len(set(widths)) == 1 and len(widths) > 2
            widths = []
    assert "<script" not in text


def test_it_is_made_of_what_there_is_and_is_the_same_again(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(rounds=2))
    assert card(folder) == card(folder)
    for name in ("results.json", "sheets.json", "environment.json"):
        (folder / name).unlink()
    text = card(folder)
    assert "No results were written" in text
    assert "Not recorded." in text


def test_a_comparison_has_no_card(tmp_path: Path) -> None:
    folder = compare_folder(tmp_path / "cmp", ("local",), rounds=1)
    with pytest.raises(RunFolderError, match="a model per strategy"):
        write_model_card(folder)
