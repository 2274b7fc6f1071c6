"""What a trained model of segmentation says of new images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import UserError
from medfed.data.encoding import normalised
from medfed.data.images.transforms import Preparation
from medfed.models.training import pixel_probabilities

if TYPE_CHECKING:
    from medfed.engine.trained import TrainedModel


def segment(model: TrainedModel, image: NDArray[Any], where: str = "the image") -> NDArray[np.uint8]:
    """The class of each pixel of one image in its own grid: class indices, (height, width) or (depth, height, width).

    image: as its file has it, (channels, …), such as ``Picture.pixels()`` gives. It is prepared as the training images
    were; probabilities are brought back through resizing and cropping, and the most probable class is taken there. What
    was cropped away is background. Raises UserError for a model of another task, DataError for an image that the task's
    transforms or model do not take.
    """
    if model.task.task_type != "segmentation":
        raise UserError(f"the model is of a {model.task.task_type}, and gives no masks")
    preparation = Preparation(model.task.data.images)
    features = normalised(preparation(image, where)[None], model.encoding, where)
    (found,) = pixel_probabilities(model.network, features)
    restored = preparation.restored(found, np.shape(image)[1:], where)
    return np.asarray(restored.argmax(0), np.uint8)


def shares(masks: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """``share_NAME``: of each mask (n, …) the share of its pixels that are of a class, (n,)."""
    flat = masks.reshape(len(masks), -1)
    return {f"share_{name}": (flat == index).mean(1) for index, name in enumerate(classes)}
