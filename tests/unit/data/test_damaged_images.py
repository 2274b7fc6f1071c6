"""Files of unknown origin: flipped bytes, truncations, bombs. None crashes, hangs or takes all memory."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.image_files import grey, write_picture, write_slice

from medfed.core.errors import DataError
from medfed.data.connectors import CONNECTORS, npz
from medfed.data.images import limits, reasons
from medfed.data.images.guard import Guard
from medfed.data.images.wire import Broken, Order, header_of, receive_array
from medfed.data.raw import Unreadable
from medfed.spec.task import DataSpec

pydicom = pytest.importorskip("pydicom")
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
SEEDS = {
    "SC_rgb_jpeg_gdcm.dcm": 24,
    "MR_small_jpeg_ls_lossless.dcm": 24,
    "JPEG2000.dcm": 24,
    "MR_small_RLE.dcm": 24,
    "SC_rgb_jpeg_dcmtk.dcm": 24,
    "CT_small.dcm": 24,
    "image_dfl.dcm": 24,
    "rtdose_rle.dcm": 16,
}
"""Files that pydicom ships, one a decoder, and how many damaged copies of each are read."""


@pytest.fixture(scope="module")
def guard():
    guard = Guard(seconds=10)
    yield guard
    guard.close()


def tried(guard, path):
    """The image's shape, or the reason why there is none."""
    try:
        guard.header(path)
        return guard.pixels(Order(str(path), pixels=True)).shape
    except Unreadable as unreadable:
        assert reasons.known(unreadable.reason) == unreadable.reason or "takes longer" in unreadable.reason
        return unreadable.reason


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes flipped, more of them near the beginning, and in one of three cases the end cut off."""
    broken = bytearray(content)
    for _ in range(int(rng.integers(1, 12))):
        end = len(broken) if rng.random() < 0.5 else min(len(broken), 2048)
        broken[int(rng.integers(0, end))] ^= int(rng.integers(1, 256))
    return bytes(broken[: int(rng.integers(1, len(broken)))] if rng.random() < 1 / 3 else broken)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_dicom_files_are_read_or_refused(guard, tmp_path, name):
    content, rng = (SHIPPED / name).read_bytes(), np.random.default_rng(len(name))
    outcomes = set()
    for index in range(SEEDS[name]):
        path = tmp_path / f"{index}.dcm"
        path.write_bytes(damaged(content, rng))
        outcomes.add(type(tried(guard, path)))
    assert str in outcomes
    assert isinstance(tried(guard, SHIPPED / name), tuple)  # and the next whole file is read


@pytest.mark.parametrize("ending", [".png", ".jpg", ".nii", ".nii.gz"])
def test_damaged_pictures_and_volumes_are_read_or_refused(guard, tmp_path, ending):
    whole = tmp_path / f"whole{ending}"
    if ending.startswith(".nii"):
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)), whole)
    else:
        write_picture(whole, grey(0, 40))
    content, rng = whole.read_bytes(), np.random.default_rng(7)
    outcomes = set()
    for index in range(30):
        path = tmp_path / f"{index}{ending}"
        path.write_bytes(damaged(content, rng))
        outcomes.add(type(tried(guard, path)))
    assert str in outcomes
    assert isinstance(tried(guard, whole), tuple)


def test_a_file_that_claims_more_than_an_image_has_is_refused_before_memory_is_given(guard, tmp_path):
    path = write_slice(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), NumberOfFrames="2000000000", Rows=65535)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert tried(guard, path) == limits.TOO_LARGE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB


def test_a_png_of_billions_of_pixels_is_refused(guard, tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    body = struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path = tmp_path / "bomb.png"
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    body += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert tried(guard, path) == limits.TOO_LARGE


def deflated_zeros(path: Path, count: int) -> Path:
    """A DICOM file whose deflated data set is so many zeros."""
    head = (SHIPPED / "image_dfl.dcm").read_bytes()
    head = head[: 144 + struct.unpack("<I", head[140:144])[0]]
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(head + packer.compress(b"\0" * count) + packer.flush())
    return path


def test_a_deflated_bomb_meets_the_limit_of_memory(tmp_path):
    guard = Guard(memory=2**27, seconds=20)
    assert tried(guard, deflated_zeros(tmp_path / "bomb.dcm", 2**28)) == "needs more memory than one image may take"
    guard.close()


def test_a_nifti_bomb_is_refused_by_its_header(guard, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    struct.pack_into("<8h", content, 40, 3, 30000, 30000, 30000, 1, 1, 1, 1)
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    assert tried(guard, path) == limits.TOO_LARGE


def test_what_takes_too_long_is_ended_by_the_clock_and_the_next_file_is_read(tmp_path):
    slow, guard, begun = deflated_zeros(tmp_path / "long.dcm", 2**28), Guard(seconds=0.05), time.monotonic()
    with pytest.raises(Unreadable, match="takes longer than"):
        guard.pixels(Order(str(slow), pixels=True))
    assert time.monotonic() - begun < 10
    assert guard.pixels(Order(str(SHIPPED / "CT_small.dcm"), pixels=True)).shape == (1, 128, 128)
    guard.close()


def test_a_file_is_not_called_damaged_because_its_process_was_killed_before(tmp_path):
    guard, whole = Guard(), SHIPPED / "CT_small.dcm"
    for ask in (lambda: guard.pixels(Order(str(whole), pixels=True)).shape, lambda: guard.header(whole).shape):
        ask()
        assert guard._process is not None
        guard._process.kill()
        assert ask()[-2:] == (128, 128)
    guard.close()


def test_what_ends_a_fresh_process_too_is_damaged_and_the_next_file_is_read(tmp_path, monkeypatch):
    guard, begun = Guard(), tmp_path / "begun"
    dying = f"open({str(begun)!r}, 'a').write('x'); input(); import os; os.abort()"
    monkeypatch.setattr("medfed.data.images.guard.COMMAND", ("-c", dying))
    with pytest.raises(Unreadable, match="failed altogether"):
        guard.pixels(Order(str(SHIPPED / "CT_small.dcm"), pixels=True))
    assert begun.read_text() == "xx"
    monkeypatch.undo()
    assert guard.pixels(Order(str(SHIPPED / "CT_small.dcm"), pixels=True)).shape == (1, 128, 128)
    guard.close()


@pytest.mark.parametrize(
    ("said", "passed_on"),
    [
        (reasons.CUT_OFF, reasons.CUT_OFF),
        ("Doe^Jane", reasons.DAMAGED),
        ({"a": 1}, reasons.DAMAGED),
        ("damaged (ValueError)", "damaged (ValueError)"),
        ("damaged (DoeJane)", "damaged"),
        ("damaged (print)", "damaged"),
        ("cannot be read (Permission denied)", "cannot be read (Permission denied)"),
        ("cannot be read (Doe^Jane)", "cannot be read"),
        ("cannot be decoded (JPEG Extended (Process 2 and 4))", "cannot be decoded (JPEG Extended (Process 2 and 4))"),
        ("cannot be decoded (Doe^Jane)", "cannot be decoded"),
    ],
)
def test_the_process_can_say_nothing_but_known_reasons(monkeypatch, said, passed_on):
    guard = Guard()
    speaking = f"import json; input(); print(json.dumps({{'reason': {said!r}, 'ignored': 'Doe'}}), flush=True); input()"
    monkeypatch.setattr("medfed.data.images.guard.COMMAND", ("-c", speaking))
    with pytest.raises(Unreadable) as raised:
        guard.header(Path("any"))
    assert raised.value.reason == passed_on
    guard.close()


@pytest.mark.parametrize("shape", [[2**20, 2**20], [-1, 4], ["4"], [True], None, [1] * 9, []])
def test_a_shape_that_cannot_be_is_not_believed(shape):
    with pytest.raises(Broken):
        receive_array(io.BytesIO(b"\0" * 64), shape)


@pytest.mark.parametrize(
    "change", [{"patient": 3}, {"patient": "x" * 300}, {"frames": "1"}, {"position": ["a"]}, {"more": 1}, {"shape": 2}]
)
def test_a_header_of_another_form_is_not_believed(change):
    line = {"frames": 1, "position": [], "orientation": [], "shape": [4, 4]}
    assert header_of(dict(line)).shape == (4, 4)
    with pytest.raises(Broken):
        header_of(line | change)


def read_npz(path):
    data = DataSpec.model_validate({"connector": "npz", "label": "label"})
    return CONNECTORS.get("npz")(path, data, "North")


def test_damaged_archives_are_read_or_refused(tmp_path):
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, images=np.stack([grey(seed) for seed in range(6)]), labels=np.arange(6) % 2)
    content, rng, refused = whole.read_bytes(), np.random.default_rng(3), 0
    path = tmp_path / "broken.npz"
    for _ in range(150):
        path.write_bytes(damaged(content, rng))
        try:
            read_npz(path)
        except DataError:
            refused += 1
    assert refused > 75


def test_an_archive_that_claims_terabytes_is_refused_before_memory_is_given(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (2**20, 1024, 1024)})
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", buffer.getvalue() + b"\0" * 100)
    with pytest.raises(DataError, match="not a whole NumPy archive"):
        read_npz(path)


def test_nothing_in_an_archive_is_unpickled(tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, images=np.array([{"a": 1}], dtype=object), labels=np.array([0]))
    with pytest.raises(DataError, match="plain arrays"):
        read_npz(path)


def test_an_archive_larger_than_the_memory_there_is_is_refused_and_what_nobody_asks_for_is_not_read(
    tmp_path, monkeypatch
):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros((4, 256, 256), np.uint8), labels=np.arange(4) % 2, notes=np.zeros(2**20))
    assert limits.available_memory() > 2**20
    monkeypatch.setattr(npz, "available_memory", lambda: 2**19)
    assert read_npz(path).rows == 4  # 256 KiB, without the 8 MiB of notes
    monkeypatch.setattr(npz, "available_memory", lambda: 2**17)
    with pytest.raises(DataError, match="GiB of memory"):
        read_npz(path)
    with pytest.raises(DataError, match="GiB of memory"):
        npz.archive_pictures(path, "North")


def read_volumes(folder):
    data = DataSpec.model_validate({"connector": {"name": "dicom", "read": "volumes"}, "label": "patient"})
    return CONNECTORS.get("dicom")(folder, data, "North").pictures


def test_a_volume_of_too_many_slices_is_refused_by_its_headers(tmp_path, monkeypatch):
    for place in range(5):
        write_slice(tmp_path / f"{place}.dcm", np.zeros((4, 4), np.uint16), place=float(place))
    assert len(read_volumes(tmp_path).each) == 1
    monkeypatch.setattr(limits, "LARGEST_IMAGE", 5 * 4 * 4 - 1)
    found = read_volumes(tmp_path)
    assert (found.each, [each.reason for each in found.unread]) == ((), [limits.TOO_LARGE])


def test_a_volume_of_colours_that_is_too_large_is_refused_after_its_first_slice(tmp_path, monkeypatch):
    for place in range(5):
        colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
        colours |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": bytes(48)}
        write_slice(tmp_path / f"{place}.dcm", np.zeros((4, 4), np.uint16), place=float(place), **colours)
    (volume,) = read_volumes(tmp_path).each
    assert volume.pixels().shape == (3, 5, 4, 4)
    monkeypatch.setattr(limits, "LARGEST_IMAGE", 2 * 5 * 4 * 4)
    read = []
    monkeypatch.setattr(
        type(volume.slices[0]), "pixels", lambda self: read.append(1) or np.zeros((3, 4, 4), np.float32)
    )
    with pytest.raises(Unreadable, match="larger than"):
        volume.pixels()
    assert read == [1]
