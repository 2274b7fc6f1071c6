"""What an audit found, as ``audit.json`` holds it. No field holds a value of a row."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Attack(enum.StrEnum):
    """The attacks, in the order in which they are tried."""

    INVERSION = "inversion"
    LABELS = "labels"
    RECONSTRUCTION = "reconstruction"
    MEMBERSHIP = "membership"
    CANARY = "canary"


@dataclass(frozen=True)
class Proportion:
    """``count`` of ``of``, with its 95 % interval."""

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.of


@dataclass(frozen=True)
class Inversion:
    """Records computed from gradients. single: of those sent alone. update: of all behind the attacked updates.

    candidates: records that the attacker read off these updates. updates: local steps behind each, the largest number.
    """

    single: Proportion
    update: Proportion
    candidates: int
    updates: int


@dataclass(frozen=True)
class Labels:
    """Labels computed from gradients. single: right ones of records sent alone. majority: the share that naming the
    most frequent class would get right.

    update_error: the mean distance of the computed shares of the classes behind an update from the true ones;
    guess_error: that of naming all classes equally frequent.
    """

    single: Proportion
    majority: float
    update_error: float
    guess_error: float


@dataclass(frozen=True)
class Picture:
    """One reconstructed image: its peak signal-to-noise ratio (dB), that of the mean of all images in its place, and
    whether the original is nearer to it than any other of the site's images."""

    psnr: float
    mean_psnr: float
    found: bool


@dataclass(frozen=True)
class Reconstruction:
    """Images sent alone, rebuilt from their gradients. images: of the site, among which the nearest was sought."""

    pictures: tuple[Picture, ...]
    images: int
    iterations: int


@dataclass(frozen=True)
class Success:
    """How well members are told from others: the area under the ROC curve, the true positive rate at a false positive
    rate, each with its 95 % interval, and the curve."""

    auc: float
    auc_low: float
    auc_high: float
    false_positives: float
    tpr: float
    tpr_low: float
    tpr_high: float
    curve_fpr: tuple[float, ...]
    curve_tpr: tuple[float, ...]


@dataclass(frozen=True)
class Membership:
    """LiRA. models: shadow models, each trained on ``share`` of the records. own: against the run's own model, where it
    has records that it was not trained on."""

    models: int
    share: float
    records: int
    shadows: Success
    own: Success | None


@dataclass(frozen=True)
class Canaries:
    """Planted records. planted: coins thrown, over all trainings. guesses, right: of the attacker.

    epsilon: no smaller one is compatible with the guesses, at this confidence and delta. accounted: the run's own,
    the largest of all sites; None where it has no differential privacy.
    """

    trainings: int
    planted: int
    guesses: int
    right: int
    confidence: float
    delta: float
    epsilon: float
    accounted: float | None


@dataclass(frozen=True)
class NotTried:
    """An attack that was not tried, and why."""

    attack: Attack
    why: str


@dataclass(frozen=True)
class Audit:
    """The privacy check of a run.

    total: whether the attacker saw totals over the sites alone. attacked: the updates that were attacked.
    """

    medfed: str
    run: str
    task_digest: str
    name: str
    strategy: str
    seed: int
    quick: bool
    simulation: bool
    total: bool
    attacked: int
    seconds: float
    inversion: Inversion | None = None
    labels: Labels | None = None
    reconstruction: Reconstruction | None = None
    membership: Membership | None = None
    canary: Canaries | None = None
    not_tried: tuple[NotTried, ...] = ()
