"""``medfed explain`` on finished runs: pages that stay with the rows, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from consortium_in_memory import SITES, Consortium, MemoryCarrier, task_over
from tests.integration.test_runs_on_images import archive, on_archive
from tests.unit.data.image_files import write_picture

import medfed
from medfed import api
from medfed.cli.main import main
from medfed.core.errors import UserError
from medfed.report.explanation_page import PAGE, ROWS

pytest.importorskip("captum")


def medfed_command(*arguments, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def looked_up(folder: Path) -> list[dict[str, str]]:
    """What ``rows.csv`` says of each row of the page."""
    return list(csv.DictReader(io.StringIO((folder / ROWS).read_text())))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    pytest.importorskip("monai")
    place = tmp_path_factory.mktemp("images")
    archive(place / "a.npz")
    arrays = dict(np.load(place / "a.npz"))
    np.savez(place / "a.npz", **arrays | {"ids": np.array([f"SECRET-{each}" for each in arrays["ids"]])})
    task = on_archive() | {"evaluation": {"explanations": True}}
    medfed.run(task, data=place, output=place / "run")
    return place / "run"


def frame(rows: int, seed: int) -> pd.DataFrame:
    """The label depends on ``useful`` alone."""
    rng = np.random.default_rng(seed)
    useful, idle = rng.normal(size=rows), rng.normal(size=rows)
    label = (useful + 0.6 * rng.normal(size=rows) > 0).astype(int)
    return pd.DataFrame(
        {"pid": [f"SECRET-{seed}-{i}" for i in range(rows)], "useful": useful, "idle": idle, "y": label}
    )


TABLE = {
    "task_type": "classification",
    "model": "logistic",
    "federation": {"strategy": "fedavg", "rounds": 8, "lr": 0.3},
    "data": {"id": "pid", "label": "y", "columns": {"useful": "continuous", "idle": "continuous"}},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    place = tmp_path_factory.mktemp("table")
    for name, seed in (("north", 1), ("south", 2)):
        (place / name).mkdir()
        frame(120, seed).to_csv(place / name / "data.csv", index=False)
    sites = {name: {"data": f"{name}/data.csv"} for name in ("north", "south")}
    medfed.run(TABLE | {"sites": sites, "evaluation": {"explanations": True}}, data=place, output=place / "run")
    return place / "run"


def test_pages_of_images_stay_beside_the_run_and_name_no_patient(images, capsys):
    status, out, _ = medfed_command("explain", images, "--site", "site-1", "--images", "5", capsys=capsys)
    folder = images.parent / "run-local" / "site-1"
    assert status == 0 and str(folder / PAGE) in out
    for name in (PAGE, ROWS):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o077 == 0
    html = (folder / PAGE).read_text()
    assert "These are images of patients." in html
    assert html.count('class="picture"') == 15  # each of five: the image, Grad-CAM, integrated gradients
    rows = looked_up(folder)
    assert [row["name"] for row in rows] == [f"image {i + 1}" for i in range(5)]
    text = re.sub(r"data:image/png;base64,[^\"]*", "", html)
    assert "SECRET" not in text and "images[" not in text
    assert all(row["patient"].startswith("SECRET-") and row["source"].startswith("images[") for row in rows)
    assert "run-local" not in (images / "report.html").read_text()
    assert not list(images.rglob("*explanation*"))


def test_the_average_of_images_is_in_the_report_and_lies_on_the_spot(images):
    found = json.loads((images / "results.json").read_text())["explanations"]
    cells = np.array(found["map"])
    assert cells.shape == (14, 14) and cells.sum() == pytest.approx(1, abs=1e-6) and found["rows"] > 0
    middle = cells[5:9, 5:9].sum()
    assert middle > 2 * 16 / 196
    assert "What the model looks at" in (images / "report.html").read_text()


def test_a_tables_worst_errors_come_first_with_what_moved_them(table, capsys):
    status, out, _ = medfed_command("explain", table, "--images", "10", "--json", capsys=capsys)
    assert status == 0 and len(json.loads(out)["pages"]) == 2
    folder = table.parent / "run-local" / "north"
    html = (folder / PAGE).read_text()
    assert "These are values of patients." in html and "SECRET" not in html
    rows = looked_up(folder)
    assert all(row["patient"].startswith("SECRET-1-") for row in rows)
    places = [html.index(f"{group}</h2>") for group in ("Worst errors", "Right and most confident", "Most uncertain")]
    assert places == sorted(places)
    scored = medfed.predict(table, table.parent / "north" / "data.csv").set_index("pid")
    truth = pd.read_csv(table.parent / "north" / "data.csv").set_index("pid")["y"]
    patients = [row["patient"] for row in rows]
    wrong = [p for p in patients if str(scored.loc[p, "predicted"]) != str(truth[p])]
    losses = [abs(scored.loc[p, "probability_1"] - truth[p]) for p in wrong]
    assert wrong and wrong == patients[: len(wrong)]
    assert losses == sorted(losses, reverse=True)


def test_the_average_of_a_table_says_which_column_counts(table):
    found = json.loads((table / "results.json").read_text())["explanations"]["features"]
    assert sum(found.values()) == pytest.approx(1, abs=1e-6) and found["useful"] > 3 * found["idle"]


def test_gradcam_of_a_model_without_convolutions_says_that_it_needs_them(table, capsys):
    status, _, err = medfed_command("explain", table, "--method", "gradcam", capsys=capsys)
    assert status == 2 and "needs a network with convolutions" in err and "--method ig" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--site", "west"), "there is no site 'west' in this run"),
        (("--method", "lime"), "no method is called 'lime'"),
        (("--split", "validation", "--data", "nowhere"), "there is no such data folder"),
    ],
)
def test_mistakes_are_told(table, capsys, arguments, said):
    status, _, err = medfed_command("explain", table, *arguments, capsys=capsys)
    assert status == 2 and said in err and "Traceback" not in err


def test_pages_are_not_written_into_the_run_that_is_passed_on(table, capsys):
    status, _, err = medfed_command("explain", table, "--output", table / "explained", capsys=capsys)
    assert status == 2 and "the run's folder is passed on" in err
    assert not (table / "explained").exists()


@pytest.fixture(params=[True, False], ids=["simulated", "deployed"])
def patients_in_folders(tmp_path, request):
    """A run whose sites keep their images in a folder for each patient."""
    pytest.importorskip("monai")
    pixels = np.random.default_rng(0).integers(0, 200, (2, 20, 8, 8)).astype(np.uint8)
    for site, images in zip(("north", "south"), pixels, strict=True):
        for number, image in enumerate(images):
            image[2:6, 2:6] += 50 * (number % 2)
            write_picture(tmp_path / site / f"p{number}" / "a.png", image)
        lines = [f"p{number}/a.png,{number % 2}" for number in range(20)]
        (tmp_path / site / "labels.csv").write_text("\n".join(["file,finding", *lines]))
    task = {
        "task_type": "classification",
        "model": {"name": "logistic", "input_size": [1, 8, 8]},
        "federation": {"strategy": "fedavg", "rounds": 1},
        "data": {"connector": "image_folder", "label": {"column": "finding", "classes": [0, 1]}},
    }
    medfed.run(task, data=tmp_path, output=tmp_path / "other" / "run")
    results = tmp_path / "other" / "run" / "results.json"
    results.write_text(json.dumps(json.loads(results.read_text()) | {"simulation": request.param}))
    return tmp_path / "other" / "run"


def test_a_folder_of_patients_is_the_named_sites_own_data(patients_in_folders, tmp_path, capsys):
    run = patients_in_folders
    for number, place in enumerate((tmp_path / "south", tmp_path)):
        arguments = ("--site", "south", "--data", place, "--output", tmp_path / f"seen{number}")
        status, out, err = medfed_command("explain", run, *arguments, "--images", "2", capsys=capsys)
        assert status == 0 and out.count("page: ") == 1, err
        assert len(looked_up(tmp_path / f"seen{number}" / "south")) == 2


def test_patients_are_not_taken_for_hospitals(patients_in_folders, tmp_path, capsys):
    run = patients_in_folders
    status, out, err = medfed_command("explain", run, "--data", tmp_path / "south", "--images", "2", capsys=capsys)
    if json.loads((run / "results.json").read_text())["simulation"]:
        assert status == 2 and "none of the run's sites has a folder here" in err and "--site" in err
    else:
        assert status == 0 and out.count("page: ") == 1
    status, _, err = medfed_command("explain", run, "--data", tmp_path / "south", "--site", "west", capsys=capsys)
    assert status == 2 and "there is no site 'west' in this run" in err


def test_averages_leave_only_where_the_policy_says_so(tmp_path):
    """Where the quorum allows it the others' are formed; a run that gets none ends all the same."""
    for name, seed in (("north", 1), ("south", 2), ("west", 3)):
        frame(90, seed).to_csv(tmp_path / f"{name}.csv", index=False)
    everything = "{tasks: '*', task_types: '*', algorithms: '*', steps: '*', releases: '*', minimum_patients: 1"
    (tmp_path / "open.yaml").write_text(everything + ", explanations: averages}\n")
    (tmp_path / "kept.yaml").write_text(everything + "}\n")

    def explanations(policies: dict[str, str], quorum: float) -> dict[str, object] | None:
        sites = {name: {"data": f"{name}.csv", "policy": f"{policy}.yaml"} for name, policy in policies.items()}
        output = tmp_path / "-".join((*policies.values(), str(quorum)))
        federation = TABLE["federation"] | {"quorum": quorum}
        task = TABLE | {"sites": sites, "evaluation": {"explanations": True}, "federation": federation}
        medfed.run(task, data=tmp_path, output=output)
        results = json.loads((output / "results.json").read_text())
        assert results["status"] == "complete"
        entries = [entry for party in (output / "ledger").glob("*.jsonl") for entry in party.read_text().splitlines()]
        assert sum("policy.explanations" in entry for entry in entries) == list(policies.values()).count("kept")
        return results["explanations"]

    all_open = {"north": "open", "south": "open", "west": "open"}
    three, two = explanations(all_open, 1.0), explanations(all_open | {"west": "kept"}, 0.5)
    assert three["rows"] > two["rows"] > 0
    assert explanations(all_open | {"west": "kept"}, 1.0) is None
    assert explanations(dict.fromkeys(all_open, "kept"), 0.5) is None


def test_no_average_is_asked_for_unless_the_task_does(tmp_path):
    frame(90, 1).to_csv(tmp_path / "north.csv", index=False)
    medfed.run(TABLE | {"sites": {"north": {"data": "north.csv"}}}, data=tmp_path, output=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["explanations"] is None
    assert "mean_shares" not in (tmp_path / "run" / "ledger" / "north.jsonl").read_text()


def test_an_average_under_masks_is_that_in_the_clear(tmp_path):
    sites = {name: {"data": f"{name}.csv"} for name in ("north", "south", "west")}
    for seed, name in enumerate(sites):
        frame(90, seed).to_csv(tmp_path / f"{name}.csv", index=False)
    found = []
    for aggregation in ("clear", "secure"):
        task = TABLE | {"sites": sites, "evaluation": {"explanations": True}, "privacy": {"aggregation": aggregation}}
        medfed.run(task, data=tmp_path, output=tmp_path / aggregation)
        results = json.loads((tmp_path / aggregation / "results.json").read_text())
        found.append((results["explanations"], results["appraisal"]["sites"]["federated"]))
    (clear, appraised), (masked, hidden) = found
    assert masked["rows"] == clear["rows"]
    assert masked["features"] == pytest.approx(clear["features"], abs=1e-4)
    assert hidden["confusion"] == appraised["confusion"] and hidden["intervals"] == appraised["intervals"]


def test_a_deployed_site_explains_the_model_on_its_own_rows(tmp_path):
    consortium = Consortium.make(tmp_path)
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows")))
    consortium.approve(submission.proposal())
    consortium.conductor(submission, MemoryCarrier(consortium.open_sites())).conduct()
    site = sorted(SITES)[0]
    page = api.explain_at_site(consortium.sites[site].path, submission.folder, rows=4, output=tmp_path / "seen")
    assert page == tmp_path / "seen" / site / PAGE and page.stat().st_mode & 0o777 == 0o600
    assert len(looked_up(page.parent)) == 4
    with pytest.raises(UserError, match="the run's folder is passed on"):
        api.explain_at_site(consortium.sites[site].path, submission.folder, output=submission.folder / "seen")
