from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from html_outline import Outline
from report_folders import compare_folder

from medfed.report import write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare_folder(tmp_path_factory.mktemp("made") / "cmp", ("local", "pooled", "fedavg"), rounds=3)


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def final(folder: Path, strategy: str, site: str, metric: str) -> float:
    value = json.loads((folder / strategy / "results.json").read_text())["metrics"]["test"][site][metric]["value"]
    assert isinstance(value, float)
    return value


def test_every_run_gets_its_own_report(folder: Path, html: str) -> None:
    outline = Outline(html)
    reports = [link for a in outline.named("a") if (link := str(a["href"])).endswith("report.html")]
    assert reports == ["local/report.html", "pooled/report.html", "fedavg/report.html"]
    assert all((folder / report).is_file() for report in reports)


def test_the_mean_is_over_the_hospitals_that_all_strategies_have(folder: Path, html: str) -> None:
    text = Outline(html).text
    sites = ("Cleveland", "Hungarian", "VA Long Beach")  # there is no AUC at the fourth
    means = {s: sum(final(folder, s, site, "auc") for site in sites) / 3 for s in ("local", "pooled", "fedavg")}
    assert "the mean test AUC over three of four hospitals is" in text
    assert f"and Local {means['local']:.3f}" in text
    gain = means["fedavg"] - means["local"]
    assert f"FedAvg is better at all three hospitals (+{gain:.3f} on average)" in text


def test_the_best_of_a_row_stands_out(folder: Path, html: str) -> None:
    losses = {strategy: final(folder, strategy, "Cleveland", "loss") for strategy in ("local", "pooled", "fedavg")}
    row = html[html.index("Loss on the test split</caption>") :]
    row = row[row.index('<th scope="row">Cleveland</th>') :]
    assert f'<span class="best">{min(losses.values()):.3f}</span>' in row[: row.index("</tr>")]


def test_the_same_folder_gives_the_same_bytes(folder: Path, html: str) -> None:
    assert write_report(folder).read_bytes() == html.encode()


def test_a_strategy_that_has_not_run_is_said_to_be_missing(tmp_path: Path) -> None:
    folder = compare_folder(tmp_path / "cmp", ("local", "fedavg"), rounds=2)
    shutil.rmtree(folder / "local")
    (folder / "fedavg" / "results.json").unlink()
    text = Outline(write_report(folder).read_text()).text
    assert "Not run yet: Local." in text
    assert "no results yet" in text


def test_a_comparison_without_any_run_is_still_a_page(tmp_path: Path) -> None:
    folder = compare_folder(tmp_path / "cmp", ("fedavg",), rounds=1)
    shutil.rmtree(folder / "fedavg")
    assert "Not run yet: FedAvg." in Outline(write_report(folder).read_text()).text
