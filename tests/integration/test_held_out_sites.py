"""Sites that never train: nothing of theirs is in the model, and their figures stand apart."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, roc_auc_score

import medfed.api as medfed
from medfed.core.errors import TaskError, UserError

SITES = ("Aarhus", "Bergen", "Cork")


def table(site, rows=80):
    """Rows of a hospital; Cork's are on another scale, and have a level and a range that no other has."""
    rng = np.random.default_rng(sum(site.encode()))
    age = rng.normal(60, 10, rows) + (100 if site == "Cork" else 0)
    ward = rng.choice(["a", "b", "zz" if site == "Cork" else "b"], rows)
    ill = (rng.random(rows) < 1 / (1 + np.exp(-(age - age.mean()) / 5))).astype(int)
    return pandas.DataFrame({"id": [f"{site}{i}" for i in range(rows)], "age": age, "ward": ward, "ill": ill})


def task(*, holdout=(), strategy="fedavg", **more):
    return {
        "name": "held out",
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": strategy, "rounds": 4, "lr": 0.1, "batch_size": 16},
        "data": {
            "id": "id",
            "label": {"column": "ill", "classes": [0, 1]},
            "columns": {"age": "continuous", "ward": "categorical"},
            "missing": {"strategy": "impute"},
        },
        "evaluation": {"holdout": list(holdout)},
        "seed": 3,
        **more,
    }


def sites(*names):
    return {name: table(name) for name in names}


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("fedavg", {}),
        ("scaffold", {}),
        ("pooled", {}),
        ("local", {}),
        ("fedavg", {"stop": {"metric": "loss", "patience": 1}}),
        ("fedavg", {"engine": {"workers": 2, "batched": "off"}}),
    ],
)
def test_the_weights_are_the_same_to_the_bit_as_without_the_site(tmp_path, strategy, more):
    with_it = medfed.run(task(holdout=["Cork"], strategy=strategy, **more), sites(*SITES), output=tmp_path / "with")
    without = medfed.run(task(strategy=strategy, **more), sites(*SITES[:2]), output=tmp_path / "without")
    assert with_it.state.round == without.state.round
    models = sorted(
        path.relative_to(tmp_path / "without") for path in (tmp_path / "without").rglob("model.safetensors")
    )
    assert models == sorted(p.relative_to(tmp_path / "with") for p in (tmp_path / "with").rglob("model.safetensors"))
    for model in models:
        kept, expected = load_file(tmp_path / "with" / model), load_file(tmp_path / "without" / model)
        assert all(np.array_equal(kept[name], expected[name]) for name in expected)
        encodings = [(tmp_path / run / model).with_name("encoding.bin").read_bytes() for run in ("with", "without")]
        assert encodings[0] == encodings[1]
    results = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("with", "without")]
    for split in ("train", "validation", "test"):
        assert results[0]["metrics"][split] == results[1]["metrics"][split]


def test_its_figures_stand_apart_in_results_rounds_and_report(tmp_path):
    medfed.run(task(holdout=["Cork"]), sites(*SITES), output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["metrics"]["external"]) == {"Cork"}
    assert results["rows"]["Cork"] == {"external": 80}
    rounds = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {r["site"] for r in rounds if r["split"] == "external"} == {"Cork"}
    assert "Cork" not in {r["site"] for r in rounds if r["split"] != "external"}
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Metrics at held-out hospitals" in report and "Cork took no part in training" in report


def test_the_external_auc_is_that_of_a_second_implementation(tmp_path):
    given = sites(*SITES)
    for each in given.values():
        each["ward"] = "a"
        each.loc[::2, "ward"] = "b"
    medfed.run(task(holdout=["Cork"]), given, output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    scores = medfed.predict(tmp_path / "run", given["Cork"])["probability_1"].astype(float)
    measured = results["metrics"]["external"]["Cork"]
    assert measured["auc"]["value"] == pytest.approx(roc_auc_score(given["Cork"]["ill"], scores))
    assert measured["auc"]["n"] == 80
    assert measured["accuracy"]["value"] == pytest.approx(accuracy_score(given["Cork"]["ill"], scores >= 0.5))
    assert "Cork" in results["roc"]


def test_a_site_whose_rows_do_not_fit_stops_nothing_and_says_no_answer(tmp_path):
    given = sites(*SITES) | {"Cork": table("Cork").assign(ill="none")}
    wanted = task(holdout=["Cork"])
    del wanted["data"]["label"]["classes"]
    medfed.run(wanted, given, output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["status"] == "complete"
    assert {m["reason"] for m in results["metrics"]["external"]["Cork"].values()} == {"no answer"}


def test_a_site_of_another_shape_is_told_with_the_shape_each_time_it_is_measured(tmp_path):
    for seed, (site, side) in enumerate({"North": 8, "Cork": 10}.items()):
        images = np.random.default_rng(seed).random((30, side, side))
        np.savez(tmp_path / f"{site}.npz", images=images, labels=np.arange(30) % 2)
    wanted = {
        "task_type": "classification",
        "model": {"name": "logistic", "input_size": [1, 8, 8]},
        "federation": {"strategy": "fedavg", "rounds": 2},
        "data": {"connector": "npz", "label": {"column": "label", "classes": [0, 1]}},
        "sites": {"North": "North.npz", "Cork": "Cork.npz"},
        "evaluation": {"holdout": ["Cork"]},
    }
    medfed.run(wanted, data=tmp_path, output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    told = {absence["sentence"] for absence in results["absences"]}
    (sentence,) = told
    assert "an image has the shape [1, 10, 10], and the task's model takes [1, 8, 8]" in sentence
    assert "write their shape in model.input_size" in sentence
    assert {absence["round"] for absence in results["absences"]} == {0, 1, 2}
    assert {m["reason"] for m in results["metrics"]["external"]["Cork"].values()} == {"no answer"}
    found = json.loads((medfed.evaluate(tmp_path / "run") / "evaluation.json").read_text())
    assert {absence["sentence"] for absence in found["absences"]} == told
    assert {m["reason"] for m in found["metrics"]["Cork"].values()} == {"no answer"}


def test_stepped_by_hand_levels_leave_it_out_and_it_is_measured_after_each_round(tmp_path):
    process = medfed.build(task(holdout=["Cork"]), sites(*SITES))
    state = process.initialize()
    assert state.lanes[0].encoding.levels[1] == ("a", "b")
    while not process.done(state):
        state, metrics = process.next(state)
    again = process.measure_external(state)
    assert [row.measure for row in again.rows] == [row.measure for row in metrics.rows if row.split == "external"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"data": {"id": "id", "label": "ill", "standardize": "site"}}, "no training rows to standardise by"),
        ({"privacy": {"aggregation": "secure"}}, "only totals leave a site"),
        ({"sites": {"Aarhus": "a.csv", "Bergen": "b.csv"}}, "no site is called `Cork`"),
        ({"sites": {"Cork": "a.csv"}}, "none is left to train"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(more, sentence):
    with pytest.raises(TaskError, match=sentence):
        medfed.check(task(holdout=["Cork"], **more))


def test_an_unknown_name_among_sites_from_memory_is_refused():
    with pytest.raises(UserError, match="'Oslo', and no site"):
        medfed.build(task(holdout=["Oslo"]), sites("Aarhus", "Bergen"))
