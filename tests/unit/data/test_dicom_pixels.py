"""What the guarded process makes of DICOM files, held against pydicom's own functions, in this process."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.image_files import write_slice

from medfed.core.errors import TaskError
from medfed.data.connectors import CONNECTORS
from medfed.data.images.guard import Guard
from medfed.data.images.wire import Order, Window
from medfed.data.raw import Unreadable
from medfed.spec.task import DataSpec

pydicom = pytest.importorskip("pydicom")
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing  # noqa: E402

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(path for path in SHIPPED.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def guard():
    guard = Guard()
    yield guard
    guard.close()


def pixels(guard, path, **order):
    return guard.pixels(Order(str(path), pixels=True, **order))


def as_pydicom_reads(path):
    """(channels, …) float32, or None where pydicom gives no image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(path)
            array = ds.pixel_array
        except Exception:
            return None
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            array = apply_color_lut(array, ds)
        if array.shape[-1] == 3:
            return np.moveaxis(array, -1, 0).astype(np.float32)
        if ds.PhotometricInterpretation == "MONOCHROME1":
            assert ds.PixelRepresentation == 0
            array = 2**ds.BitsStored - 1 - array
        return apply_modality_lut(array, ds).astype(np.float32)[None]


def test_every_file_that_pydicom_ships_is_read_as_pydicom_reads_it_or_refused_with_a_reason(guard):
    read = 0
    for path in FILES:
        expected = as_pydicom_reads(path)
        try:
            found = pixels(guard, path)
        except Unreadable as refused:
            assert expected is None, (path.name, refused.reason)
            assert refused.reason
            continue
        assert expected is not None, path.name
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=path.name)
        assert guard.header(path).frames >= 1
        read += 1
    assert read >= 85


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated.dcm", "it ends before its last pixel"),
        ("JPGExtended.dcm", "cannot be decoded (JPEG Extended (Process 2 and 4))"),
        ("badVR.dcm", "damaged (ValueError)"),
    ],
)
def test_reasons_say_what_is_the_matter(guard, name, reason):
    with pytest.raises(Unreadable) as caught:
        pixels(guard, SHIPPED / name)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", "JPEG Lossless"),
        ("MR_small_jpeg_ls_lossless.dcm", "JPEG-LS Lossless"),
        ("JPEGLSNearLossless_16.dcm", "JPEG-LS Lossy"),
        ("JPEG2000.dcm", "JPEG 2000"),
        ("MR_small_RLE.dcm", "RLE"),
        ("SC_rgb_jpeg_dcmtk.dcm", "JPEG Baseline"),
    ],
)
def test_common_transfer_syntaxes_are_decoded(guard, name, syntax):
    path = SHIPPED / name
    assert pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID.name.startswith(syntax)
    assert np.ptp(pixels(guard, path)) > 0


def test_one_frame_of_many_is_the_same_as_in_the_whole(guard):
    whole = pixels(guard, SHIPPED / "examples_ybr_color.dcm")
    assert whole.shape == (3, 30, 240, 320)
    np.testing.assert_array_equal(pixels(guard, SHIPPED / "examples_ybr_color.dcm", frame=29), whole[:, 29])


def test_a_window_is_pydicoms_brought_to_0_and_1(guard, tmp_path):
    values = np.arange(-2000, 2096, dtype=np.int16).reshape(64, 64)
    said = {"RescaleSlope": 1, "RescaleIntercept": -24, "WindowCenter": [40, 50], "WindowWidth": [400, 350]}
    path = write_slice(tmp_path / "a.dcm", values, **said)
    ds = pydicom.dcmread(path)
    low, high = -(2**15) - 24, 2**15 - 1 - 24
    expected = (apply_windowing(apply_modality_lut(ds.pixel_array, ds), ds) - low) / (high - low)
    np.testing.assert_allclose(pixels(guard, path, window=Window())[0], expected, atol=1e-6)
    np.testing.assert_array_equal(pixels(guard, path, window=Window(40, 400)), pixels(guard, path, window=Window()))


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_other_windows_are_pydicoms_too(guard, tmp_path, function):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    said = {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": function}
    path = write_slice(tmp_path / "a.dcm", values, **said)
    ds = pydicom.dcmread(path)
    expected = apply_windowing(ds.pixel_array, ds) / (2**16 - 1)
    np.testing.assert_allclose(pixels(guard, path, window=Window())[0], expected, atol=1e-6)


def test_a_file_without_a_window_says_so(guard, tmp_path):
    path = write_slice(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16))
    with pytest.raises(Unreadable, match="no window"):
        pixels(guard, path, window=Window())


def test_monochrome1_is_turned_over_within_its_bits(guard, tmp_path):
    values = np.array([[0, 1], [100, 4095]], np.uint16)
    said = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -10}
    plain = pixels(guard, write_slice(tmp_path / "a.dcm", values, **said))
    np.testing.assert_array_equal(plain[0], 4095 - values)
    turned = pixels(guard, write_slice(tmp_path / "b.dcm", values, **said, **rescaled))
    np.testing.assert_array_equal(turned[0], (2.0 * (4095 - values) - 10))
    shown = pixels(guard, tmp_path / "a.dcm", window=Window(2048, 4096))
    assert shown[0, 0, 0] == 1 and shown[0, 1, 1] == 0


def read_folder(path, **options):
    data = DataSpec.model_validate({"connector": {"name": "dicom", **options}, "label": "y"})
    return CONNECTORS.get("dicom")(path, data, "North")


def test_raw_numbers_are_those_that_are_stored(guard, tmp_path):
    stored = np.arange(16, dtype=np.uint16).reshape(4, 4)
    said = {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": "2", "RescaleIntercept": "-7"}
    path = write_slice(tmp_path / "a.dcm", stored, **said)
    assert (pixels(guard, path, frame=0, raw=True)[0] == stored).all()
    assert (pixels(guard, path, frame=0)[0] != stored).all()


def test_a_series_becomes_a_volume_in_the_order_of_its_geometry(tmp_path):
    depth = {"c": 0.0, "a": 2.5, "b": 5.0, "d": 7.5}
    for name, place in depth.items():
        write_slice(tmp_path / f"{name}.dcm", np.full((4, 6), place * 2, np.int16), place=place)
    raw = read_folder(tmp_path, read="volumes")
    assert raw.columns["patient"].tolist() == ["P1"]
    volume = raw.pictures.each[0].pixels()
    assert volume.shape == (1, 4, 4, 6)
    assert volume[0, :, 0, 0].tolist() == [0, 5, 10, 15]
    raw.pictures.close()


@pytest.mark.parametrize(
    ("places", "reason"),
    [([0.0, 1.0, 3.0], "missing"), ([0.0, 1.0, 1.0, 2.0], "one place")],
)
def test_a_series_with_a_gap_or_a_slice_twice_is_refused(tmp_path, places, reason):
    for index, place in enumerate(places):
        write_slice(tmp_path / f"{index}.dcm", np.zeros((4, 4), np.int16), place=place)
    raw = read_folder(tmp_path, read="volumes")
    assert raw.rows == 0
    assert {reason in each.reason for each in raw.pictures.unread} == {True}


def test_two_directions_of_one_series_are_two_volumes(tmp_path):
    for index in range(3):
        write_slice(tmp_path / f"axial{index}.dcm", np.zeros((4, 4), np.int16), place=float(index))
        turned = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": [index, 0, 0]}
        write_slice(tmp_path / f"sagittal{index}.dcm", np.zeros((4, 4), np.int16), **turned)
    raw = read_folder(tmp_path, read="volumes")
    assert [picture.pixels().shape for picture in raw.pictures.each] == [(1, 3, 4, 4)] * 2
    raw.pictures.close()


def test_files_that_hold_no_image_are_passed_over_and_broken_ones_listed(tmp_path):
    write_slice(tmp_path / "Röntgen" / "山.dcm", np.zeros((4, 4), np.uint16))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "DICOMDIR").write_bytes(next(SHIPPED.rglob("DICOMDIR")).read_bytes())
    raw = read_folder(tmp_path)
    assert raw.columns["file"].tolist() == ["Röntgen/山.dcm"]
    assert {each.name: each.ignored for each in raw.pictures.unread} == {
        "DICOMDIR": True,
        "broken.dcm": False,
        "empty.dcm": False,
    }


def test_labels_are_joined_by_patient(tmp_path):
    for patient in ("A", "B"):
        write_slice(tmp_path / f"{patient}.dcm", np.zeros((4, 4), np.uint16), patient=patient)
    (tmp_path / "labels.csv").write_text("patient,y\nB,1\nC,0\n")
    raw = read_folder(tmp_path)
    assert raw.columns["y"].tolist() == [None, "1"]
    assert raw.columns["patient"].tolist() == ["A", "B"]


@pytest.mark.parametrize(
    "options", [{"window": [40]}, {"window": "soft"}, {"read": "slices"}, {"sise": 3}, {"by": "x"}]
)
def test_wrong_options_are_refused(tmp_path, options):
    with pytest.raises(TaskError):
        read_folder(tmp_path, **options)


def test_a_nifti_volume_lies_as_an_axial_series(guard, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    data = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    las = np.diag([-2.0, 3.0, 4.0, 1.0])  # the first axis runs to the patient's left in RAS, so from right here
    for name in ("a.nii", "b.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(data, las), tmp_path / name)
        volume = pixels(guard, tmp_path / name)
        assert volume.shape == (1, 4, 3, 2)
        # x of the file falls towards the right: reversed twice, it is as in the file; y is turned towards the back
        np.testing.assert_array_equal(volume[0], data[:, ::-1].transpose(2, 1, 0))
    (tmp_path / "c.nii").write_bytes(b"\0" * 400)
    with pytest.raises(Unreadable):
        pixels(guard, tmp_path / "c.nii")
