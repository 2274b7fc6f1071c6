"""What every registered connector keeps, asked of each by its name in the registry: a newcomer's too."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.image_files import grey, write_picture, write_slice

from medfed.core.errors import DataError, MissingExtra
from medfed.data.connectors import CONNECTORS, Connector
from medfed.data.raw import RawTable
from medfed.spec.task import DataSpec, Plugin

pytestmark = pytest.mark.parametrize("name", CONNECTORS.names())

SAMPLES = {"csv": b"id,age,sex\n1,63,f\n2,,m\n"}
"""Two rows, one without an age, as a file of each format that comes with the package."""


def connector_called(name: str) -> Connector:
    try:
        return CONNECTORS.get(name)
    except MissingExtra as missing:
        pytest.skip(missing.cause)


def data_read_by(name: str) -> DataSpec:
    return DataSpec(connector=Plugin(name=name))


def test_it_is_called_with_path_data_and_place(name: str) -> None:
    connector = connector_called(name)
    inspect.signature(connector).bind(Path(), data_read_by(name), "Cleveland")
    assert inspect.getdoc(connector)


def test_a_file_becomes_columns_of_text(name: str, tmp_path: Path) -> None:
    connector = connector_called(name)
    if name not in SAMPLES:
        pytest.skip(f"no sample of the format {name} is known here")
    file = tmp_path / f"rows.{name}"
    file.write_bytes(SAMPLES[name])
    raw = connector(file, data_read_by(name), "Cleveland")
    assert isinstance(raw, RawTable)
    assert {column: values.tolist() for column, values in raw.columns.items()} == {
        "id": ["1", "2"],
        "age": ["63", None],
        "sex": ["f", "m"],
    }
    assert raw.rows == 2
    assert raw.source == file.name


def archive(folder: Path) -> Path:
    np.savez(folder / "a.npz", images=np.stack([grey(0), grey(1)]), labels=np.array([0, 1]))
    return folder / "a.npz"


def pictures(folder: Path) -> Path:
    for index, name in enumerate(("well", "ill")):
        write_picture(folder / name / "a.png", grey(index))
    return folder


def slices(folder: Path) -> Path:
    for index in range(2):
        write_slice(folder / f"{index}.dcm", grey(index).astype(np.uint16))
    return folder


IMAGES = {"npz": archive, "image_folder": pictures, "dicom": slices}
"""Two grey images of 8×8 of each format that comes with the package."""


def test_images_are_rows_that_are_read_when_asked_for(name: str, tmp_path: Path) -> None:
    connector = connector_called(name)
    if name not in IMAGES:
        pytest.skip(f"no images of the format {name} are known here")
    raw = connector(IMAGES[name](tmp_path), data_read_by(name), "Cleveland")
    assert raw.pictures is not None
    assert {len(values) for values in raw.columns.values()} == {2} == {len(raw.pictures.each)}
    digests = [picture.digest() for picture in raw.pictures.each]
    assert len(set(digests)) == 2 and {len(digest) for digest in digests} == {32}
    assert digests == [picture.digest() for picture in raw.pictures.each]
    found = sorted(picture.pixels().sum() for picture in raw.pictures.each)
    assert found == sorted(float(grey(index).sum()) for index in range(2))
    assert {picture.pixels().shape for picture in raw.pictures.each} == {(1, 8, 8)}
    raw.pictures.close()
    assert raw.pictures.each[0].pixels().shape == (1, 8, 8)
    raw.pictures.close()


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_what_cannot_be_read_is_explained(name: str, content: bytes | None, tmp_path: Path) -> None:
    connector = connector_called(name)
    file = tmp_path / "absent" / f"rows.{name}"
    if content is not None:
        file.parent.mkdir()
        file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        connector(file, data_read_by(name), "Cleveland")
    assert "Cleveland" in caught.value.where
    assert caught.value.cause and caught.value.remedy
    assert caught.value.exit_status == 2
