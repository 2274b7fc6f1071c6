"""``medfed evaluate``: on rows from elsewhere as sklearn measures them, and at sites as the run itself did."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score
from tests.unit.cli.cli_runs import TASK, Workplace
from tests.unit.data.image_files import grey, write_picture

import medfed.api as medfed
from medfed.core.errors import DataError, RunFolderError, UserError


def rows(seed, count=120):
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 10, count).round(1)
    ill = (rng.random(count) < 1 / (1 + np.exp(-(age - 60) / 6))).astype(int)
    frame = {"id": [f"{seed}-{i}" for i in range(count)], "age": age, "sex": rng.integers(0, 2, count), "ill": ill}
    return pandas.DataFrame(frame)


def task(**more):
    federation = {"strategy": "fedavg", "rounds": 3, "lr": 0.3}
    return {**TASK, "federation": federation, "engine": {"workers": 1}, "seed": 2, **more}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    for name, seed in (("north", 1), ("south", 2), ("east", 4)):
        rows(seed).to_csv(folder / f"{name}.csv", index=False)
    (folder / "shy.yaml").write_text(
        "tasks: '*'\ntask_types: '*'\nalgorithms: '*'\nsteps: '*'\nreleases: [sum, levels]\n"
    )
    medfed.run(task(), data=folder, output=folder / "run")
    return folder


def evaluation(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_rows_from_elsewhere_are_measured_as_sklearn_measures_them(place, tmp_path, capsys):
    other = rows(3)
    other.to_csv(tmp_path / "other.csv", index=False)
    command = Workplace(tmp_path, capsys).medfed
    done = command("evaluate", place / "run", "--data", tmp_path / "other.csv", "--output", tmp_path / "found")
    assert done.status == 0, done.err
    assert done.out.startswith("other: ") and "report.html" in done.out
    found = evaluation(tmp_path / "found")
    scores = medfed.predict(place / "run", tmp_path / "other.csv")["probability_1"].astype(float)
    measured = {metric: m["value"] for metric, m in found["metrics"]["other"].items()}
    assert measured["auc"] == pytest.approx(roc_auc_score(other["ill"], scores))
    assert measured["loss"] == pytest.approx(log_loss(other["ill"], scores))
    assert found["confusion"] == confusion_matrix(other["ill"], scores >= 0.5).tolist()
    assert sum(point["n"] for point in found["calibration"]) == 120 and len(found["calibration"]) <= 10
    observed = sum(point["n"] * point["observed"] for point in found["calibration"])
    assert observed == pytest.approx(other["ill"].sum())
    page = (tmp_path / "found" / "report.html").read_text()
    assert "Calibration" in page and "passed no gate" in page and "held-out patients" in page


def test_the_sites_give_the_figures_that_they_gave_at_the_end_of_the_run(place, tmp_path):
    folder = medfed.evaluate(place / "run", output=tmp_path / "sites")
    expected = json.loads((place / "run" / "results.json").read_text())["metrics"]["test"]
    assert evaluation(folder)["metrics"] == expected
    ledgers = {path.name for path in (folder / "ledger").glob("*.jsonl") if "heads" not in path.name}
    assert ledgers == {"coordinator.jsonl", "North.jsonl", "South.jsonl"}
    assert "own_metrics" in (folder / "ledger" / "North.jsonl").read_text()
    page = (folder / "report.html").read_text()
    assert "All hospitals here" in page and "release of its own" in page


def test_one_site_may_be_named_and_what_its_policy_refuses_is_withheld(place, tmp_path):
    sites = {"North": {"data": "north.csv", "policy": "shy.yaml"}, "South": "south.csv"}
    medfed.run(task(sites=sites), data=place, output=tmp_path / "run")
    shy = evaluation(medfed.evaluate(tmp_path / "run", sites=["North"]))
    assert {m.get("reason") for m in shy["metrics"]["North"].values()} == {"withheld"}
    assert shy["roc"] == {}
    again = medfed.evaluate(tmp_path / "run", sites=["North"])
    assert again.name == "North-2" and again.parent == tmp_path / "run" / "evaluations"


def test_of_one_site_there_is_no_total_which_would_show_what_its_gate_withholds(place, tmp_path):
    few_ill = rows(6, 200).assign(ill=lambda frame: (frame["ill"] == 1) & (frame.index < 4))
    few_ill.astype({"ill": int}).to_csv(tmp_path / "few.csv", index=False)
    rows(2).to_csv(tmp_path / "south.csv", index=False)
    wanted = task(sites={"Few": "few.csv", "South": "south.csv"})
    wanted["data"] = {**wanted["data"], "split": {"train": 0.5, "validation": 0, "test": 0.5}}
    medfed.run(wanted, data=tmp_path, output=tmp_path / "run")
    found = evaluation(medfed.evaluate(tmp_path / "run", sites=["Few"]))
    assert list(found["metrics"]) == ["Few"] and found["confusion"] == [] and found["roc"] == {}
    assert found["metrics"]["Few"]["recall"]["reason"] == "withheld"
    assert found["metrics"]["Few"]["loss"]["value"] is not None
    both = evaluation(medfed.evaluate(tmp_path / "run", sites=["Few", "South"]))
    assert both["metrics"]["federated"]["auc"]["value"] is not None


@pytest.mark.parametrize("model", ["cnn", "resnet18"])
def test_images_of_another_shape_are_refused_as_in_training(tmp_path, capsys, model):
    pytest.importorskip("monai")
    draw = np.random.default_rng(0)
    for name, side in (("a", 16), ("b", 20)):
        np.savez(tmp_path / f"{name}.npz", images=draw.random((20, side, side)), labels=np.arange(20) % 2)
    wanted = {
        "task_type": "classification",
        "model": {"name": model, "input_size": [1, 16, 16]},
        "federation": {"strategy": "fedavg", "rounds": 1, "local_updates": 1},
        "partition": {"data": "a.npz", "sites": 2},
        "data": {"connector": "npz", "label": {"column": "label", "classes": [0, 1]}},
    }
    medfed.run(wanted, data=tmp_path, output=tmp_path / "run")
    done = Workplace(tmp_path, capsys).medfed("evaluate", tmp_path / "run", "--data", tmp_path / "b.npz")
    assert done.status == 2 and "the shape [1, 20, 20], and the task's model takes [1, 16, 16]" in done.err


def test_a_held_out_site_can_be_evaluated_by_itself(place, tmp_path):
    sites = {"North": "north.csv", "South": "south.csv", "East": "east.csv"}
    medfed.run(task(sites=sites, evaluation={"holdout": ["East"]}), data=place, output=tmp_path / "run")
    found = evaluation(medfed.evaluate(tmp_path / "run", sites=["East"]))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["metrics"] == results["metrics"]["external"]


def test_each_sites_own_model_is_chosen_by_its_name(place, tmp_path):
    federation = {"strategy": "local", "rounds": 3, "lr": 0.3}
    medfed.run(task(federation=federation), data=place, output=tmp_path / "run")
    with pytest.raises(UserError, match="each site has its own model"):
        medfed.evaluate(tmp_path / "run")
    found = evaluation(medfed.evaluate(tmp_path / "run", model="North", sites=["North"]))
    expected = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]["test"]["North"]
    assert found["metrics"]["North"] == expected and found["model"] == "North"


def test_where_all_sites_share_one_model_none_is_to_be_named(place):
    with pytest.raises(UserError, match="no site called 'North' has a model here") as told:
        medfed.evaluate(place / "run", model="North")
    assert told.value.remedy == "leave out --model: all sites share one model"


def test_images_of_a_folder_by_class_without_one_are_told_how_to_be_labelled(tmp_path):
    for number in range(40):
        write_picture(tmp_path / "data" / "north" / ("ill", "well")[number % 2] / f"{number}.png", grey(number))
    wanted = {
        "task_type": "classification",
        "model": {"name": "logistic", "input_size": [1, 8, 8]},
        "federation": {"strategy": "fedavg", "rounds": 1},
        "data": {"connector": "image_folder", "label": {"column": "class", "classes": ["ill", "well"]}},
    }
    medfed.run(wanted, data=tmp_path / "data", output=tmp_path / "run")
    with pytest.raises(DataError, match="no image has a label") as told:
        medfed.evaluate(tmp_path / "run", tmp_path / "data" / "north" / "ill")
    assert told.value.remedy == "put each image into a folder called as its class"


def test_masked_totals_are_evaluated_as_totals_alone(place, tmp_path):
    sites = {"North": "north.csv", "South": "south.csv", "East": "east.csv"}
    medfed.run(task(sites=sites, privacy={"aggregation": "secure"}), data=place, output=tmp_path / "run")
    found = evaluation(medfed.evaluate(tmp_path / "run"))
    expected = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]["test"]
    assert found["metrics"] == expected and found["metrics"]["federated"]["auc"]["value"] is not None
    assert found["metrics"]["North"]["auc"]["reason"] == "withheld"


def test_a_regression_has_its_metrics_and_no_curves(place, tmp_path):
    label = {"label": "age", "columns": {"sex": "binary", "ill": "binary"}, "id": "id"}
    federation = {"strategy": "fedavg", "rounds": 2, "lr": 0.01}
    wanted = {"task_type": "regression", "model": "linear", "federation": federation}
    medfed.run(task(**wanted, data=label), data=place, output=tmp_path / "run")
    folder = medfed.evaluate(tmp_path / "run", place / "east.csv")
    found = evaluation(folder)
    assert found["metrics"]["east"]["rmse"]["n"] == 120 and found["confusion"] == [] and found["roc"] == {}
    assert "Confusion" not in (folder / "report.html").read_text()


def test_mistakes_are_told(place, tmp_path, capsys):
    command = Workplace(tmp_path, capsys).medfed
    for arguments, sentence in (
        (["--site", "Nowhere"], "no site is called 'Nowhere'"),
        (["--data", tmp_path / "absent.csv"], "absent.csv"),
        (["--data", place / "east.csv", "--site", "North"], "name different rows"),
    ):
        done = command("evaluate", place / "run", *arguments)
        assert done.status == 2 and sentence in done.err and "Traceback" not in done.err
    with pytest.raises(RunFolderError):
        medfed.evaluate(tmp_path)
    unlabelled = rows(5).drop(columns="ill")
    with pytest.raises(DataError, match="ill"):
        medfed.evaluate(place / "run", unlabelled)
    given = {"A": rows(1), "B": rows(2)}
    medfed.run(task(sites={}), given, output=tmp_path / "memory")
    with pytest.raises(UserError, match="came from memory"):
        medfed.evaluate(tmp_path / "memory")
    assert medfed.evaluate(tmp_path / "memory", given=given).name == "sites"
