"""Masks beside images: found by name, and read as classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.images.decoding import NIFTI
from medfed.data.images.files import FilePicture, files_below, relative
from medfed.data.images.guard import Guard
from medfed.data.kinds import Texts, objects
from medfed.data.raw import Picture, Pictures, Unreadable

LIST_CLASSES = "list the number of every class by data.label.classes, or mend the mask"
"""What to do about numbers that are no class."""

_APART = 0.05
"""The share of a voxel by which a mask may lie apart: what rounding in the file's header leaves."""

_ENDINGS = (*NIFTI, ".png")


def mask_folder(folder: Path, option: str | None, where: str) -> Path | None:
    """The folder that the connector's option ``masks`` names below the dataset's; None without the option.

    Raises DataError where it leads out of it, or is none.
    """
    if option is None:
        return None
    place = (folder / option).resolve()
    if place == folder.resolve() or not place.is_relative_to(folder.resolve()):
        raise DataError("the folder of masks is not one below that of the images", where=where, remedy="put it into it")
    if not place.is_dir():
        raise DataError(f"there is no folder of masks {option!r}", where=where, remedy="name one by masks: FOLDER")
    return folder / option


def masks_beside(
    guard: Guard, place: Path, names: Iterable[tuple[str, ...]], where: str
) -> tuple[FilePicture | None, ...]:
    """The mask of each image, by any of the image's names; None where there is none.

    names: of each image its path below the dataset's folder, and what else it goes by, which may be empty. A mask has
    the image's path in the folder of masks, whatever the ending; the image's first folder may be left out, so that
    ``images/a.png`` has ``masks/a.png``. Raises DataError where two masks differ in their ending alone.
    """
    found: dict[str, Path] = {}
    for file in files_below(place, where):
        name = relative(file, place)
        if not name.lower().endswith(_ENDINGS):
            continue
        if found.setdefault(without_ending(name), file) is not file:
            raise DataError("two masks are of one image", where=f"{where}, file {name}", remedy="take one of them away")
    masks: list[FilePicture | None] = []
    for known in names:
        keys = [without_ending(name) for name in known if name]
        chosen = next((found[key] for each in keys for key in (each, each.partition("/")[2]) if key in found), None)
        masks.append(None if chosen is None else FilePicture(guard, chosen, relative(chosen, place), mask=True))
    return tuple(masks)


def mask_column(masks: Sequence[Picture | None]) -> Texts:
    """The column ``mask``: where each image's is, None where there is none."""
    return objects([None if mask is None else mask.name for mask in masks])


def require_masks(pictures: Pictures, where: str) -> None:
    """Raise DataError, which names the first file, where an image has no mask."""
    if not pictures.masks:
        raise DataError(
            "there are no masks",
            where=where,
            remedy="say where they are: data: {connector: {name: image_folder, masks: FOLDER}}, or an array `masks` "
            "(npz)",
        )
    lacking = [each.name for each, mask in zip(pictures.each, pictures.masks, strict=True) if mask is None]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(pictures.each)} images have no mask",
            where=f"{where}, file {lacking[0]}",
            remedy="give every image a mask of its own name, an empty one where there is nothing to mark; or take the "
            "image away",
        )


def class_indices(mask: Picture, shape: tuple[int, ...], values: tuple[int, ...], where: str) -> NDArray[np.float32]:
    """The class of each pixel, (1, …), from the numbers in a mask. shape: of its image, without channels.

    values: the number of each class. Raises DataError, which names the file and no number, where the mask is of another
    size or has numbers that are no class; Unreadable.
    """
    try:
        numbers = np.asarray(mask.pixels())
    except Unreadable as error:
        raise Unreadable(f"its mask: {error.reason}") from None
    where = f"{where}, file {mask.name}"
    if numbers.shape != (1, *shape):
        raise DataError(
            f"a mask is of another size than its image ({_words(numbers.shape[1:])}, and not {_words(shape)})",
            where=where,
            remedy="a mask has one number for each pixel of the image as it is in its own file",
        )
    indices = known_indices(numbers, values)
    if indices is None:
        raise DataError("a mask has numbers that are no class", where=where, remedy=LIST_CLASSES)
    return indices.astype(np.float32)


def require_same_place(image: Picture, mask: Picture, where: str) -> None:
    """Raise DataError, which names the file, where a mask in NIfTI lies elsewhere in space than its image in NIfTI.

    Its pixels would otherwise be turned another way than the image's, and nobody would see it.
    """
    if not isinstance(image, FilePicture) or not isinstance(mask, FilePicture):
        return
    places = image.affine(), mask.affine()
    if places[0] is None or places[1] is None:
        return
    step = np.abs(places[0][:, :3]).max()
    if np.abs(places[0] - places[1]).max() > _APART * step:
        raise DataError(
            "a mask lies elsewhere in space than its image",
            where=f"{where}, file {mask.name}",
            remedy="save it with the affine of its image",
        )


def known_indices(numbers: NDArray[Any], values: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The index among ``values`` of each number; None where one is not among them."""
    indices, known = np.zeros(numbers.shape, np.uint8), np.zeros(numbers.shape, dtype=bool)
    for index, value in enumerate(values):
        here = numbers == value
        indices[here] = index
        known |= here
    return indices if known.all() else None


def without_ending(name: str) -> str:
    """A file's name or path without the ending that says its format."""
    lower = name.lower()
    for end in (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".dcm"):
        if lower.endswith(end):
            return name[: -len(end)]
    return name


def _words(shape: Sequence[Any]) -> str:
    return "×".join(map(str, shape))
