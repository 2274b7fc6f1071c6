"""``medfed predict`` on new images: the same numbers as in training, from any kind of file, whatever is amiss."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest
from tests.unit.cli.cli_runs import Workplace
from tests.unit.data.image_files import write_picture, write_slice

import medfed.api as medfed
from medfed.core.errors import DataError
from medfed.engine.trained import TrainedModel

pytest.importorskip("monai")
pytest.importorskip("pydicom")

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (90, 12, 12)).astype(np.uint8)
LABELS = (IMAGES[:, 4:8, 4:8].mean(axis=(1, 2)) > 128).astype(int)


def task(**model):
    transforms = [{"name": "resize", "size": [8, 8]}, {"name": "scale", "low": 0, "high": 255}, "normalise"]
    return {
        "task_type": "classification",
        "model": {"name": "cnn", "input_size": [1, 8, 8], **model},
        "federation": {"strategy": "fedavg", "rounds": 2, "batch_size": 16},
        "partition": {"data": "a.npz", "sites": 2},
        "data": {
            "connector": "npz",
            "label": {"column": "label", "classes": [0, 1]},
            "images": {"channels": 1, "transforms": transforms},
        },
        "seed": 1,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "a.npz", images=IMAGES, labels=LABELS)
    medfed.run(task(), data=folder, output=folder / "run")
    return folder / "run"


@pytest.fixture
def command(tmp_path, capsys):
    return Workplace(tmp_path, capsys).medfed


@pytest.fixture(scope="module")
def expected(run):
    """The model's probabilities, worked out by NumPy and torch alone from the weights on disk."""
    import torch
    from safetensors.torch import load_file

    model = TrainedModel.load(run)
    weights = load_file(run / "model.safetensors")
    resized = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(IMAGES[:, None].astype(np.float32)), (8, 8))
    x = (resized / 255 - model.encoding.mean[0]) / (model.encoding.scale[0] + 1e-9)
    for layer in (0, 3):
        x = torch.nn.functional.conv2d(x.float(), weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1)
        x = torch.nn.functional.max_pool2d(x, 2).relu()
    x = (x.flatten(1) @ weights["7.weight"].T + weights["7.bias"]).relu()
    return (x @ weights["9.weight"].T + weights["9.bias"]).squeeze(1).sigmoid().numpy()


def test_an_archive_without_labels_gets_the_probabilities_that_the_weights_say(run, expected, tmp_path):
    np.savez(tmp_path / "new.npz", images=IMAGES)
    scores = medfed.predict(run, tmp_path / "new.npz")
    np.testing.assert_allclose(scores["probability_1"].astype(float), expected, atol=1e-5)
    assert (scores["predicted"] == np.where(expected >= 0.5, "1", "0")).all()
    assert scores["file"][3] == "images[3]" and scores["reason"].isna().all()


def test_pictures_and_dicom_files_of_one_tree_are_scored_alike_and_the_damaged_are_told(
    run, expected, tmp_path, command
):
    for index in range(4):
        write_picture(tmp_path / "tree" / f"{index}.png", IMAGES[index])
        write_slice(tmp_path / "tree" / "ct" / f"{index}.dcm", IMAGES[index].astype(np.uint16))
    (tmp_path / "tree" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    (tmp_path / "tree" / "notes.txt").write_text("no image")
    (tmp_path / "tree" / "zeros.dcm").write_bytes(b"")
    done = command("predict", run, tmp_path / "tree", "--output", tmp_path / "scores.csv")
    assert done.status == 0, done.err
    assert "no score: broken.png: " in done.err and "zeros.dcm" in done.err and "notes" not in done.err
    scores = pandas.read_csv(tmp_path / "scores.csv").set_index("file")
    assert set(scores.index) == {f"{i}.png" for i in range(4)} | {f"ct/{i}.dcm" for i in range(4)} | {
        "broken.png",
        "zeros.dcm",
    }
    for index in range(4):
        found = scores.loc[[f"{index}.png", f"ct/{index}.dcm"], "probability_1"]
        np.testing.assert_allclose(found, expected[index], atol=1e-5)
    assert scores.loc["broken.png", "predicted"] != scores.loc["broken.png", "predicted"]  # not a number
    assert scores["reason"].notna().sum() == 2


def test_one_file_is_scored_as_json(run, expected, tmp_path, command):
    write_picture(tmp_path / "one.png", IMAGES[0])
    done = command("predict", run, tmp_path / "one.png", "--json")
    row = json.loads(done.out)
    assert row["file"] == "one.png" and row["probability_1"] == pytest.approx(expected[0], abs=1e-5)


def test_an_image_that_does_not_fit_has_a_reason_and_stops_no_other(run, tmp_path):
    write_picture(tmp_path / "good.png", IMAGES[0])
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.zeros((12, 12, 12), np.float32), np.eye(4)), tmp_path / "volume.nii.gz")
    scores = medfed.predict(run, tmp_path).set_index("file")
    assert pandas.isna(scores.loc["good.png", "reason"])
    assert "3 dimensions" in scores.loc["volume.nii.gz", "reason"]


def test_where_nothing_can_be_read_the_error_says_why(run, tmp_path, command):
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 files gives an image.*the file is empty"):
        medfed.predict(run, tmp_path)
    done = command("predict", run, tmp_path / "nowhere")
    assert done.status == 2 and "does not exist" in done.err


def test_each_series_of_slices_is_one_row_of_a_model_of_volumes(tmp_path):
    volumes = np.random.default_rng(5).integers(0, 200, (40, 4, 8, 8)).astype(np.uint16)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "a.npz", images=volumes, labels=labels)
    volumetric = task(name="logistic", input_size=[1, 4, 8, 8])
    volumetric["data"]["images"] = {"channels": 1}
    medfed.run(volumetric, data=tmp_path, output=tmp_path / "run")
    for series in range(2):
        for place in (2, 0, 3, 1):
            write_slice(
                tmp_path / "new" / f"{series}-{place}.dcm",
                volumes[series, place],
                place=float(place),
                SeriesInstanceUID=f"1.2.{series}",
            )
    scores = medfed.predict(tmp_path / "run", tmp_path / "new")
    known = medfed.predict(tmp_path / "run", tmp_path / "a.npz")
    assert scores["file"].tolist() == ["0-0.dcm", "1-0.dcm"]
    np.testing.assert_allclose(scores["probability_1"].astype(float), known["probability_1"][:2].astype(float))
