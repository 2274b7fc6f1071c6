"""Exported models give the probabilities of ``medfed predict`` in ONNX Runtime and in MONAI."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest
from tests.integration.test_predict_on_images import IMAGES, LABELS, task
from tests.unit.cli.cli_runs import TASK, Workplace
from tests.unit.data.image_files import write_picture, write_slice

import medfed.api as medfed
from medfed.core.errors import RunFolderError, UserError

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("monai")


def onnx(path, rows, name):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: np.asarray(rows, np.float32)})[0]


def frame(seed=0, rows=90):
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 9, rows)
    return pandas.DataFrame(
        {"id": [f"{seed}-{i}" for i in range(rows)], "age": age, "sex": rng.integers(0, 2, rows), "ill": age > 60}
    ).astype({"ill": int})


def trained(folder, **more):
    federation = {"strategy": "fedavg", "rounds": 2, "lr": 0.3}
    wanted = {**TASK, "federation": federation, "sites": {}, "engine": {"workers": 1}, **more}
    medfed.run(wanted, {"North": frame(1), "South": frame(2)}, output=folder)
    return folder


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_onnx_of_a_table_takes_features_and_gives_probabilities(tmp_path, capsys, model):
    run = trained(tmp_path / "run", model=model)
    done = Workplace(tmp_path, capsys).medfed("export", run, "--format", "onnx")
    assert done.status == 0, done.err
    assert "largest difference between ONNX Runtime and torch" in done.out
    about = json.loads((run / "export" / "model.json").read_text())
    assert about["features"] == ["age", "sex"] and about["classes"] == ["0", "1"]
    assert about["trained_at"] == ["North", "South"] and about["largest_difference"] < 1e-5
    found = onnx(run / "export" / "model.onnx", frame(3)[["age", "sex"]], "features")
    expected = medfed.predict(run, frame(3))[["probability_0", "probability_1"]].astype(float)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_onnx_of_a_regression_gives_the_values(tmp_path):
    data = {"id": "id", "label": "age", "columns": {"sex": "binary", "ill": "binary"}}
    run = trained(tmp_path / "run", task_type="regression", model="linear", data=data)
    written = medfed.export(run, "onnx", output=tmp_path / "model.onnx")
    about = json.loads((tmp_path / "model.json").read_text())
    found = onnx(written.path, frame(3)[about["features"]], "features")
    np.testing.assert_allclose(found, medfed.predict(run, frame(3))["prediction"].astype(float), rtol=1e-5)


def image_run(folder, **more):
    np.savez(folder / "a.npz", images=IMAGES, labels=LABELS)
    wanted = task()
    wanted["data"]["images"] |= more.pop("images", {})
    medfed.run({**wanted, **more}, data=folder, output=folder / "run")
    return folder / "run"


def test_onnx_of_images_of_three_classes_takes_prepared_images(tmp_path):
    wanted = task()
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.arange(90) % 3)
    wanted["data"]["label"]["classes"] = [0, 1, 2]
    medfed.run(wanted, data=tmp_path, output=tmp_path / "run")
    medfed.export(tmp_path / "run", "onnx")
    import torch

    prepared = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(IMAGES[:5, None].astype(np.float32)), (8, 8))
    found = onnx(tmp_path / "run" / "export" / "model.onnx", prepared.numpy() / 255, "image")
    np.savez(tmp_path / "new.npz", images=IMAGES[:5])
    expected = medfed.predict(tmp_path / "run", tmp_path / "new.npz")[[f"probability_{k}" for k in range(3)]]
    np.testing.assert_allclose(found, expected.astype(float), atol=1e-5)


def in_monai(bundle, data):
    """What MONAI makes of a bundle alone: the probability of each file."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"], parser["dataset_dir"] = str(bundle), str(data)
    parser.get_parsed_content("initialize")
    return np.array(parser.get_parsed_content("predictions"))


@pytest.mark.filterwarnings("ignore:NvImgCodec")  # MONAI's own, of a decoder that is not installed
@pytest.mark.parametrize(
    "images",
    [
        {},
        {"channels": 3, "transforms": [{"name": "crop", "size": [10, 10]}, {"name": "normalise", "by": "image"}]},
        {
            "transforms": [
                {"name": "resize", "size": [10, 10], "mode": "bilinear"},
                {"name": "normalise", "by": "values"},
            ]
        },
    ],
    ids=["federated", "colour", "values"],
)
def test_a_bundle_gives_the_same_probabilities_in_monai(tmp_path, images):
    more = {"model": {"name": "cnn", "input_size": [images.get("channels", 1), 10, 10]}} if images else {}
    run = image_run(tmp_path, images=images, **more)
    (tmp_path / "new").mkdir()
    for index in range(3):
        write_picture(tmp_path / "new" / f"{index}.png", IMAGES[index])
    colours = np.random.default_rng(1).integers(0, 256, (12, 9, 3)).astype(np.uint8)
    if not images or "crop" in str(images):
        write_picture(tmp_path / "new" / "colour.png", colours)
    written = medfed.export(run, "bundle", output=tmp_path / "bundle")
    expected = medfed.predict(run, tmp_path / "new").sort_values("file")["probability_1"].astype(float)
    np.testing.assert_allclose(in_monai(written.path, tmp_path / "new").ravel(), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:NvImgCodec")
def test_a_bundle_of_monais_own_network_needs_no_medfed_and_says_what_it_is(tmp_path, capsys):
    run = image_run(
        tmp_path,
        images={"transforms": [{"name": "resize", "size": [32, 32]}, "normalise"]},
        model={"name": "resnet18", "input_size": [1, 32, 32]},
        federation={"strategy": "fedavg", "rounds": 1, "batch_size": 32},
    )
    (tmp_path / "LICENCE.txt").write_text("Apache-2.0")
    bundle = tmp_path / "bundle"
    command = Workplace(tmp_path, capsys).medfed
    done = command("export", run, "--format", "bundle", "--output", bundle, "--license", tmp_path / "LICENCE.txt")
    assert done.status == 0, done.err
    assert (bundle / "LICENSE").read_text() == "Apache-2.0"
    assert (bundle / "docs" / "README.md").read_text() == (run / "model_card.md").read_text()
    about = json.loads((bundle / "configs" / "metadata.json").read_text())
    required = {"version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task"}
    assert required | {"description", "authors", "copyright", "network_data_format"} <= about.keys()
    assert about["medfed"]["trained_at"] == ["site-1", "site-2"] and "not a medical device" in about["intended_use"]
    network = json.loads((bundle / "configs" / "inference.json").read_text())["network_def"]
    assert network["_target_"].startswith("monai.") and "medfed" not in about["required_packages_version"]
    write_picture(tmp_path / "new" / "0.png", IMAGES[0])
    expected = medfed.predict(run, tmp_path / "new")["probability_1"].astype(float)
    np.testing.assert_allclose(in_monai(bundle, tmp_path / "new").ravel(), expected, atol=1e-5)
    with pytest.raises(RunFolderError, match="already"):
        medfed.export(run, "bundle", output=bundle)


@pytest.mark.filterwarnings("ignore:NvImgCodec")
def test_a_bundle_reads_dicom_files_through_a_stated_window(tmp_path):
    pytest.importorskip("pydicom")
    rng = np.random.default_rng(2)
    for index in range(40):
        pixels = rng.integers(0, 400, (9, 12)).astype(np.uint16)
        place = tmp_path / "data" / "S" / f"{index}.dcm"
        write_slice(place, pixels, patient=f"P{index}", RescaleSlope=2, RescaleIntercept=-100)
    labels = "patient,ill\n" + "".join(f"P{i},{i % 2}\n" for i in range(40))
    (tmp_path / "data" / "S" / "labels.csv").write_text(labels)
    data = {
        "connector": {"name": "dicom", "window": [300, 500]},
        "id": "patient",
        "label": {"column": "ill", "classes": [0, 1]},
        "images": {"transforms": [{"name": "resize", "size": [9, 12]}, "normalise"]},
    }
    wanted = task(name="cnn", input_size=[1, 9, 12]) | {"data": data, "sites": {"S": "S"}}
    del wanted["partition"]
    medfed.run(wanted, data=tmp_path / "data", output=tmp_path / "run")
    written = medfed.export(tmp_path / "run", "bundle")
    (tmp_path / "new").mkdir()
    for index in range(2):
        (tmp_path / "new" / f"{index}.dcm").write_bytes((tmp_path / "data" / "S" / f"{index}.dcm").read_bytes())
    expected = medfed.predict(tmp_path / "run", tmp_path / "new")["probability_1"].astype(float)
    np.testing.assert_allclose(in_monai(written.path, tmp_path / "new").ravel(), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:NvImgCodec")
def test_a_bundle_reads_volumes_as_an_axial_series_lies(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(2)
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 99, (40, 3, 5, 4)).astype(np.float32), labels=np.arange(40) % 2)
    wanted = task(name="logistic", input_size=[1, 3, 5, 4])
    wanted["data"]["images"] = {"transforms": ["normalise"]}
    medfed.run(wanted, data=tmp_path, output=tmp_path / "run")
    (tmp_path / "new").mkdir()
    turned = np.array([[0, 1.5, 0, 3], [-2, 0, 0, 1], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    volumes = (rng.normal(50, 20, (5, 4, 3)), np.diag([-1.0, 2, 3, 1])), (rng.normal(50, 20, (5, 4, 3)), turned)
    for index, (volume, affine) in enumerate(volumes):
        shape = volume if index else volume.transpose(1, 0, 2)
        nibabel.save(nibabel.Nifti1Image(shape.astype(np.float32), affine), tmp_path / "new" / f"{index}.nii.gz")
    written = medfed.export(tmp_path / "run", "bundle")
    expected = medfed.predict(tmp_path / "run", tmp_path / "new")
    assert expected["reason"].isna().all()
    found = in_monai(written.path, tmp_path / "new").ravel()
    np.testing.assert_allclose(found, expected["probability_1"].astype(float), atol=1e-5)


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"\xff\xfe", "no text in UTF-8")])
def test_a_licence_that_cannot_be_read_is_told_and_leaves_no_folder(tmp_path, capsys, content, reason):
    run, licence = image_run(tmp_path), tmp_path / "LICENCE.txt"
    if content is not None:
        licence.write_bytes(content)
    arguments = ("--format", "bundle", "--output", tmp_path / "bundle", "--license", licence)
    done = Workplace(tmp_path, capsys).medfed("export", run, *arguments)
    assert done.status == 2 and reason in done.err and str(licence) in done.err and "remedy" in done.err
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_of_a_table_and_an_unfinished_run_are_refused(tmp_path):
    run = trained(tmp_path / "run", model="logistic")
    with pytest.raises(UserError, match="for models of images"):
        medfed.export(run, "bundle")
    (run / "results.json").unlink()
    with pytest.raises(RunFolderError, match="absent or damaged"):
        medfed.export(run, "onnx")
