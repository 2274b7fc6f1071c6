"""Single rows explained, for the site's own people. Nothing of this is a message: it cannot leave."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Split


class Method(StrEnum):
    """How an answer is explained."""

    GRADCAM = "gradcam"
    IG = "ig"


class Group(StrEnum):
    """Why a row is shown."""

    WORST = "Worst errors"
    CONFIDENT = "Right and most confident"
    UNCERTAIN = "Most uncertain"
    CLOSEST = "Closest"


@dataclass(frozen=True)
class Reason:
    """A feature of a table's row: its value before standardisation, and what it added to the score."""

    feature: str
    value: float
    attribution: float


@dataclass(frozen=True, eq=False)
class Explained:
    """One row.

    name: what pages call it. true, predicted: classes, or values. probability: of the predicted class. loss: −log of
    the true class's probability, or the absolute error. features: as the model takes them, (channels, …). cam: (…), at
    least 0. attributions: in the shape of features. missing: what their sum misses of the difference of the scores.
    reasons: of a table, the features that added or took most.
    """

    name: str
    group: Group
    true: str
    predicted: str
    probability: float | None
    loss: float
    features: NDArray[np.float32]
    cam: NDArray[np.float32] | None
    attributions: NDArray[np.float32] | None
    missing: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Whose:
    """To which patient a shown row belongs, and from which file it was read where that is known."""

    name: str
    patient: str
    source: str


@dataclass(frozen=True, eq=False)
class SiteExplanation:
    """What a site's people see of a model on one part of their rows.

    image: whether rows are images, volumes or series. rows: of the part. importance: of a table, each feature's mean
    |attribution| over ``averaged`` rows.
    """

    task: str
    model: str
    site: str
    split: Split
    methods: tuple[Method, ...]
    image: bool
    rows: int
    importance: dict[str, float]
    averaged: int
    explained: tuple[Explained, ...]
    whose: tuple[Whose, ...]
