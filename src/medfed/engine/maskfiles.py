"""The masks that a model of segmentation predicts, as files: beside DICOM images as objects that viewers show."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError, UserError
from medfed.core.files import written_whole
from medfed.data.images.segmentation_object import segmentation_of
from medfed.data.raw import Picture, Unreadable
from medfed.engine.scoring import Scored
from medfed.engine.segmenting import segment
from medfed.engine.trained import TrainedModel


def require_masks(model: TrainedModel) -> None:
    """Raise UserError where the model predicts no masks."""
    if model.task.task_type != "segmentation":
        raise UserError(f"the model is of a {model.task.task_type}, and predicts no masks", remedy="leave out --masks")


def write_masks(model: TrainedModel, scored: Iterable[Scored], folder: Path) -> dict[str, str]:
    """Write the mask of every image that has scores, in the image's own pixels; by its name, why there is none.

    Of a DICOM image or series a segmentation object, ``NAME.seg.dcm``; of others class indices, ``NAME.png`` of an
    image and ``NAME.npz`` (array ``mask``) of a volume. Names are those below the images' folder. Raises OSError.
    """
    digest, lacking = model.digest, dict[str, str]()
    for each in scored:
        if each.scores is None or each.picture is None:
            continue
        try:
            mask = segment(model, each.picture.pixels(), each.name)
            _write(each.picture, mask, model.encoding.classes, digest, folder / each.name)
        except Unreadable as error:
            lacking[each.name] = error.reason
        except DataError as error:
            lacking[each.name] = error.cause
    return lacking


def _write(picture: Picture, mask: NDArray[np.uint8], classes: tuple[str, ...], digest: str, beside: Path) -> None:
    beside.parent.mkdir(parents=True, exist_ok=True)
    if _of_dicom(picture):
        made = segmentation_of(picture, mask, classes, digest)
        with written_whole(beside.with_name(f"{beside.name}.seg.dcm")) as partial:
            made.save_as(partial)
    elif mask.ndim == 2:
        from PIL import Image

        with written_whole(beside.with_name(f"{beside.name}.png")) as partial:
            Image.fromarray(mask).save(partial, format="PNG")
    else:
        with written_whole(beside.with_name(f"{beside.name}.npz")) as partial, partial.open("wb") as file:
            np.savez_compressed(file, mask=mask)


def _of_dicom(picture: Picture) -> bool:
    """Whether an image came from DICOM files, as their preamble says."""
    slices = getattr(picture, "slices", (picture,))
    path = getattr(slices[0], "path", None) if slices else None
    if path is None:
        return False
    with Path(path).open("rb") as file:
        return file.read(132)[128:] == b"DICM"
