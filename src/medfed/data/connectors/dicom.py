"""Connector ``dicom``: DICOM files below a folder, each an image or each series a volume; NIfTI volumes too.

The table's columns are ``patient`` (PatientID), ``study``, ``series`` (their instance UIDs), ``modality``, ``file``
(the path below the folder; of a series, its first), ``name`` (the file's name without its ending) and ``frame``. With a
label table, its columns too. A file that holds no image by its nature (a report, a directory) is passed over; one that
cannot be read is listed with its reason.

Where the task names no ``data.id``, the column ``patient`` is it, if every labelled row has a value there.

Options in ``data.connector``: ``read: images``, each frame a row (if absent), or ``volumes``, each series of slices and
each file of several frames a row; ``window``, ``file`` or [center, width]; ``table``, a .csv file in the folder
(``labels.csv`` is one without being named); ``key``, its column of keys (what ``by`` says, if absent); ``by``: what
stands in it: ``patient`` (if absent), ``study``, ``series``, ``file`` or ``name``; ``masks``, for segmentation: the
folder of masks below the dataset's, NIfTI for volumes and PNG for images, each at its image's own path there; that of a
series has the path of its first slice, or is called by its SeriesInstanceUID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError, TaskError
from medfed.data.images.decoding import NIFTI
from medfed.data.images.files import FilePicture, checked_options, files_below, relative, stacked, text_option
from medfed.data.images.guard import Guard, NotAnImage
from medfed.data.images.label_table import joined, table_of
from medfed.data.images.limits import check_shape
from medfed.data.images.masks import mask_column, mask_folder, masks_beside
from medfed.data.images.series import Slice, grouped, in_order
from medfed.data.images.wire import Header, Window
from medfed.data.kinds import objects
from medfed.data.raw import Picture, Pictures, RawTable, Unread, Unreadable
from medfed.spec.task import DataSpec

REQUIRES = ("imaging",)
IMPORTS = ("pydicom", "gdcm", "pylibjpeg", "openjpeg", "rle", "nibabel")

_OPTIONS = {"read": "images", "window": "file", "table": "labels.csv", "key": "patient", "by": "patient"} | {
    "masks": "masks"
}
_BY = ("patient", "study", "series", "file", "name")
_NO_IMAGES = (".csv", ".txt", ".md", ".json", ".xml", ".html", ".pdf", ".yaml", ".yml", ".log", ".zip")
"""Endings of files that people put beside images, and that nobody takes for one."""


@dataclass(frozen=True, eq=False)
class SeriesPicture:
    """A volume of slices that are files each, in order."""

    slices: tuple[FilePicture, ...]
    name: str

    def digest(self) -> bytes:
        """SHA-256 of the slices' own. Raises Unreadable."""
        return hashlib.sha256(b"".join(each.digest() for each in self.slices)).digest()

    def pixels(self) -> NDArray[np.float32]:
        """(channels, depth, height, width). Raises Unreadable, before a second slice is read if they are too many."""
        first = self.slices[0].pixels()
        check_shape((len(first), len(self.slices), *first.shape[1:]))
        return stacked([first, *(each.pixels() for each in self.slices[1:])])


@dataclass(frozen=True, eq=False)
class _Row:
    picture: Picture
    header: Header
    frame: int | None


def read_dicom(path: Path, data: DataSpec, where: str) -> RawTable:
    """The folder's images, which are decoded when they are asked for. Raises DataError, TaskError for wrong options."""
    options = checked_options(data, _OPTIONS, where)
    volumes = text_option(options, "read", where, ("images", "volumes")) == "volumes"
    by = text_option(options, "by", where, _BY) or "patient"
    key = text_option(options, "key", where) or by
    table, window = text_option(options, "table", where), stated_window(data, where)
    where = f"{where} ({path.name})"
    guard, unread = Guard(), list[Unread]()
    place = mask_folder(path, text_option(options, "masks", where), where)
    files = (file for file in files_below(path, where) if place is None or not file.is_relative_to(place))
    rows = _rows(guard, files, path, unread, window, volumes=volumes)
    if not rows and not unread:
        raise DataError("the folder holds no image", where=where, remedy="name the folder of DICOM or NIfTI files")
    columns = {
        "patient": objects([row.header.patient or None for row in rows]),
        "study": objects([row.header.study or None for row in rows]),
        "series": objects([row.header.series or None for row in rows]),
        "modality": objects([row.header.modality or None for row in rows]),
        "file": objects([row.picture.name.partition("#")[0] for row in rows]),
        "name": objects([_bare(row.picture.name) for row in rows]),
        "frame": objects([None if row.frame is None else str(row.frame + 1) for row in rows]),
    }
    masks = masks_beside(guard, place, [(row.picture.name, row.header.series) for row in rows], where) if place else ()
    if masks:
        columns["mask"] = mask_column(masks)
    beside, labels = table_of(path, table, where), None
    if beside is not None and rows:
        columns, labels = joined(columns, beside, key, by, where)
    pictures = Pictures(tuple(row.picture for row in rows), tuple(unread), guard.close, masks)
    return RawTable(columns, path.name, pictures=pictures, patient="patient", labels=labels)


CONNECTOR = read_dicom


def found_pictures(files: Iterable[Path], folder: Path, window: Window | None, *, volumes: bool) -> Pictures:
    """The images of files below a folder, of any kind that can be decoded, named by their paths below it."""
    guard, unread = Guard(), list[Unread]()
    rows = _rows(guard, files, folder, unread, window, volumes=volumes)
    return Pictures(tuple(row.picture for row in rows), tuple(unread), guard.close)


def stated_window(data: DataSpec, where: str) -> Window | None:
    """The window that the connector's options state. Raises TaskError for one that is none."""
    value = data.connector.options.get("window")
    if value is None:
        return None
    if value == "file":
        return Window()
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(number) in (int, float) for number in value):
        center, width = map(float, value)
        if np.isfinite([center, width]).all() and width >= 1:
            return Window(center, width)
    raise TaskError("window has to be `file`, or center and width", where=where, remedy="window: [40, 400]")


def _rows(
    guard: Guard, files: Iterable[Path], folder: Path, unread: list[Unread], window: Window | None, *, volumes: bool
) -> list[_Row]:
    """A row for each image, or each volume; files that give none go to ``unread``."""
    try:
        found = list(_described(guard, files, folder, unread))
    finally:
        guard.close()
    return list(_volumes(guard, found, folder, window, unread) if volumes else _images(guard, found, folder, window))


def _described(guard: Guard, files: Iterable[Path], folder: Path, unread: list[Unread]) -> Iterator[Slice]:
    """The files that say they hold an image; what does not goes to ``unread``."""
    for file in files:
        if file.suffix.lower() in _NO_IMAGES:
            continue
        try:
            yield Slice(file, guard.header(file))
        except NotAnImage as error:
            unread.append(Unread(relative(file, folder), error.reason, ignored=True))
        except Unreadable as error:
            unread.append(Unread(relative(file, folder), error.reason))


def _images(guard: Guard, found: list[Slice], folder: Path, window: Window | None) -> Iterator[_Row]:
    for each in found:
        name, nifti = relative(each.path, folder), each.path.name.lower().endswith(NIFTI)
        for frame in range(each.header.frames):
            of_many = f"#{frame + 1}" if each.header.frames > 1 else ""
            picture = FilePicture(guard, each.path, name + of_many, None if nifti else frame, window)
            yield _Row(picture, each.header, frame)


def _volumes(
    guard: Guard, found: list[Slice], folder: Path, window: Window | None, unread: list[Unread]
) -> Iterator[_Row]:
    """A series that makes no volume is one that cannot be read, by the name of its first file."""

    def file_picture(each: Slice, frame: int | None) -> FilePicture:
        return FilePicture(guard, each.path, relative(each.path, folder), frame, window)

    single = []
    for each in found:
        if each.header.frames > 1 or each.path.name.lower().endswith(NIFTI):
            yield _Row(file_picture(each, None), each.header, None)
        else:
            single.append(each)
    for group in grouped(single):
        try:
            check_shape((len(group), *group[0].header.shape))
            ordered = in_order(group)
        except Unreadable as error:
            unread.append(Unread(relative(group[0].path, folder), error.reason))
            continue
        slices = tuple(file_picture(each, 0) for each in ordered)
        yield _Row(SeriesPicture(slices, slices[0].name), ordered[0].header, None)


def _bare(name: str) -> str:
    last = name.partition("#")[0].rpartition("/")[2]
    for end in (".nii.gz", ".nii", ".dcm"):
        if last.lower().endswith(end):
            return last[: -len(end)]
    return last
