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
    targets: float32 (n,) for regression; int64 (n,) class indices for classification.
    """

    features: NDArray[np.float32]
    targets: NDArray[Any]

    def __len__(self) -> int:
        return int(self.targets.shape[0])


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of one split, beside what was true.

    scores: float64; (n,) probability of class 1 (binary), (n, C) class probabilities, or (n,) predicted values.
    targets: as in :class:`Examples`.
    """

    scores: NDArray[np.float64]
    targets: NDArray[Any]

    def __len__(self) -> int:
        return int(self.targets.shape[0])
