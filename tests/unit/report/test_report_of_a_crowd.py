"""The report of a run with more hospitals than a page can list."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_outline import Outline
from report_folders import Kind, compare_folder, run_folder

from medfed.report import write_model_card, write_report
from medfed.report.figures import spread
from medfed.report.finals import five_numbers, shown_sites
from medfed.report.folder import read_run
from medfed.report.tables import all_that_left, final_metrics
from medfed.report.words import number

SITES = tuple(f"Hospital {i:04d}" for i in range(2000))
CROWD = Kind(sites=SITES, rounds=3)


def keep_lines(folder: Path, keep) -> None:
    """Keep those lines of metrics.jsonl for which ``keep(round, site)`` holds."""
    path = folder / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines() if keep((read := json.loads(line))["round"], read["site"])]
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand hospitals, each measured at the end only."""
    made = run_folder(tmp_path_factory.mktemp("crowd") / "run", CROWD)
    keep_lines(made, lambda _round, site: site == "federated")
    return made


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def final(folder: Path, metric: str) -> dict[str, float]:
    by_site = json.loads((folder / "results.json").read_text())["metrics"]["test"]
    values = {site: measures[metric]["value"] for site, measures in by_site.items() if site != "federated"}
    return {site: value for site, value in values.items() if value is not None}


def test_the_page_stays_small_and_whole(html: str) -> None:
    assert len(html) < 1_000_000
    outline = Outline(html)
    assert outline.open == []
    assert outline.tags.count("tr") < 120


def test_the_best_and_the_worst_have_a_row_and_the_others_are_counted(folder: Path, html: str) -> None:
    auc = final(folder, "auc")
    ranked = sorted(auc, key=auc.__getitem__)
    listed = re.findall(r'<tr><th scope="row">(Hospital \d+)</th>', html)
    assert listed[:10] == [*ranked[::-1][:5], *ranked[::-1][-5:]]
    assert "1,990 more hospitals are in results.json." in Outline(html).text


def test_the_quantiles_are_numpys(folder: Path, html: str) -> None:
    values = list(final(folder, "auc").values())
    theirs = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(five_numbers(values), theirs, rtol=1e-12)
    median = re.search(r'<th scope="row">Median hospital</th>.*?</tr>', html, re.DOTALL)
    assert median and f">{number(theirs[2])}<" in median.group()
    text = Outline(html).text
    assert f"has a median of {number(theirs[2])}; half of them lie between {number(theirs[1])}" in text
    assert "Hospital 0002: no test AUC (one class only)." in text


def test_it_says_that_the_curves_are_of_no_single_hospital(html: str) -> None:
    text = Outline(html).text
    assert "each was measured at the end only; the rounds show those that took part, together" in text
    assert "percentile" not in text


def test_what_left_all_hospitals_is_one_entry(html: str) -> None:
    # 2,000 ledgers, each of 1 + 3·3 releases of 312 + 3·(152 + 240 + 16128) bytes
    assert "20,000 releases, 99.7 MB, 1 refusal" in Outline(html).text


def test_warnings_are_counted(html: str) -> None:
    assert "1 hospital: only one class is present" in Outline(html).text


def test_a_sampled_cohort_is_shown_by_its_spread(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", replace(CROWD, sites=SITES[:200]))
    cohorts = {r: {*SITES[r * 20 : r * 20 + 30], "federated"} for r in (1, 2, 3)}
    keep_lines(folder, lambda number_of, site: site in cohorts[number_of])
    run = read_run(folder)
    found = spread(run, "validation", "accuracy")
    assert [series.rounds for series in found.values()] == [(1, 2, 3)] * 3
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for r in (1, 2, 3):
        values = [
            p["value"]
            for p in points
            if (p["round"], p["split"], p["metric"]) == (r, "validation", "accuracy") and p["site"] != "federated"
        ]
        assert len(values) == 30
        theirs = np.quantile(values, [0.9, 0.5, 0.1])
        np.testing.assert_allclose([series.values[r - 1] for series in found.values()], theirs, rtol=1e-12)
    text = Outline(write_report(folder).read_text(encoding="utf-8")).text
    assert "each round’s are over the hospitals measured in that round" in text
    assert "Median of hospitals" in text


def test_without_any_value_the_first_hospitals_are_shown(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(sites=SITES[:60], rounds=1, valueless=True))
    assert shown_sites(read_run(folder)) == SITES[:10]
    assert "50 more hospitals" in Outline(write_report(folder).read_text(encoding="utf-8")).text


def test_up_to_fifty_hospitals_all_have_a_row(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path / "run", Kind(sites=SITES[:50], rounds=1)))
    assert [row.label for row in final_metrics(run, "test").rows] == [*SITES[:50], "Federated"]
    assert [left.site for left in all_that_left(run)] == [*SITES[:50]]


def test_the_model_card_stays_short(folder: Path) -> None:
    text = write_model_card(folder).read_text(encoding="utf-8")
    assert len(text) < 50_000
    assert "of 2,000; all are in `results.json`" in text
    assert "| All hospitals |" in text


def test_a_comparison_stays_short(tmp_path: Path) -> None:
    folder = compare_folder(tmp_path / "all", ("local", "fedavg"), sites=SITES[:300], rounds=1)
    html = write_report(folder).read_text(encoding="utf-8")
    assert len(html) < 500_000
    text = Outline(html).text
    assert "290 more hospitals are in results.json." in text
    assert "Mean of hospitals" in text


def test_refusals_beyond_a_hundred_are_counted(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(sites=SITES[:60], rounds=1))
    refusal = json.dumps({"kind": "refusal", "step": "s.s", "code": "c", "sentence": "no more"}) + "\n"
    (folder / "ledger" / f"{SITES[0]}.jsonl").write_text(refusal * 250)
    text = Outline(write_report(folder).read_text(encoding="utf-8")).text
    assert text.count("no more") == 100
    assert "151 more refusals in the ledgers" in text


def test_where_the_time_went_is_shown_where_it_was_recorded(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(rounds=1))
    assert "Where the time went" not in Outline(write_report(folder).read_text(encoding="utf-8")).text
    results = json.loads((folder / "results.json").read_text())
    phases = [
        {"phase": "train", "seconds": 12.25, "share": 0.875},
        {"phase": "gate", "seconds": 1.75, "share": 0.125},
    ]
    results["timings"] = {"first_round": 1.5, "phases": phases}
    (folder / "results.json").write_text(json.dumps(results))
    html = write_report(folder).read_text(encoding="utf-8")
    assert re.search(r"train</th><td[^>]*>12\.2 s</td><td[^>]*>87\.5 %</td>", html)
    assert "The first round was over after 1.5 s." in Outline(html).text
