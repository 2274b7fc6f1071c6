"""DICOM segmentation objects, read back by highdicom and pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.image_files import grey, write_slice

from medfed.core.errors import DataError
from medfed.data.connectors.dicom import read_dicom
from medfed.data.images.files import FilePicture
from medfed.data.images.guard import Guard
from medfed.data.images.segmentation_object import segmentation_object, segmentation_of
from medfed.data.raw import Picture
from medfed.spec.task import DataSpec, Plugin

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

CLASSES = ("background", "lung", "a lesion of the lung")
DIGEST = "5e" * 32
PLACED = {"FrameOfReferenceUID": "1.2.9", "PixelSpacing": [0.5, 0.5], "SliceThickness": 2}


def series(folder: Path, slices: int, **elements: object) -> list[pydicom.Dataset]:
    files = [
        write_slice(folder / f"{index}.dcm", grey(index).astype(np.uint16), place=2.0 * index, **(PLACED | elements))
        for index in range(slices)
    ]
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in files]


def read_back(made: pydicom.Dataset, folder: Path) -> highdicom.seg.Segmentation:
    made.save_as(folder / "mask.dcm")
    return highdicom.seg.segread(folder / "mask.dcm")


def labelled(frames: int) -> np.ndarray:
    mask = np.zeros((frames, 8, 8), np.uint8)
    mask[0, 2:4, 1:7], mask[-1, 5:, :3] = 1, 2
    return mask


@pytest.mark.parametrize("slices", [1, 3])
def test_the_mask_comes_back_on_its_sources(tmp_path: Path, slices: int) -> None:
    sources, mask = series(tmp_path, slices), labelled(slices)
    found = read_back(segmentation_object(sources, mask, CLASSES, DIGEST), tmp_path)
    uids = [source.SOPInstanceUID for source in sources]
    back = found.get_pixels_by_source_instance(uids, combine_segments=True)
    np.testing.assert_array_equal(back, mask)
    assert [d.SegmentLabel for d in found.SegmentSequence] == list(CLASSES[1:])


def test_it_refers_to_study_series_patient_and_model(tmp_path: Path) -> None:
    sources = series(tmp_path, 2, patient="P7")
    found = read_back(segmentation_object(sources, labelled(2), CLASSES, DIGEST), tmp_path)
    assert (found.StudyInstanceUID, found.PatientID, found.FrameOfReferenceUID) == ("1.2.3", "P7", "1.2.9")
    assert found.SeriesInstanceUID != "1.2.3.4" and found.Modality == "SEG"
    (referred,) = found.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == "1.2.3.4"
    assert {each.ReferencedSOPInstanceUID for each in referred.ReferencedInstanceSequence} == {
        source.SOPInstanceUID for source in sources
    }
    for segment in found.SegmentSequence:
        assert segment.SegmentAlgorithmType == "AUTOMATIC" and segment.SegmentAlgorithmName == "MedFed"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "MedFed" and DIGEST in str(algorithm.AlgorithmParameters)


def test_a_radiograph_without_frame_of_reference_has_one_frame(tmp_path: Path) -> None:
    kind = pydicom.uid.DigitalXRayImageStorageForPresentation
    file = write_slice(tmp_path / "x.dcm", grey(0).astype(np.uint16), SOPClassUID=kind, Modality="DX")
    source = pydicom.dcmread(file)
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(source, name)
    found = read_back(segmentation_object([source], labelled(1)[0], CLASSES, DIGEST), tmp_path)
    back = found.get_pixels_by_source_instance([source.SOPInstanceUID], combine_segments=True)
    np.testing.assert_array_equal(back[0], labelled(1)[0])
    assert "FrameOfReferenceUID" not in found


def test_a_mask_in_which_nothing_was_found_is_written_too(tmp_path: Path) -> None:
    sources = series(tmp_path, 2)
    found = read_back(segmentation_object(sources, np.zeros((2, 8, 8), np.uint8), CLASSES, DIGEST), tmp_path)
    uids = [source.SOPInstanceUID for source in sources]
    assert not found.get_pixels_by_source_instance(uids, combine_segments=True).any()


@pytest.mark.parametrize("mask", [np.zeros((8, 9), np.uint8), np.full((8, 8), 3, np.uint8), np.full((8, 8), 0.5)])
def test_a_mask_that_is_not_of_its_source_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(DataError):
        segmentation_object(series(tmp_path, 1), mask, CLASSES, DIGEST)


def test_a_source_without_its_place_is_explained(tmp_path: Path) -> None:
    (source,) = series(tmp_path, 1)
    del source.FrameOfReferenceUID
    with pytest.raises(DataError, match="lacks an element"):
        segmentation_object([source], labelled(1), CLASSES, DIGEST)


def connected(folder: Path, **options: object) -> tuple[Picture, ...]:
    connector = Plugin.model_validate({"name": "dicom", **options})
    pictures = read_dicom(folder, DataSpec(connector=connector), "North").pictures
    assert pictures is not None
    return pictures.each


def test_a_series_that_the_connector_read_has_its_mask_slice_by_slice(tmp_path: Path) -> None:
    """The connector orders slices by their places, whatever the files are called."""
    for name, place in (("a", 4.0), ("b", 0.0), ("c", 2.0)):
        write_slice(tmp_path / "in" / f"{name}.dcm", grey(0).astype(np.uint16), place=place, **PLACED)
    (picture,) = connected(tmp_path / "in", read="volumes")
    mask = labelled(3)
    found = read_back(segmentation_of(picture, mask, CLASSES, DIGEST), tmp_path)
    uids = [pydicom.dcmread(tmp_path / "in" / f"{name}.dcm").SOPInstanceUID for name in "bca"]
    np.testing.assert_array_equal(found.get_pixels_by_source_instance(uids, combine_segments=True), mask)


def enhanced(folder: Path, frames: np.ndarray) -> pydicom.Dataset:
    """A CT of several frames, each at its place."""
    file = write_slice(folder / "many.dcm", frames[0], **PLACED)
    ds = pydicom.dcmread(file)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, name)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    ds.NumberOfFrames, ds.PixelData = len(frames), frames.tobytes()
    measures, orientation, shared = (pydicom.Dataset() for _ in range(3))
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], 2
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index in range(len(frames)):
        position, group = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = [0, 0, 2.0 * index]
        group.PlanePositionSequence = [position]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.save_as(file, enforce_file_format=True)
    return ds


def test_a_frame_of_several_has_its_mask_in_its_own_place(tmp_path: Path) -> None:
    written = enhanced(tmp_path / "in", np.stack([grey(index) for index in range(3)]).astype(np.uint16))
    picture = connected(tmp_path / "in")[1]
    found = read_back(segmentation_of(picture, labelled(1)[0], CLASSES, DIGEST), tmp_path)
    back = found.get_pixels_by_source_frame(
        written.SOPInstanceUID,
        [1, 2, 3],
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(back[1], labelled(1)[0])
    assert not back[[0, 2]].any()


def test_what_is_no_dicom_has_no_object(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    picture = FilePicture(Guard(), tmp_path / "a.png", "a.png")
    with pytest.raises(DataError, match="DICOM images alone"):
        segmentation_of(picture, labelled(1), CLASSES, DIGEST)
