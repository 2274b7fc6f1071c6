"""The numeric view of a site's rows that training, metrics and algorithms share."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Split(enum.StrEnum):
    """The part of a site's patients that a step reads; a patient is in one part only.

    A site that is held out of training has one part, ``external``, with all of its rows.
    """

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    EXTERNAL = "external"


@dataclass(frozen=True, eq=False)
class Examples:
    """Encoded rows of one split.

    features: float32, shape (n, …) as the model takes them.
    targets: float32 (n,) for regression; int64 (n,) class indices for classification; uint8 (n, …) class indices by
    pixel for segmentation.
    """

    features: NDArray[np.float32]
    targets: NDArray[Any]

    def __len__(self) -> int:
        return int(self.targets.shape[0])


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of one split, beside what was true.

    scores: float64; (n,) probability of class 1 (binary), (n, C) class probabilities, or (n,) predicted values. Of
    segmentation: uint8 (n, …), the most probable class of each pixel. targets: as in :class:`Examples`. losses:
    segmentation alone: float64 (n,), each image's loss.
    """

    scores: NDArray[Any]
    targets: NDArray[Any]
    losses: NDArray[np.float64] | None = None

    @property
    def none(self) -> Predictions:
        """Those of no rows, in the same form."""
        return Predictions(self.scores[:0], self.targets[:0], None if self.losses is None else self.losses[:0])

    def __len__(self) -> int:
        return int(self.targets.shape[0])
