"""Inside the guarded process: DICOM files, decoded by pydicom and the decoders that it finds.

Grey values go through the modality transform (PS3.3 C.11.1) and, if asked, a window (C.11.2), which makes them 0 to 1.
MONOCHROME1, in which low is bright, is turned over within the range that its bits can write, so that bright is high
everywhere. Colours become RGB (YBR and palettes too).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID

from medfed.data.images import reasons
from medfed.data.images.decoding import NoImage
from medfed.data.images.limits import check_shape
from medfed.data.images.wire import LONGEST_TEXT, Header, Order, Window
from medfed.data.raw import Unreadable

_DESCRIBED = [
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
]
_MOST_BITS = 64
_ITEM = 8
"""Bytes of the head of an item (PS3.5 A.4), of which a compressed image has one a frame or more."""


def header(path: str) -> Header:
    """What the file says of its image. Raises Unreadable, NoImage, and whatever pydicom raises."""
    ds = _read(path, specific_tags=_DESCRIBED, stop_before_pixels=True)
    if "Rows" not in ds or "Columns" not in ds:
        raise _without_image(ds)
    frames = _frames(ds)
    check_shape((frames, int(ds.Rows), int(ds.Columns)))
    if frames > 1 and os.stat(path).st_size < _fewest_bytes(ds):  # noqa: PTH116
        raise Unreadable(reasons.CUT_OFF)
    return Header(
        frames=frames,
        patient=_text(ds, "PatientID"),
        study=_text(ds, "StudyInstanceUID"),
        series=_text(ds, "SeriesInstanceUID"),
        modality=_text(ds, "Modality"),
        instance=int(ds.get("InstanceNumber") or 0),
        position=_numbers(ds, "ImagePositionPatient", 3),
        orientation=_numbers(ds, "ImageOrientationPatient", 6),
        shape=(int(ds.Rows), int(ds.Columns)),
    )


def pixels(order: Order) -> NDArray[np.float32]:
    """One frame as (channels, rows, columns), or all as (channels, frames, rows, columns). Raises as above."""
    ds = _read_whole(order.path, os.stat(order.path).st_mtime_ns)  # noqa: PTH116
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(ds.dir("PixelData")):
        raise _without_image(ds)
    samples = int(ds.get("SamplesPerPixel") or 1)
    if not 1 <= samples <= 4 or not 1 <= int(ds.BitsAllocated) <= _MOST_BITS:
        raise Unreadable(reasons.ODD_SAMPLES)
    colours = 3 if ds.get("PhotometricInterpretation") == "PALETTE COLOR" and not order.raw else samples
    frames = _frames(ds)
    count = frames if order.frame is None else 1
    check_shape((colours, count, int(ds.Rows), int(ds.Columns)))
    if order.frame is not None and not 0 <= order.frame < frames:
        raise Unreadable(reasons.FEWER_FRAMES)
    plain = "PixelData" in ds and not ds.file_meta.TransferSyntaxUID.is_encapsulated
    if plain and len(ds.PixelData) < get_expected_length(ds):
        raise Unreadable(reasons.CUT_OFF)
    try:
        found = list(_each_frame(ds, order))
    except (RuntimeError, NotImplementedError):  # what pydicom raises where no decoder takes it
        raise Unreadable(reasons.not_decoded(_syntax(ds))) from None
    return found[0] if order.frame is not None or frames == 1 else np.stack(found, axis=1)


def _fewest_bytes(ds: Dataset) -> int:
    """What a file of so many frames has at the least, so that frames which cannot be there are not listed."""
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        return _ITEM * _frames(ds)
    if syntax.is_deflated or not all(name in ds for name in ("SamplesPerPixel", "BitsAllocated")):
        return 0
    return get_expected_length(ds)


def _without_image(ds: Dataset) -> Unreadable:
    """A file that holds none by its class, such as a report; or one that has lost what it held."""
    kind = UID(str(ds.file_meta.get("MediaStorageSOPClassUID", "")))
    if kind.is_private or kind.name == kind or "Image" in kind.name:
        return Unreadable(reasons.LOST_IMAGE)
    return NoImage(reasons.NO_IMAGE)


@lru_cache(maxsize=1)
def _read_whole(path: str, _modified: int) -> Dataset:
    """The file, kept while one frame after the other is asked for."""
    return _read(path)


def _read(path: str, **options: Any) -> Dataset:
    try:
        return dcmread(path, **options)
    except InvalidDicomError:
        raise Unreadable(reasons.NO_DICOM) from None


def _each_frame(ds: Dataset, order: Order) -> Iterator[NDArray[np.float32]]:
    several = order.frame is None and _frames(ds) > 1
    array = pixel_array(
        ds, index=order.frame, raw=order.raw, correct_unused_bits=not order.unused_bits
    )  # not iter_pixels, which fails where a sign has to be corrected
    for index, frame in enumerate(array if several else array[None]):
        if frame.ndim == 3:
            yield np.moveaxis(frame, -1, 0).astype(np.float32)
        elif order.raw:
            yield frame[None].astype(np.float32)
        elif ds.PhotometricInterpretation == "PALETTE COLOR":
            yield np.moveaxis(apply_color_lut(frame, ds), -1, 0).astype(np.float32)
        else:
            yield _grey(frame, ds, order.frame or index, order.window)[None]


def _grey(frame: NDArray[Any], ds: Dataset, index: int, window: Window | None) -> NDArray[np.float32]:
    transform = _value_transform(ds, index)
    values = apply_modality_lut(frame, transform)
    inverted = ds.PhotometricInterpretation == "MONOCHROME1"
    if window is not None:
        shown = _windowed(values.astype(np.float64), ds, index, window)
        return (1 - shown if inverted else shown).astype(np.float32)
    if not inverted or frame.dtype.kind == "f":
        return np.asarray(values, dtype=np.float32)
    bits = int(ds.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if ds.PixelRepresentation == 1 else (0, 2**bits - 1)
    ends = apply_modality_lut(np.array([low, high], dtype=frame.dtype), transform)
    return np.asarray(float(ends[0]) + float(ends[1]) - values.astype(np.float64), dtype=np.float32)


def _value_transform(ds: Dataset, index: int) -> Dataset:
    """The data set that says a frame's rescale: in an enhanced image, its own or the shared functional group."""
    return _functional(ds, index, "PixelValueTransformationSequence") or ds


def _functional(ds: Dataset, index: int, name: str) -> Dataset | None:
    own = ds.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*own[index : index + 1], *(ds.get("SharedFunctionalGroupsSequence") or [])[:1]]
    return next((group[name].value[0] for group in groups if group.get(name)), None)


def _windowed(values: NDArray[np.float64], ds: Dataset, index: int, window: Window) -> NDArray[np.float64]:
    """0 to 1 by PS3.3 C.11.2.1.2 (linear), C.11.2.1.3.1 (sigmoid) or C.11.2.1.3.2 (linear exact)."""
    center, width, function = window.center, window.width, "LINEAR"
    if center is None or width is None:
        said = _functional(ds, index, "FrameVOILUTSequence") or ds
        center, width = _first(said.get("WindowCenter")), _first(said.get("WindowWidth"))
        function = str(said.get("VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or not np.isfinite([center, width]).all():
        raise Unreadable(reasons.NO_WINDOW)
    if function == "SIGMOID" and width > 0:
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
    if function == "LINEAR_EXACT" and width > 0:
        return np.asarray(np.clip((values - center) / width + 0.5, 0, 1))
    if function != "LINEAR" or width < 1:
        raise Unreadable(reasons.ODD_WINDOW)
    if width == 1:
        return np.asarray(values > center - 0.5, dtype=np.float64)
    return np.asarray(np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1))


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, str | int | float) else value[0])


def _frames(ds: Dataset) -> int:
    return int(ds.get("NumberOfFrames") or 1)


def _text(ds: Dataset, name: str) -> str:
    value = ds.get(name)
    text = "" if value is None else str(value).strip()
    if len(text) > LONGEST_TEXT:
        raise Unreadable(reasons.LONG_IDENTIFIER)
    return text


def _numbers(ds: Dataset, name: str, count: int) -> tuple[float, ...]:
    value = ds.get(name)
    found = tuple(float(number) for number in value) if value else ()
    return found if len(found) == count and bool(np.isfinite(found).all()) else ()


def _syntax(ds: Dataset) -> str:
    """The transfer syntax by its name in the standard; a file's own text is not repeated."""
    uid = UID(str(ds.file_meta.get("TransferSyntaxUID", "")))
    return uid.name if uid.is_transfer_syntax else reasons.UNKNOWN_SYNTAX
