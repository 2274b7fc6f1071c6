"""Every model at every site: against sklearn, at the site's own discretion, and legible for any number of sites."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas
import pytest
from sklearn.metrics import roc_auc_score

import medfed.api as medfed
from medfed.data.splits import assign_splits
from medfed.report.cross_site import cross_table
from medfed.report.folder import read_cross_site
from medfed.report.records import CrossSite
from medfed.spec.task import Splits

NAMES = ("Aarhus", "Bergen", "Cork")
SPLIT = {"train": 0.5, "validation": 0.1, "test": 0.4}


def table(site, rows=150):
    rng = np.random.default_rng(sum(site.encode()))
    age = rng.normal(60, 10, rows)
    slope = -1 if site == "Cork" else 1  # what is true of two sites is the reverse at the third
    ill = (rng.random(rows) < 1 / (1 + np.exp(-slope * (age - 60) / 4))).astype(int)
    return pandas.DataFrame({"id": [f"{site}{i}" for i in range(rows)], "age": age, "ill": ill})


def task(**more):
    return {
        "name": "across",
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg", "rounds": 3, "lr": 0.5},
        "data": {
            "id": "id",
            "label": {"column": "ill", "classes": [0, 1]},
            "columns": {"age": "continuous"},
            "split": SPLIT,
        },
        "compare": {"strategies": ["local", "pooled", "fedavg"]},
        "seed": 3,
        **more,
    }


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("across") / "compared"
    medfed.compare(task(), {name: table(name) for name in NAMES}, output=folder)
    return folder


def test_each_cell_is_the_auc_that_sklearn_finds_on_that_sites_test_patients(compared):
    cross = json.loads((compared / "cross_site.json").read_text())
    assert [(row["strategy"], row["site"]) for row in cross["models"]] == [
        *(("local", name) for name in NAMES),
        ("pooled", ""),
        ("fedavg", ""),
    ]
    for row in cross["models"]:
        for name in NAMES:
            frame = table(name)
            test = assign_splits(frame["id"].tolist(), None, Splits(**SPLIT), 3) == 2
            scores = medfed.predict(compared / row["strategy"], frame[test], site=row["site"] or None)
            expected = roc_auc_score(frame["ill"][test], scores["probability_1"].astype(float))
            assert row["metrics"][name]["auc"]["value"] == pytest.approx(expected)
            assert row["metrics"][name]["auc"]["n"] == test.sum()


def test_at_home_and_of_shared_models_it_says_what_the_runs_say(compared):
    cross = json.loads((compared / "cross_site.json").read_text())
    for row in cross["models"]:
        results = json.loads((compared / row["strategy"] / "results.json").read_text())["metrics"]["test"]
        for name in [row["site"]] if row["site"] else NAMES:
            for metric, measure in row["metrics"][name].items():
                assert measure["value"] == pytest.approx(results[name][metric]["value"])


def test_the_report_shows_the_matrix_and_the_csv_has_every_metric(compared):
    page = (compared / "report.html").read_text()
    assert "Every model at every hospital" in page and 'class="num home"' in page
    lines = list(csv.DictReader((compared / "cross_site.csv").read_text().splitlines()))
    assert len(lines) == 5 * 3 * 6
    assert {line["split"] for line in lines} == {"test"}
    cork = next(m for m in lines if (m["model_of"], m["tested_at"], m["metric"]) == ("Aarhus", "Cork", "auc"))
    assert float(cork["value"]) < 0.3  # the model of a site where the reverse is true
    ledger = (compared / "cross_site" / "ledger" / "Cork.jsonl").read_text()
    assert ledger.count('"evaluation.own_metrics"') == 5


def test_what_a_policy_refuses_is_withheld_and_held_out_sites_are_columns(tmp_path):
    for name in NAMES:
        table(name).to_csv(tmp_path / f"{name}.csv", index=False)
    allowed = "tasks: '*'\ntask_types: '*'\nalgorithms: '*'\nsteps: '*'\nreleases: [sum, levels]\n"
    (tmp_path / "shy.yaml").write_text(allowed)
    sites = {"Aarhus": "Aarhus.csv", "Bergen": {"data": "Bergen.csv", "policy": "shy.yaml"}, "Cork": "Cork.csv"}
    wanted = task(sites=sites, evaluation={"holdout": ["Cork"]}, compare={"strategies": ["local", "fedavg"]})
    medfed.compare(wanted, data=tmp_path, output=tmp_path / "out")
    cross = read_cross_site(tmp_path / "out")
    assert cross.external == ("Cork",) and [row.site for row in cross.models] == ["Aarhus", "Bergen", ""]
    for row in cross.models:
        assert {m.reason for m in row.metrics["Bergen"].values()} == {"withheld"}
        assert row.metrics["Cork"]["auc"].n == 150  # all of its rows
    shown = cross_table(cross)
    assert [cell.text for cell in shown.rows[0].cells][1] == "withheld"
    assert "withheld" in (tmp_path / "out" / "report.html").read_text()


def test_where_totals_alone_leave_it_is_not_measured_and_the_report_says_so(tmp_path):
    wanted = task(privacy={"aggregation": "secure"}, compare={"strategies": ["local", "fedavg"]})
    medfed.compare(wanted, {name: table(name) for name in NAMES}, output=tmp_path / "out")
    assert not (tmp_path / "out" / "cross_site").exists()
    assert "no hospital&#39;s own figures leave it" in (tmp_path / "out" / "report.html").read_text()


def test_without_models_of_their_own_there_is_no_matrix(tmp_path):
    wanted = task(compare={"strategies": ["pooled", "fedavg"]})
    medfed.compare(wanted, {name: table(name) for name in NAMES}, output=tmp_path / "out")
    assert not (tmp_path / "out" / "cross_site.json").exists()
    assert "Every model at every" not in (tmp_path / "out" / "report.html").read_text()


def test_many_sites_are_summarised_by_quantiles():
    rng = np.random.default_rng(0)
    sites = [f"site-{i:02}" for i in range(25)]
    values = rng.uniform(0.5, 0.9, (25, 25))
    models = [
        {
            "strategy": "local",
            "site": site,
            "metrics": {other: {"auc": {"value": v, "n": 10}} for other, v in zip(sites, row.tolist(), strict=True)},
        }
        for site, row in zip(sites, values, strict=True)
    ]
    shown = cross_table(CrossSite.model_validate({"split": "test", "models": models}))
    assert shown.summarised and len(shown.columns) == 6
    away = np.delete(values[3], 3)
    found = [float(cell.text) for cell in shown.rows[3].cells]
    expected = [values[3, 3], away.min(), *np.quantile(away, [0.25, 0.5, 0.75]), away.max()]
    np.testing.assert_allclose(found, expected, atol=6e-4)
