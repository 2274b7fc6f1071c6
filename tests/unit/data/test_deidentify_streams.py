"""Text hidden in compressed pixels: beside the image, behind it, around it. None of it is in the copy."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.uid import CTImageStorage
from tests.unit.data.planted import SECRET, written

from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.frames import bare_frames
from medfed.data.deidentify.instance import Copy, deidentify
from medfed.data.deidentify.reading import silent
from medfed.data.deidentify.refusals import Refusal
from medfed.data.deidentify.runs import without_rest
from medfed.data.deidentify.segments import Odd
from medfed.data.deidentify.streams import without_text

RULES = Rules(SECRET)
HIDDEN = Refusal.HIDDEN
SAMPLES = Path(pydicom.__path__[0]) / "data" / "test_files"
TEXT = b"QZHIDDENTEXT born 1950"


def ct(name: str) -> Dataset:
    """A sample as a CT image, which no rule but those of streams looks at."""
    image = dcmread(SAMPLES / name)
    image.Modality, image.ImageType, image.ConversionType = "CT", ["ORIGINAL", "PRIMARY"], None
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    return image


def first_frame(image: Dataset) -> bytes:
    return get_frame(image.PixelData, 0, number_of_frames=int(image.get("NumberOfFrames") or 1))


def with_frame(image: Dataset, frame: bytes) -> bytes:
    image.PixelData = encapsulate([frame])
    return written(image, image.file_meta.TransferSyntaxUID)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (2 + len(body)).to_bytes(2, "big") + body


def box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def after_first_segment(frame: bytes, planted: bytes) -> bytes:
    end = 4 + int.from_bytes(frame[4:6], "big")
    return frame[:end] + planted + frame[end:]


def without_padding(frame: bytes) -> bytes:
    return frame.rstrip(b"\0")


def in_jp2(frame: bytes, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """The codestream as a JP2 file (ISO/IEC 15444-1, annex I) with boxes before and after it."""
    head = box(b"ihdr", b"\0\0\4\0\0\0\4\0\0\1\x0f\7\0\0") + box(b"colr", b"\1\0\0" + (17).to_bytes(4, "big"))
    file = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", head)
    return file + before + box(b"jp2c", without_padding(frame)) + after


def in_tile_header(frame: bytes) -> bytes:
    """A comment in the header of the first part of a tile, whose length counts it."""
    at = frame.index(b"\xff\x90\0\x0a")
    planted = segment(0x64, b"\0\1" + TEXT)
    length = int.from_bytes(frame[at + 6 : at + 10], "big")
    assert length
    head = frame[: at + 6] + (length + len(planted)).to_bytes(4, "big") + frame[at + 10 : at + 12]
    return head + planted + frame[at + 12 :]


BASELINE, JPEG, JPEG_LS, J2K = (
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEG2000.dcm",
)
UNUSED_CODES = b"\x13" + bytes((len(TEXT), *[0] * 15)) + TEXT
PLANTED = {
    "JPEG comment": (JPEG, lambda f: after_first_segment(f, segment(0xFE, TEXT))),
    "JPEG application": (JPEG, lambda f: after_first_segment(f, segment(0xE1, b"Exif\0\0" + TEXT))),
    "JPEG behind the end": (JPEG, lambda f: without_padding(f) + TEXT),
    "JPEG behind the end, and another end": (JPEG, lambda f: without_padding(f) + TEXT + b"\xff\xd9"),
    "JPEG comment after the scan": (JPEG, lambda f: without_padding(f)[:-2] + segment(0xFE, TEXT) + b"\xff\xd9"),
    "JPEG-LS comment": (JPEG_LS, lambda f: f[:2] + segment(0xFE, TEXT) + f[2:]),
    "JPEG-LS behind the end": (JPEG_LS, lambda f: without_padding(f) + TEXT),
    "JPEG 2000 comment": (J2K, lambda f: after_first_segment(f, segment(0x64, b"\0\1" + TEXT))),
    "JPEG 2000 behind the end": (J2K, lambda f: without_padding(f) + TEXT + b"\xff\xd9"),
    "JP2 box before": (J2K, lambda f: in_jp2(f, before=box(b"xml ", TEXT))),
    "JP2 box after": (J2K, lambda f: in_jp2(f, after=box(b"uuid", bytes(16) + TEXT))),
    "JP2 comment inside": (J2K, lambda f: in_jp2(after_first_segment(f, segment(0x64, b"\0\1" + TEXT)))),
    "JP2 behind the last box": (J2K, lambda f: in_jp2(f, after=TEXT)),
    "JPEG table without use": (BASELINE, lambda f: after_first_segment(f, segment(0xDB, b"\3" + TEXT.ljust(64)))),
    "JPEG Huffman table without use": (BASELINE, lambda f: after_first_segment(f, segment(0xC4, UNUSED_CODES))),
    "JPEG quantiser of a lossless frame": (
        JPEG,
        lambda f: after_first_segment(f, segment(0xDB, b"\0" + TEXT.ljust(64))),
    ),
    "JPEG longer application of colours": (BASELINE, lambda f: after_first_segment(f, segment(0xE0, b"JFIF\0" + TEXT))),
    "JPEG 2000 registration": (J2K, lambda f: after_first_segment(f, segment(0x63, TEXT))),
    "JPEG 2000 lengths of packets": (J2K, lambda f: after_first_segment(f, segment(0x57, TEXT))),
    "JPEG 2000 comment in the header of a tile": (J2K, in_tile_header),
    "RLE behind the last segment": ("MR_small_RLE.dcm", lambda f: f + TEXT),
}


@pytest.mark.parametrize("place", PLANTED)
def test_planted_text_is_not_in_the_copy_and_the_image_is(place: str) -> None:
    name, plant = PLANTED[place]
    image = ct(name)
    plain, frame = image.pixel_array, plant(first_frame(image))
    assert TEXT in frame
    made = deidentify(with_frame(image, frame), RULES)
    assert isinstance(made, Copy), made
    assert TEXT not in made.content and b"QZHIDDEN" not in made.content
    copy = dcmread(BytesIO(made.content))
    np.testing.assert_array_equal(copy.pixel_array, plain)


def between_runs(frame: bytes) -> bytes:
    """Text between the first and the second segment."""
    second = int.from_bytes(frame[8:12], "little")
    header = bytearray(frame[:64])
    header[8:12] = (second + len(TEXT)).to_bytes(4, "little")
    return bytes(header) + frame[64:second] + TEXT + frame[second:]


def in_the_header(frame: bytes) -> bytes:
    """Text in the places of segments that there are none of."""
    return frame[:12] + TEXT.ljust(52, b" ")[:52] + frame[64:]


@pytest.mark.parametrize("plant", [between_runs, in_the_header])
def test_text_between_the_parts_of_an_rle_frame_is_left_out(plant) -> None:
    image = ct("MR_small_RLE.dcm")
    plain, frame = image.pixel_array, plant(first_frame(image))
    made = deidentify(with_frame(image, frame), RULES)
    assert isinstance(made, Copy) and b"QZHIDDEN" not in made.content
    np.testing.assert_array_equal(dcmread(BytesIO(made.content)).pixel_array, plain)


def before_scan(frame: bytes, planted: bytes) -> bytes:
    at = frame.index(b"\xff\xda")
    return frame[:at] + planted + frame[at:]


@pytest.mark.parametrize("marker", [0x02, 0xBF, 0xC8, 0xDC, 0xDE, 0xDF, 0xF0, 0xFD])
def test_segments_that_a_jpeg_frame_has_no_need_of_are_refused(marker: int) -> None:
    image = ct(BASELINE)
    assert deidentify(with_frame(image, before_scan(first_frame(image), segment(marker, TEXT))), RULES) is HIDDEN


@pytest.mark.parametrize("marker", [0x4E, 0x5F, 0x60, 0x65, 0x6F, 0x70])
def test_segments_that_a_jpeg_2000_frame_has_no_need_of_are_refused(marker: int) -> None:
    image = ct(J2K)
    assert (
        deidentify(with_frame(image, after_first_segment(first_frame(image), segment(marker, TEXT))), RULES) is HIDDEN
    )


@pytest.mark.parametrize("marker", [0x52, 0x5C, 0x5E])
def test_segments_of_a_jpeg_2000_header_are_as_long_as_the_image_makes_them(marker: int) -> None:
    frame = first_frame(ct(J2K))
    at = frame.find(bytes((0xFF, marker)))
    body = frame[at + 4 : at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")] if at > 0 else bytes(3)
    longer = frame.replace(segment(marker, body), b"") if at > 0 else frame
    without_text(after_first_segment(longer, segment(marker, body)))
    with pytest.raises(Odd):
        without_text(after_first_segment(longer, segment(marker, body + TEXT)))
    with pytest.raises(Odd):
        without_text(after_first_segment(longer, 2 * segment(marker, body)))


def test_a_jpeg_2000_frame_has_no_more_levels_and_components_than_its_image_has_room_for() -> None:
    frame = first_frame(ct(J2K))
    coding = frame.index(b"\xff\x52")
    for planted in (segment(0x53, b"\1\0" + TEXT[:5]), segment(0x50, b"\0\3\0\0" + TEXT[:4])):
        with pytest.raises(Odd):
            without_text(after_first_segment(frame, planted))
    many = frame[: coding + 9] + b"\x20" + frame[coding + 10 :]
    at = many.index(b"\xff\x5c")
    many = many[:at] + segment(0x5C, bytes((many[at + 4],)) + TEXT.ljust(194)) + many[at + 37 :]
    with pytest.raises(Odd):
        without_text(many)


def test_a_table_that_a_later_one_of_its_number_replaces_is_left_out() -> None:
    image = ct(BASELINE)
    frame = first_frame(image)
    at = frame.index(b"\xff\xdb")
    planted = (
        frame[:at]
        + segment(0xDB, b"\0" + TEXT.ljust(64))
        + segment(0xDD, TEXT[:2])
        + segment(0xDD, b"\0\0")
        + frame[at:]
    )
    assert without_text(planted) == without_text(frame[:at] + segment(0xDD, b"\0\0") + frame[at:])


def test_float_pixels_under_a_compressed_syntax_are_as_long_as_the_image() -> None:
    image = ct(J2K)
    del image.PixelData
    image.BitsAllocated = 32
    image.FloatPixelData = bytes(4 * image.Rows * image.Columns)
    assert isinstance(deidentify(written(image, image.file_meta.TransferSyntaxUID), RULES), Copy)
    image.FloatPixelData += TEXT + b"  "
    assert deidentify(written(image, image.file_meta.TransferSyntaxUID), RULES) is Refusal.WRONG_SIZE


def test_the_patients_own_name_among_coded_data_is_refused() -> None:
    image = ct(J2K)
    image.PatientName = "Lovelace^Augusta"
    frame = without_padding(first_frame(image))
    at = frame.index(b"\xff\x90\0\x0a")
    assert int.from_bytes(frame[at + 6 : at + 10], "big") == len(frame) - 2 - at
    longer = (len(frame) - 2 - at + 8).to_bytes(4, "big")
    hidden = frame[: at + 6] + longer + frame[at + 10 : -2] + b"LOVELACE" + frame[-2:]
    assert deidentify(with_frame(image, hidden), RULES) is Refusal.LEFT_OVER


@pytest.mark.parametrize(
    "name",
    [
        "JPEG2000.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_RLE.dcm",
        "SC_rgb_rle_2frame.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "JPGExtended.dcm",
    ],
)
def test_coded_data_without_text_stay_bit_by_bit(name: str) -> None:
    image = dcmread(SAMPLES / name)
    count, syntax = int(image.get("NumberOfFrames") or 1), image.file_meta.TransferSyntaxUID
    for frame in generate_frames(image.PixelData, number_of_frames=count):
        if syntax == pydicom.uid.RLELossless:
            bare = without_rest(frame, image.Rows * image.Columns, image.BitsAllocated // 8 * image.SamplesPerPixel)
        else:
            bare = without_text(frame)
        assert bare == without_text(bare) if syntax != pydicom.uid.RLELossless else bare == frame
        data = max(bare.rfind(b"\xff\xda"), bare.find(b"\xff\x93"), 64)
        assert bare[data:].rstrip(b"\0\xff\xd9") in frame


def test_damaged_frames_are_odd_or_bare_and_raise_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for name in (JPEG, JPEG_LS, J2K):
        frame = first_frame(dcmread(SAMPLES / name))[:6000]
        for _ in range(300):
            broken = bytearray(frame[: int(rng.integers(1, len(frame)))])
            for _ in range(int(rng.integers(0, 6))):
                broken[int(rng.integers(len(broken)))] ^= int(rng.integers(1, 256))
            try:
                without_text(bytes(broken))
            except Odd:
                continue


@pytest.mark.parametrize("frame", [b"", bytes(64), b"\xff\xd8", b"\xff\x4f", b"\0\0\0\x0cjP  ", b"GIF89a"])
def test_what_is_no_frame_is_odd(frame: bytes) -> None:
    with pytest.raises(Odd):
        without_text(frame)
    with pytest.raises(Odd):
        without_rest(frame, 4, 1)


SHIPPED = [
    "693_J2KI",
    "GDCMJ2K_TextGBR",
    "J2K_pixelrep_mismatch",
    "JPEG2000",
    "JPEGLSNearLossless_08",
    "JPEGLSNearLossless_16",
    "MR_small_RLE",
    "MR_small_jp2klossless",
    "MR_small_jpeg_ls_lossless",
    "SC_jpeg_no_color_transform",
    "SC_jpeg_no_color_transform_2",
    "SC_rgb_dcmtk_+eb+cr",
    "SC_rgb_dcmtk_+eb+cy+n1",
    "SC_rgb_dcmtk_+eb+cy+np",
    "SC_rgb_dcmtk_+eb+cy+s4",
    "SC_rgb_gdcm_KY",
    "SC_rgb_jls_lossy_line",
    "SC_rgb_jls_lossy_sample",
    "SC_rgb_jpeg",
    "SC_rgb_jpeg_app14_dcmd",
    "SC_rgb_jpeg_dcmtk",
    "SC_rgb_jpeg_gdcm",
    "SC_rgb_jpeg_lossy_gdcm",
    "SC_rgb_rle",
    "SC_rgb_rle_16bit_2frame",
    "SC_rgb_rle_32bit",
    "SC_rgb_small_odd_jpeg",
    "examples_jpeg2k",
    "examples_ybr_color",
    "rtdose_rle",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_decode_to_the_same_pixels(name: str) -> None:
    with silent():
        image = dcmread(SAMPLES / f"{name}.dcm")
        plain = image.pixel_array
        image.PixelData = encapsulate(bare_frames(image, image.file_meta.TransferSyntaxUID))
        np.testing.assert_array_equal(image.pixel_array, plain)
