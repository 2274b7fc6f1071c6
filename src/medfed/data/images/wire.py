"""What the guarded process and its keeper tell each other: a line of JSON, and the bytes of an array behind it.

The process has read files of unknown origin, so its keeper believes nothing that it says: lines are bounded, and shapes
are checked before memory is given to them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medfed.data.images.limits import LARGEST_SIDE, check_shape
from medfed.data.raw import Unreadable

LONGEST_LINE = 2**16
LONGEST_TEXT = 256
_MOST_AXES = 4


@dataclass(frozen=True)
class Window:
    """Which grey values are told apart: ``center`` and ``width`` of DICOM PS3.3 C.11.2, or the file's own."""

    center: float | None = None
    width: float | None = None


@dataclass(frozen=True)
class Order:
    """What is asked of a file. frame: counted from 0; None: all there are, as one volume.

    mask: its numbers are classes, and are taken as they stand in it. raw: the numbers of a DICOM file as they are
    stored, without rescale, window, colours or turning over. unused_bits: with what stands in bits beyond Bits Stored.
    """

    path: str
    pixels: bool
    frame: int | None = None
    window: Window | None = None
    mask: bool = False
    raw: bool = False
    unused_bits: bool = False


@dataclass(frozen=True)
class Header:
    """What a file says of its image. patient, study, series: its identifiers, empty where there are none.

    position, orientation: of its first pixel, and of its rows and columns, in mm (DICOM PS3.3 C.7.6.2), or empty; of
    NIfTI the offset and the matrix of its affine.
    """

    frames: int
    patient: str = ""
    study: str = ""
    series: str = ""
    modality: str = ""
    instance: int = 0
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    shape: tuple[int, ...] = ()


class Broken(Exception):
    """The other side ended, or said something that is not of this form."""


def send(stream: IO[bytes], line: dict[str, Any], array: NDArray[np.float32] | None = None) -> None:
    """One message."""
    stream.write(json.dumps(line).encode() + b"\n")
    if array is not None:
        stream.write(np.ascontiguousarray(array).data)
    stream.flush()


def receive_line(stream: IO[bytes]) -> dict[str, Any]:
    """The next line. Raises Broken."""
    line = stream.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise Broken
    try:
        value = json.loads(line)
    except ValueError:
        raise Broken from None
    if not isinstance(value, dict):
        raise Broken
    return value


def receive_array(stream: IO[bytes], shape: Any) -> NDArray[np.float32]:
    """The array behind a line that says its shape. Raises Broken, Unreadable."""
    if not isinstance(shape, list) or len(shape) > _MOST_AXES or not all(type(side) is int for side in shape):
        raise Broken
    try:
        check_shape(shape)
    except Unreadable:
        raise Broken from None
    array = np.empty(math.prod(shape), np.float32)
    view = array.data.cast("B")
    while view:
        count = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise Broken
        view = view[count:]
    return array.reshape(shape)


def header_of(line: Any) -> Header:
    """A header as it came. Raises Broken where a part is of another type or size."""
    if not isinstance(line, dict):
        raise Broken
    try:
        header = Header(**line)
    except TypeError:
        raise Broken from None
    texts = (header.patient, header.study, header.series, header.modality)
    numbers = (header.position, header.orientation, header.shape)
    if not all(isinstance(text, str) and len(text) <= LONGEST_TEXT for text in texts):
        raise Broken
    if not all(isinstance(each, list) and all(type(n) in (int, float) for n in each) for each in numbers):
        raise Broken
    if type(header.frames) is not int or type(header.instance) is not int or not 1 <= header.frames <= LARGEST_SIDE:
        raise Broken
    return Header(**{**line, **{name: tuple(line[name]) for name in ("position", "orientation", "shape")}})
