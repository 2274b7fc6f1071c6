"""``medfed check`` refuses what a run would: connectors, networks and first weights, with the task's line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

import medfed
from medfed.core.errors import TaskError
from medfed.engine.buildable import check_connector
from medfed.spec.loading import load_task

TASK = """\
task_type: classification
model: {name: MODEL}
federation: {strategy: fedavg, rounds: 1}
data:
  connector: CONNECTOR
  label: {column: y, classes: [0, 1]}
"""
CNN = "cnn, input_size: [1, 8, 8]"


def written(folder: Path, model: str = CNN, connector: str = "npz") -> Path:
    file = folder / "task.yaml"
    file.write_text(TASK.replace("MODEL", model).replace("CONNECTOR", connector))
    return file


def weights(**changed: np.ndarray | None) -> dict[str, np.ndarray]:
    """Those of a cnn of 1×8×8 inputs."""
    shapes = {"0.weight": (32, 1, 3, 3), "0.bias": (32,), "3.weight": (64, 32, 3, 3), "3.bias": (64,)}
    shapes |= {"7.weight": (64, 256), "7.bias": (64,), "9.weight": (1, 64), "9.bias": (1,)}
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} | changed
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize(
    ("connector", "told"),
    [
        ("{name: dicm}", "no connector is called 'dicm'"),
        ("{name: csv, delimeter: ';'}", "no option 'delimeter'"),
        ("{name: npz, table: x.csv}", "no option 'table'"),
        ("{name: image_folder, tabel: x.csv}", "no option 'tabel'"),
        ("{name: image_folder, by: colour}", "by has to be one of its choices"),
        ("{name: dicom, window: abc}", "window has to be `file`, or center and width"),
    ],
)
def test_a_connector_and_its_options_are_checked(tmp_path: Path, connector: str, told: str) -> None:
    if "dicom" in connector:
        pytest.importorskip("pydicom")
    with pytest.raises(TaskError, match=told) as caught:
        medfed.check(written(tmp_path, connector=connector))
    assert caught.value.where.endswith("task.yaml:5") and caught.value.remedy


def test_a_connector_that_fails_for_want_of_rows_is_no_fault_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connector(path: Path, data: object, where: str) -> None:
        raise RuntimeError(path)

    monkeypatch.setattr("medfed.engine.buildable.connector_of", lambda task: connector)
    check_connector(load_task(written(tmp_path)))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (f"{CNN}, norm: grup", "norm is `none`, `batch` or `group`"),
        ("cnn, input_size: [1, 2, 2]", "images of 4×4 or more"),
        ("mlp, input_size: [4], hidden: [0]", "positive widths"),
        ("mlp, input_size: [4], dropout: 2", "a share from 0 to below 1"),
    ],
)
def test_a_network_that_cannot_be_built_is_told_with_its_line(tmp_path: Path, model: str, told: str) -> None:
    with pytest.raises(TaskError, match=told) as caught:
        medfed.check(written(tmp_path, model))
    assert caught.value.where.endswith("task.yaml:2") and "its options by default: " in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "more", "told"),
    [
        (b"PK\x03\x04 archive", "", "not a safetensors file"),
        (save(weights())[:-40], "", "not a safetensors file"),
        (save(weights(**{"0.bias": np.full(32, np.nan, np.float32)})), "", r"0\.bias that are not finite"),
        (save(weights(**{"0.bias": None})), "", r"0\.bias is not in the file"),
        (save(weights()), ", fresh: [layr]", "no layer 'layr'"),
    ],
    ids=["another kind of file", "cut", "not a number", "lacking", "no such layer"],
)
def test_first_weights_that_do_not_fit_are_told_with_their_line(
    tmp_path: Path, content: bytes, more: str, told: str
) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    model = f"{CNN}, pretrained: {{path: w.safetensors, sha256: {digest}{more}}}"
    with pytest.raises(TaskError, match=told) as caught:
        medfed.check(written(tmp_path, model))
    assert caught.value.where.endswith("task.yaml:2") and caught.value.remedy


def test_first_weights_that_fit_are_accepted_also_where_classes_are_left_to_the_data(tmp_path: Path) -> None:
    three = {"9.weight": np.zeros((3, 64), np.float32), "9.bias": np.zeros(3, np.float32)}
    for tensors, label in ((weights(), "{column: y, classes: [0, 1]}"), (weights(**three), "{column: y}")):
        save_file(tensors, tmp_path / "w.safetensors")
        digest = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
        file = written(tmp_path, f"{CNN}, pretrained: {{path: w.safetensors, sha256: {digest}}}")
        file.write_text(file.read_text().replace("{column: y, classes: [0, 1]}", label))
        assert medfed.check(file).missing == ()


def test_a_digest_is_told_by_its_form(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="64 hexadecimal digits"):
        medfed.check(written(tmp_path, f"{CNN}, pretrained: {{path: w.safetensors, sha256: abc}}"))
