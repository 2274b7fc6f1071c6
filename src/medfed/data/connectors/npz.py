"""Connector ``npz``: arrays of images, of labels or masks and, if there are, of patients in one NumPy archive.

The arrays are called as MedMNIST's: ``train_images``, ``train_labels``, and the same with ``val_`` and ``test_``; or
plainly ``images``, ``labels``, and ``ids`` if there are. Images are (n, height, width) or (n, height, width, 3),
volumes (n, depth, height, width), all whole numbers or floats; labels (n,) or (n, 1). In place of labels, or beside
them, there may be masks for segmentation (``train_masks``, or ``masks``), of the images' shape without colours. The
table's columns are ``label``, ``mask`` (which array and row it is), ``split`` (of the first form) and ``id`` (where
there is an array ``ids``), which says whose each image is where the task names no ``data.id``. Nothing in the archive
is unpickled.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError, TaskError
from medfed.data.images.limits import available_memory, check_shape
from medfed.data.kinds import objects
from medfed.data.raw import Pictures, RawTable, Unreadable
from medfed.spec.task import DataSpec

_LARGEST = 16 * 2**30
_PARTS = {"train_": "train", "val_": "validation", "test_": "test"}
_KINDS = ("images", "labels", "masks", "ids")


@dataclass(frozen=True, eq=False)
class ArrayPicture:
    """One image of an array in memory."""

    name: str
    array: NDArray[Any]
    volume: bool

    def digest(self) -> bytes:
        """SHA-256 of its numbers, their type and their shape."""
        about = f"{self.array.dtype.str}{self.array.shape}".encode()
        return hashlib.sha256(about + self.array.tobytes()).digest()

    def pixels(self) -> NDArray[Any]:
        """The image as (channels, height, width), the volume as (1, depth, height, width)."""
        if self.volume or self.array.ndim == 2:
            return self.array[None]
        return np.moveaxis(self.array, -1, 0)


def read_npz(path: Path, data: DataSpec, where: str) -> RawTable:
    """The archive's images and labels. Raises DataError naming ``where`` and file, TaskError for options."""
    if data.connector.options:
        raise TaskError(
            f"the connector npz has no option {next(iter(data.connector.options))!r}",
            where=where,
            remedy="it has none",
        )
    where = f"{where} ({path.name})"
    arrays = _arrays(path, _KINDS, where)
    parts = _parts(arrays, where)
    columns: dict[str, list[str | None]] = {}
    pictures: list[ArrayPicture] = []
    masks: list[ArrayPicture] = []
    for prefix in parts or {"": ""}:
        found = _pictures(arrays, prefix, where)
        pictures += found
        beside = _masks(arrays, f"{prefix}masks", found, where)
        masks += beside
        if f"{prefix}labels" in arrays or not beside:
            columns.setdefault("label", []).extend(_texts(arrays, f"{prefix}labels", len(found), where))
        if beside:
            columns.setdefault("mask", []).extend(mask.name for mask in beside)
        if parts:
            columns.setdefault("split", []).extend([parts[prefix]] * len(found))
        if f"{prefix}ids" in arrays:
            columns.setdefault("id", []).extend(_texts(arrays, f"{prefix}ids", len(found), where))
    if lacking := [name for name, values in columns.items() if len(values) != len(pictures)]:
        name = f"{lacking[0]}s"
        raise DataError(f"some parts have {name} and some have none", where=where, remedy=f"give {name} for every part")
    texts = {name: objects(values) for name, values in columns.items()}
    whose = "id" if "id" in texts else None
    return RawTable(texts, path.name, pictures=Pictures(tuple(pictures), masks=tuple(masks)), patient=whose)


CONNECTOR = read_npz


def archive_pictures(path: Path, where: str) -> tuple[ArrayPicture, ...]:
    """The archive's images alone, for which nobody need have given labels. Raises DataError."""
    where = f"{where} ({path.name})"
    arrays = _arrays(path, ("images",), where)
    return tuple(each for prefix in _parts(arrays, where) or {"": ""} for each in _pictures(arrays, prefix, where))


def _parts(arrays: dict[str, NDArray[Any]], where: str) -> dict[str, str]:
    """The split of each prefix that the arrays of images have; empty where the archive has one plain array."""
    parts = {prefix: part for prefix, part in _PARTS.items() if f"{prefix}images" in arrays}
    if not parts and "images" not in arrays:
        raise DataError(
            "the archive holds no images",
            where=where,
            remedy="call the arrays images and labels, or train_images, train_labels, val_images, …",
        )
    return parts


def _arrays(path: Path, kinds: Sequence[str], where: str) -> dict[str, NDArray[Any]]:
    """The archive's arrays of these kinds, each checked to be as large as it says before memory is given to it.

    Raises DataError, also where together they are larger than the memory there is.
    """
    names = {f"{prefix}{kind}.npy" for prefix in ("", *_PARTS) for kind in kinds}
    found: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename in names]
            size, room = sum(member.file_size for member in members), min(_LARGEST, available_memory())
            if size > room:
                raise DataError(
                    f"the arrays take {size / 2**30:.1f} GiB of memory, and {room / 2**30:.1f} are to be had here",
                    where=where,
                    remedy=f"divide it, or use a machine with more memory ({_LARGEST // 2**30} GiB are the most)",
                )
            for member in members:
                with archive.open(member) as stream:
                    found[member.filename.removesuffix(".npy")] = _array(stream, member.file_size)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror or 'damaged'})", where=where, remedy="name an .npz file"
        ) from None
    except Exception:  # zipfile, its decompressors and NumPy raise a dozen kinds on a damaged archive
        raise DataError(
            "not a whole NumPy archive of plain arrays",
            where=where,
            remedy="write it by numpy.savez, or fetch it again",
        ) from None
    return found


def _array(stream: IO[bytes], size: int) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "biufU" or not dtype.itemsize:
        raise ValueError(dtype)
    expected = math.prod(shape) * dtype.itemsize
    if expected > size:
        raise ValueError(shape)
    content = stream.read(expected)
    if len(content) != expected:
        raise EOFError
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _pictures(arrays: dict[str, NDArray[Any]], prefix: str, where: str) -> list[ArrayPicture]:
    name = f"{prefix}images"
    images = arrays[name]
    try:
        if images.dtype.kind == "U" or images.ndim not in (3, 4):
            raise Unreadable("of another form")
        check_shape(images.shape[1:])
    except Unreadable:
        raise DataError(
            f"the array {name!r} holds no images",
            where=where,
            remedy="its shape has to be (n, height, width), (n, height, width, 3) or (n, depth, height, width)",
        ) from None
    volume = images.ndim == 4 and images.shape[-1] not in (1, 3)
    return [ArrayPicture(f"{name}[{row}]", image, volume) for row, image in enumerate(images)]


def _masks(arrays: dict[str, NDArray[Any]], name: str, pictures: list[ArrayPicture], where: str) -> list[ArrayPicture]:
    """The masks of a part, one an image; none where the archive has no such array."""
    masks = arrays.get(name)
    if masks is None:
        return []
    if masks.dtype.kind not in "bui" or masks.ndim < 3 or len(masks) != len(pictures):
        raise DataError(
            f"the array {name!r} holds no masks of its images",
            where=where,
            remedy="masks are whole numbers of the images' shape without colours, one mask for each image",
        )
    each = zip(masks, pictures, strict=True)
    return [ArrayPicture(f"{name}[{row}]", mask, image.volume) for row, (mask, image) in enumerate(each)]


def _texts(arrays: dict[str, NDArray[Any]], name: str, rows: int, where: str) -> list[str | None]:
    values = arrays.get(name)
    if values is None:
        raise DataError(f"there is no array {name!r}", where=where, remedy="each part needs images and labels")
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (rows,):
        remedy = "labels are of shape (n,) or (n, 1), one for each image"
        if values.ndim == 2:
            remedy += "; several labels for an image are not supported"
        raise DataError(f"the array {name!r} has another shape than its images", where=where, remedy=remedy)
    return [str(value) for value in values.tolist()]
