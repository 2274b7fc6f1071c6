"""Text drawn into pixels: how much of it the check finds, and what it takes for text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from benchmarks.phantoms import KINDS, phantom, with_text
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from tests.unit.data.planted import SECRET, small_image, written

from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.burned_in import Suspicion
from medfed.data.deidentify.decoded import MOST_FRAMES, _as_file
from medfed.data.deidentify.glyphs import has_text
from medfed.data.deidentify.instance import Copy, deidentify
from medfed.data.deidentify.refusals import Refusal

RULES = Rules(SECRET)
SAMPLES = Path(pydicom.__path__[0]) / "data" / "test_files"


@pytest.mark.parametrize("kind", KINDS)
def test_bright_overlays_are_found_and_plain_images_pass(kind: str) -> None:
    hits = misses = alarms = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        image = phantom(kind, rng)
        alarms += has_text(image)
        found = has_text(with_text(image, rng, size=18, ink=1.0))
        hits, misses = hits + found, misses + (not found)
    assert hits >= 3 and alarms <= 1


@pytest.mark.parametrize("frame", [np.zeros((40, 40)), np.full((3, 3), np.nan), np.ones((1, 1)), np.eye(64)])
def test_odd_frames_hold_no_text(frame: np.ndarray) -> None:
    assert not has_text(frame)


def test_dark_text_and_coloured_text_are_found() -> None:
    rng = np.random.default_rng(3)
    image = phantom("ct", rng)
    drawn = with_text(image, rng, size=20, ink=1.0)
    assert has_text(4095 - drawn)
    assert has_text(np.stack([image, drawn, image], axis=2))


def test_a_file_with_text_in_its_last_frame_waits_for_a_person() -> None:
    rng = np.random.default_rng(5)
    plain = phantom("mr", rng)
    image = small_image()
    image.Rows, image.Columns = plain.shape
    for frames, reason in (([plain, plain], None), ([plain, with_text(plain, rng, size=18, ink=1.0)], Suspicion.TEXT)):
        image.NumberOfFrames = len(frames)
        image.PixelData = b"".join(frame.tobytes() for frame in frames)
        made = deidentify(written(image, ExplicitVRLittleEndian), RULES)
        assert isinstance(made, Copy) and made.suspicion is reason


def drawn(size: tuple[int, int] = (128, 256)) -> np.ndarray:
    """Where a line of text is."""
    return with_text(np.zeros(size, np.uint16), np.random.default_rng(1), size=20, ink=1.0) > 2000


def with_pixels(pixels: np.ndarray, **attributes: Any) -> Dataset:
    image = small_image()
    image.Rows, image.Columns = pixels.shape[:2]
    image.BitsAllocated = image.BitsStored = 8 * pixels.dtype.itemsize
    image.HighBit = image.BitsStored - 1
    if pixels.ndim == 3:
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    return image


def clean(image: Dataset, syntax: str = ExplicitVRLittleEndian) -> Copy:
    made = deidentify(written(image, syntax), RULES)
    assert isinstance(made, Copy), made
    return made


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_hold_nothing_in_the_copy_and_the_image_is_the_same(syntax: str, signed: bool) -> None:
    image = np.random.default_rng(0).integers(0, 4096, (128, 256)).astype(np.uint16)
    planted = image | drawn().astype(np.uint16) << 15
    order = "<" if syntax == ExplicitVRLittleEndian else ">"
    source = with_pixels(planted.astype(f"{order}u2"), BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    made = clean(source, syntax)
    copy = dcmread(BytesIO(made.content))
    stored = np.frombuffer(copy.PixelData, f"{order}{'i' if signed else 'u'}2").reshape(image.shape)
    expected = np.where(image >= 2048, image.astype(int) - 4096, image) if signed else image
    np.testing.assert_array_equal(stored, expected)
    np.testing.assert_array_equal(copy.pixel_array, dcmread(BytesIO(written(source, syntax))).pixel_array)


@pytest.mark.parametrize("attributes", [{"BitsStored": 12, "HighBit": 15}, {"BitsStored": 17}, {"BitsStored": None}])
def test_pixels_whose_header_does_not_say_which_bits_they_are_are_refused(attributes: dict[str, int | None]) -> None:
    source = with_pixels(np.zeros((8, 8), np.uint16), **attributes)
    assert deidentify(written(source, ExplicitVRLittleEndian), RULES) is Refusal.HIDDEN_BITS


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_pixels_with_something_in_their_unused_bits_are_refused(syntax: str, signed: bool) -> None:
    for hidden in (0, 1):
        pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
        pixels[:20, :40] |= np.uint16(hidden << 14)
        source = with_pixels(pixels, PixelRepresentation=int(signed))
        source.file_meta = FileMetaDataset()
        source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        source.compress(syntax, generate_instance_uid=False)
        source.BitsStored, source.HighBit = 12, 11
        made = deidentify(written(source, syntax), RULES)
        assert made is Refusal.HIDDEN_BITS if hidden else isinstance(made, Copy)


def test_compressed_pixels_that_cannot_be_decoded_are_refused_where_they_have_room_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("medfed.data.deidentify.decoded.MOST_FRAMES", 0)
    image = dcmread(SAMPLES / "J2K_pixelrep_mismatch.dcm")
    image.SOPClassUID, image.Modality = CTImageStorage, "CT"
    syntax = image.file_meta.TransferSyntaxUID
    assert clean(image, syntax).suspicion is Suspicion.UNSEEN
    image.BitsStored, image.HighBit = 12, 11
    assert deidentify(written(image, syntax), RULES) is Refusal.HIDDEN_BITS


def palette(text: np.ndarray) -> Dataset:
    """Text of an index one above its surroundings', and white."""
    indices = np.full(text.shape, 100, np.uint8)
    indices[-2:], indices[:2], indices[text] = 0, 255, 101
    image = with_pixels(indices, PhotometricInterpretation="PALETTE COLOR")
    table = 30 * np.arange(256, dtype=np.uint16)
    table[101] = 65535
    for colour in ("Red", "Green", "Blue"):
        setattr(image, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(image, f"{colour}PaletteColorLookupTableData", table.tobytes())
    return image


def colours(text: np.ndarray, ink: tuple[int, ...], paper: tuple[int, ...], kind: str = "RGB") -> Dataset:
    pixels = np.where(text[..., None], ink, paper).astype(np.uint8)
    return with_pixels(pixels, PhotometricInterpretation=kind)


def beside_padding(text: np.ndarray) -> Dataset:
    """Tissue of 40 HU in padding of -32768, with text of 3071."""
    y, x = np.mgrid[: text.shape[0], : text.shape[1]]
    body = np.hypot((y - 64) / 60, (x - 128) / 126) < 1
    return with_pixels(np.where(text, 3071, np.where(body, 40, -32768)).astype(np.int16), PixelRepresentation=1)


@pytest.mark.parametrize(
    "image",
    [
        partial(colours, ink=(255, 0, 0), paper=(255, 255, 255)),
        partial(colours, ink=(0, 0, 255), paper=(255, 255, 255)),
        partial(colours, ink=(120, 128, 128), paper=(0, 128, 128), kind="YBR_FULL"),
        partial(colours, ink=(0, 128, 128), paper=(120, 128, 128), kind="YBR_FULL"),
        palette,
        beside_padding,
    ],
)
def test_text_in_one_colour_in_a_palette_and_beside_padding_waits_for_a_person(
    image: Callable[[np.ndarray], Dataset],
) -> None:
    assert clean(image(drawn())).suspicion is Suspicion.TEXT
    assert clean(image(np.zeros((128, 256), bool))).suspicion is None


def test_more_frames_than_are_looked_at_wait_for_a_person() -> None:
    image = with_pixels(np.zeros((4, 4), np.uint8), NumberOfFrames=MOST_FRAMES + 1)
    image.PixelData *= MOST_FRAMES + 1
    assert clean(image).suspicion is Suspicion.UNSEEN


def test_two_files_in_memory_are_told_apart_however_coarse_the_clock() -> None:
    times = []
    for content in (b"first", b"second"):
        with _as_file(content) as path:
            assert path.read_bytes() == content
            times.append(path.stat().st_mtime_ns)
    assert times[1] == times[0] + 1
