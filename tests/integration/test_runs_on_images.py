"""Whole runs on images: partitions of an archive, folders of pictures, federated intensities, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.image_files import grey, write_picture, write_slice

import medfed.api
from medfed.cli.running import announce
from medfed.core.errors import DataError
from medfed.data.quality import UNNAMED
from medfed.data.splits import assign_splits

pytest.importorskip("monai")
PNEUMONIA = Path(__file__).parents[3] / "shared" / "data" / "pneumonia"


def blob(rng, ill):
    """A dark image; with a bright spot in the middle where the patient is ill."""
    image = rng.integers(0, 90, (16, 16))
    image[6:10, 6:10] += 120 * ill
    return image.astype(np.uint8)


def archive(path, rows=160):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, rows)
    np.savez(path, images=np.stack([blob(rng, ill) for ill in labels]), labels=labels, ids=np.arange(rows) // 2)


def task(**more):
    return {
        "task_type": "classification",
        "model": {"name": "cnn", "input_size": [1, 8, 8]},
        "federation": {"strategy": "fedavg", "rounds": 3, "optimizer": "adam", "lr": 0.01, "batch_size": 16},
        "seed": 1,
        **more,
    }


TRANSFORMS = [{"name": "resize", "size": [8, 8]}, {"name": "scale", "low": 0, "high": 255}, "normalise"]


def on_archive(**more):
    return task(
        partition={"data": "a.npz", "sites": 3, "by": "label", "alpha": 1.0},
        data={
            "connector": "npz",
            "label": {"column": "label", "classes": [0, 1]},
            "id": "id",
            "images": {"transforms": TRANSFORMS, **more},
        },
    )


def test_one_archive_is_divided_trained_on_and_reported(tmp_path, capsys):
    archive(tmp_path / "a.npz")
    outcome = medfed.run(on_archive(), data=tmp_path, output=tmp_path / "run")
    announce(outcome, quiet=False, as_json=False)
    assert UNNAMED not in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metrics"]["test"]["federated"]["auc"]["value"] > 0.95
    sheets = json.loads((tmp_path / "run" / "sheets.json").read_text())
    assert sum(sheet["rows"] for sheet in sheets.values()) == 160
    assert not any("another site" in warning for sheet in sheets.values() for warning in sheet["warnings"])
    assert "site-2" in (tmp_path / "run" / "report.html").read_text()
    assert outcome is not None
    scores = medfed.predict(tmp_path / "run", tmp_path / "a.npz")
    assert len(scores) == 160 and scores["probability_1"].between(0, 1).all()


def test_federated_intensities_are_those_of_all_images_in_one_place(tmp_path):
    archive(tmp_path / "a.npz")
    process = medfed.build(on_archive(), data=tmp_path)
    encoding = process.initialize().lanes[0].encoding
    arrays = np.load(tmp_path / "a.npz")
    splits = assign_splits(arrays["ids"].astype(str).tolist(), None, process.task.data.split, process.task.seed)
    images = arrays["images"][splits == 0].reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(encoding.mean, [images.mean()], rtol=1e-5)
    np.testing.assert_allclose(encoding.scale, [images.std(ddof=1)], rtol=1e-5)


def test_augmented_runs_give_the_same_bits_again_and_for_any_number_of_workers(tmp_path):
    archive(tmp_path / "a.npz", rows=90)
    asked = on_archive(augment=["flip", "rotate"])
    asked["federation"]["rounds"] = 1
    models = []
    for workers in (1, 2):
        folder = tmp_path / f"run{workers}"
        medfed.run(asked, data=tmp_path, output=folder, overrides=[f"engine.workers={workers}"])
        models.append((folder / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    plain = on_archive()
    plain["federation"]["rounds"] = 1
    medfed.run(plain, data=tmp_path, output=tmp_path / "plain")
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != models[0]


def folders(root, sites, rows=30, only=None):
    rng = np.random.default_rng(0)
    for site in sites:
        for index in range(rows):
            ill = index % 2 if site != only else 1
            write_picture(root / site / ("ill" if ill else "well") / f"{site}{index}.png", blob(rng, ill))


def on_folders(**images):
    return task(
        data={
            "connector": "image_folder",
            "label": {"column": "class", "positive": ["ill"]},
            "images": {"transforms": TRANSFORMS, **images},
        }
    )


def test_folders_of_pictures_with_a_site_of_one_class_and_a_shared_image(tmp_path, capsys):
    folders(tmp_path / "data", ["North", "South", "East"], only="East")
    shared = tmp_path / "data" / "North" / "ill" / "North1.png"
    (tmp_path / "data" / "South" / "ill" / "copy.png").write_bytes(shared.read_bytes())
    outcome = medfed.run(on_folders(), data=tmp_path / "data", output=tmp_path / "run")
    announce(outcome, quiet=False, as_json=False)
    assert f"warning: East, North, South: {UNNAMED}" in capsys.readouterr().out
    assert UNNAMED in (tmp_path / "run" / "report.html").read_text()
    sheets = json.loads((tmp_path / "run" / "sheets.json").read_text())
    warned = {site: [w for w in sheet["warnings"] if "another site" in w] for site, sheet in sheets.items()}
    assert [site for site, warnings in warned.items() if warnings] == ["North", "South"]
    assert any("an AUC does not exist" in warning for warning in sheets["East"]["warnings"])


def test_an_image_of_another_shape_than_the_model_takes_is_explained_before_training(tmp_path):
    folders(tmp_path / "data", ["North", "South"])
    asked = on_folders()
    asked["data"]["images"]["transforms"] = []
    with pytest.raises(Exception, match=r"shape \[1, 16, 16\].*takes \[1, 8, 8\]"):
        medfed.run(asked, data=tmp_path / "data", output=tmp_path / "run")


def test_files_that_cannot_be_read_are_listed_for_those_who_hold_them(tmp_path):
    folders(tmp_path / "data", ["North", "South"], rows=6)
    (tmp_path / "data" / "South" / "ill" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"1 of 7 files cannot be read"):
        medfed.run(on_folders(), data=tmp_path / "data", output=tmp_path / "run")
    from medfed.api import unreadable

    found = unreadable(on_folders(), data=tmp_path / "data")
    assert [(each.name, each.reason) for each in found["South"]] == [
        ("ill/broken.png", "neither PNG nor JPEG, or damaged at its beginning")
    ]
    assert found["North"] == ()


@pytest.mark.slow
@pytest.mark.skipif(not PNEUMONIA.is_dir(), reason="PneumoniaMNIST is not beside the checkout")
def test_pneumonia_divided_by_label_over_four_sites_is_learnt(tmp_path):
    asked = {
        "task_type": "classification",
        "model": {"name": "cnn", "input_size": [1, 28, 28]},
        "federation": {"strategy": "fedavg", "rounds": 10, "optimizer": "adam", "lr": 0.001},
        "partition": {"data": "pneumoniamnist.npz", "sites": 4, "by": "label", "alpha": 0.5},
        "data": {
            "connector": "npz",
            "label": {"column": "label", "classes": [0, 1]},
            "split": {"column": "split"},
            "images": {"transforms": [{"name": "scale", "low": 0, "high": 255}, "normalise"]},
        },
    }
    medfed.run(asked, data=PNEUMONIA, output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metrics"]["test"]["federated"]["auc"]["value"] > 0.88


def test_the_command_lists_what_cannot_be_read(tmp_path, capsys):
    from medfed.cli.main import app

    folders(tmp_path, ["North", "South"], rows=4)
    (tmp_path / "South" / "ill" / "Köln.png").write_bytes(b"nothing")
    (tmp_path / "task.yaml").write_text(json.dumps(on_folders()))
    app(args=["data", "unreadable", str(tmp_path / "task.yaml")], standalone_mode=False)
    told = capsys.readouterr().out
    assert "South: ill/Köln.png: neither PNG nor JPEG" in told
    assert "1 file cannot be read" in told


DATASET = """
contact: the office
datasets:
  default: {connector: image_folder, path: pictures, label: class}
"""


def test_a_divided_folder_of_too_many_unreadable_files_is_refused(tmp_path):
    """Those that show it before they are decoded, of which no part knows."""
    for number in range(24):
        write_slice(tmp_path / "all" / f"{number}.dcm", grey(number), patient=f"P{number}")
        (tmp_path / "all" / f"broken{number}.dcm").write_bytes(b"nothing")
    asked = on_folders(max_unreadable=0.2)
    asked["data"] |= {"connector": "dicom", "label": {"column": "patient", "positive": ["P1"]}}
    asked["partition"] = {"data": "all", "sites": 2, "by": "even"}
    with pytest.raises(DataError, match="24 of 48 files cannot be read"):
        medfed.run(asked, data=tmp_path, output=tmp_path / "run")


def test_a_deployed_site_reads_its_own_pictures_by_its_own_connector(tmp_path, capsys):
    from medfed.cli.site_running import check
    from medfed.engine.deployed.cohorts import table_of
    from medfed.engine.deployed.folders import SiteFolder
    from medfed.spec.site import load_site

    folders(tmp_path, ["pictures"], rows=8)
    (tmp_path / "pictures" / "ill" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "identity.json").write_text('{"site": "North"}')
    (tmp_path / "site.yaml").write_text(DATASET)
    check(tmp_path)
    assert "  ill/broken.png: neither PNG nor JPEG" in capsys.readouterr().out
    asked = on_folders(max_unreadable=0.2)
    asked["data"]["connector"] = {"name": "image_folder", "table": "/etc/passwd"}  # what a task may not decide
    folder = SiteFolder.open(tmp_path)
    table = table_of(folder, load_site(folder.settings), medfed.api.read_task(asked))
    assert table.rows() == 8 and table.columns["image"].shape[1:] == (1, 8, 8)


def test_a_deployed_site_and_a_task_that_name_no_id_take_the_patients_of_dicom_files(tmp_path):
    from medfed.engine.deployed.cohorts import table_of
    from medfed.engine.deployed.folders import SiteFolder
    from medfed.spec.site import load_site

    for index in range(12):
        pixels = np.full((4, 4), index, np.uint16)
        write_slice(tmp_path / "scans" / f"{index}.dcm", pixels, patient=f"P{index // 3}", place=float(index % 3))
    (tmp_path / "scans" / "labels.csv").write_text("patient,y\n" + "".join(f"P{i},{i % 2}\n" for i in range(4)))
    (tmp_path / "identity.json").write_text('{"site": "North"}')
    (tmp_path / "site.yaml").write_text(
        "contact: IT\ndatasets:\n  default:\n    path: scans\n    connector: {name: dicom}\n"
    )
    asked = task(data={"connector": "dicom", "label": {"column": "y", "classes": [0, 1]}})
    folder = SiteFolder.open(tmp_path)
    table = table_of(folder, load_site(folder.settings), medfed.api.read_task(asked))
    assert (table.rows(), table.patients()) == (12, 4)
