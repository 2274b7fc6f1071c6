"""Connector ``image_folder``: PNG, JPEG and NIfTI files below a folder, by class or with a label table.

The table's columns are ``file`` (the path below the folder), ``name`` (the file's name without its ending) and
``class`` (the folder that the file is in). With a label table, its columns too, such as the label and the patient.

Options in ``data.connector``: ``table``, the label table, a .csv file in the folder (``labels.csv`` is one without
being named); ``key``, its column that says which image a line is about (``file`` if absent); ``by``, what of an image
stands in it: ``file`` or ``name`` (``file`` if absent); ``masks``, for segmentation: the folder of masks below the
dataset's, PNG of one number a pixel or NIfTI, each at its image's own path there (``images/7.png`` may leave out its
first folder). The column ``mask`` is then where each image's mask is.
"""

from __future__ import annotations

from pathlib import Path

from medfed.core.errors import DataError
from medfed.data.images.decoding import NIFTI, PHOTOGRAPHS
from medfed.data.images.files import FilePicture, checked_options, files_below, relative, text_option
from medfed.data.images.guard import Guard
from medfed.data.images.label_table import joined, table_of
from medfed.data.images.masks import mask_column, mask_folder, masks_beside, without_ending
from medfed.data.kinds import objects
from medfed.data.raw import Pictures, RawTable
from medfed.spec.task import DataSpec

_OPTIONS = {"table": "labels.csv", "key": "file", "by": "file", "masks": "masks"}


def read_image_folder(path: Path, data: DataSpec, where: str) -> RawTable:
    """The folder's images, which are decoded when they are asked for. Raises DataError, TaskError for wrong options."""
    options = checked_options(data, _OPTIONS, where)
    table = text_option(options, "table", where)
    key = text_option(options, "key", where) or "file"
    by = text_option(options, "by", where, ("file", "name")) or "file"
    where = f"{where} ({path.name})"
    place = mask_folder(path, text_option(options, "masks", where), where)
    files = [file for file in files_below(path, where) if file.name.lower().endswith((*PHOTOGRAPHS, *NIFTI))]
    files = [file for file in files if place is None or not file.is_relative_to(place)]
    if not files:
        raise DataError(
            "the folder holds no image",
            where=where,
            remedy=f"name the folder of files that end in {', '.join((*PHOTOGRAPHS, *NIFTI))}",
        )
    guard = Guard()
    pictures = tuple(FilePicture(guard, file, relative(file, path)) for file in files)
    columns = {
        "file": objects([picture.name for picture in pictures]),
        "name": objects([_bare(picture.name) for picture in pictures]),
        "class": objects([_class(file, path) for file in files]),
    }
    masks = masks_beside(guard, place, [(picture.name,) for picture in pictures], where) if place else ()
    if masks:
        columns["mask"] = mask_column(masks)
    beside, labels = table_of(path, table, where), None
    if beside is not None:
        columns, labels = joined(columns, beside, key, by, where)
    found = Pictures(pictures, close=guard.close, masks=masks)
    return RawTable(columns, path.name, pictures=found, labels=labels)


CONNECTOR = read_image_folder


def _bare(name: str) -> str:
    return without_ending(name.rpartition("/")[2])


def _class(file: Path, folder: Path) -> str | None:
    """The name of the folder that the file is in; none for a file that is in the dataset's own."""
    above = relative(file.parent, folder)
    return None if above == "." else above.rpartition("/")[2]
