"""A trained model over new images: one after the other in bounded memory, and none of them stops the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.encoding import normalised
from medfed.data.images.loading import ImageReader
from medfed.data.images.unlabelled import unlabelled
from medfed.data.raw import Picture, Pictures, Unreadable
from medfed.engine.process import input_shape
from medfed.engine.trained import TrainedModel

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many images are done, and of how many."""

_BATCH = 32
_WHERE = "new images"


@dataclass(frozen=True, eq=False)
class Scored:
    """What the model says of one image, or why it says nothing.

    name: the path below the folder. scores: of this image alone, (1, …) as in
    :class:`~medfed.core.examples.Predictions`, or a mask of class indices; None where there are none. picture: where it
    came from.
    """

    name: str
    scores: NDArray[Any] | None
    reason: str = ""
    picture: Picture | None = None


def new_images(model: TrainedModel, path: Path) -> Pictures:
    """The images of a path, as volumes where the model takes volumes. Raises DataError, MissingExtra."""
    data = model.task.data
    volumes = data.connector.options.get("read") == "volumes" or len(input_shape(model.encoding, model.task.model)) == 4
    return unlabelled(path, data, _WHERE, volumes=volumes)


def score_images(model: TrainedModel, pictures: Pictures, progress: Progress) -> Iterator[Scored]:
    """Each image's scores in order, after the task's transforms and the run's intensities; then the unreadable files.

    What cannot be read, or does not fit the model, has a reason in place of scores.
    """
    reader = ImageReader.of(model.task.data.images, _WHERE)
    total = len(pictures.each)
    try:
        for start in range(0, total, _BATCH):
            several = pictures.each[start : start + _BATCH]
            arrays = [_prepared(model, picture, reader) for picture in several]
            yield from _scored(model, several, arrays)
            progress(start + len(several), total)
    finally:
        pictures.close()
    for file in pictures.unread:
        if not file.ignored:
            yield Scored(file.name, None, file.reason)


def score_table(model: TrainedModel, scored: Sequence[Scored]) -> dict[str, list[Any]]:
    """Columns of a row an image: ``file``, what :meth:`TrainedModel.columns` gives, and ``reason``.

    Raises DataError where no image has scores.
    """
    known = [index for index, each in enumerate(scored) if each.scores is not None]
    if not known:
        reasons = ", ".join(f"{n}: {reason}" for reason, n in Counter(e.reason for e in scored).most_common(5))
        raise DataError(
            f"none of {len(scored)} files gives an image that the model takes ({reasons or 'no file is an image'})",
            where=_WHERE,
            remedy="name DICOM, NIfTI, PNG or JPEG files, or an .npz archive, of the kind that the model learnt from",
        )
    scores = np.concatenate([scored[index].scores for index in known])
    columns = model.columns(scores, np.array(known, np.int64), len(scored))
    return {"file": [each.name for each in scored], **columns, "reason": [each.reason or None for each in scored]}


def _prepared(model: TrainedModel, picture: Picture, reader: ImageReader) -> NDArray[np.float32] | str:
    """The image as the network takes it, or the reason why it is none."""
    wanted = input_shape(model.encoding, model.task.model)
    try:
        image = reader.prepared(picture, picture.digest())
        if image.shape != wanted:
            return f"an image of the shape {list(image.shape)}, and the model takes {list(wanted)}"
        return np.asarray(normalised(image[None], model.encoding, _WHERE)[0])
    except Unreadable as error:
        return error.reason
    except DataError as error:
        return error.cause


def _scored(
    model: TrainedModel, pictures: Sequence[Picture], arrays: Sequence[NDArray[np.float32] | str]
) -> Iterator[Scored]:
    images = [array for array in arrays if not isinstance(array, str)]
    rows: Iterator[Any] = iter(())
    if images:
        rows = iter(model.scores(np.stack(images)))
    for picture, array in zip(pictures, arrays, strict=True):
        if isinstance(array, str):
            yield Scored(picture.name, None, array, picture)
        else:
            yield Scored(picture.name, np.asarray(next(rows))[None], picture=picture)
