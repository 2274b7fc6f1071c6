"""The records in a run folder's files, as frozen models. A count of ``None`` was withheld; it is no zero."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FEDERATED = "federated"
"""Stands where a site's name stands, for what was measured over all sites."""

NOT_FINITE = "not a finite number"


class Record(BaseModel):
    """Base of every record: frozen; what a later version adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Measure(Record):
    """A metric's value over ``n`` rows; ``error`` bounds its error, ``reason`` says why there is no value,
    or what is left out of it."""

    value: float | None = None
    n: int | None = None
    error: float | None = None
    reason: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_finite(cls, fields: object) -> object:
        value = fields.get("value") if isinstance(fields, dict) else None
        if isinstance(fields, dict) and isinstance(value, float) and not math.isfinite(value):
            return {**fields, "value": None, "reason": NOT_FINITE}
        return fields


class Point(Measure):
    """A line of ``metrics.jsonl``: one metric of one site (or ``federated``) on one split after one round."""

    round: int
    site: str
    split: str
    metric: str


class Roc(Record):
    """A receiver operating characteristic: as many false as true positive rates."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]

    @model_validator(mode="after")
    def _paired(self) -> Roc:
        if len(self.fpr) != len(self.tpr):
            raise ValueError("fpr and tpr differ in length")
        return self


class PrecisionRecall(Record):
    """A precision-recall curve, recall ascending."""

    recall: tuple[float, ...] = ()
    precision: tuple[float, ...] = ()


class Calibration(Record):
    """By range of the score, its mean and the share of class 1."""

    predicted: tuple[float, ...] = ()
    observed: tuple[float, ...] = ()


class SiteAppraisal(Record):
    """The final appraisal of one site, or of all. confusion: true class by predicted; intervals: 95 %, by metric."""

    precision_recall: PrecisionRecall = PrecisionRecall()
    calibration: Calibration = Calibration()
    confusion: tuple[tuple[int | None, ...], ...] = ()
    intervals: dict[str, tuple[float, float]] = {}


class Appraised(Record):
    """The final appraisals of one split, by site and federated."""

    split: str = ""
    sites: dict[str, SiteAppraisal] = {}


class AverageExplanation(Record):
    """What the model looks at on average over sites: shares by feature, or of images a map, row by row."""

    rows: int
    withheld: int = 0
    features: dict[str, float] = {}
    map: tuple[tuple[float, ...], ...] = ()


class Absence(Record):
    """A site that did not take part in a round, and why."""

    round: int
    site: str
    sentence: str


class PhaseTime(Record):
    """The seconds that a run spent on one phase, and their share of all."""

    phase: str
    seconds: float
    share: float


class Timings(Record):
    """Where the time of a run went; first_round: seconds until its first round was over."""

    first_round: float | None = None
    phases: tuple[PhaseTime, ...] = ()


class WholeSiteSpent(Record):
    """What a run cost a site as a whole: epsilon at delta, of its noisy updates."""

    epsilon: float
    delta: float
    updates: int
    noise_multiplier: float


class PrivacySpent(Record):
    """What a run's differential privacy cost at a site, as ``results.json`` says it (see the run folder's page)."""

    epsilon: float | None = None
    delta: float
    steps: int
    noise_multiplier: float
    sampling_rate: float
    sums: int = 0
    sums_epsilon: float = 0.0
    labels: float | None = None
    site: WholeSiteSpent | None = None


class Start(Record):
    """What a run began from: the SHA-256 of its first weights' file, the earlier run whose they are, the last layer."""

    sha256: str
    run: str | None = None
    head: str = "kept"


class Teacher(Record):
    """Whose answers a run learnt from: the SHA-256 of the weights' file, the run whose they are, its model's name."""

    sha256: str
    run: str
    model: str


class SentUpdates(Record):
    """The steps by which sites send what they trained, how many of the network's numbers that are, and the bytes that
    an update takes where all are sent as float32."""

    steps: tuple[str, ...]
    trained: int
    whole_bytes: int


class Results(Record):
    """``results.json``: how the run ended and what it reached."""

    medfed: str
    run: str
    name: str
    task_type: str
    strategy: str
    task_digest: str
    status: str
    stopped_because: str
    rounds: int
    seed: int
    parameters: int | None = None
    start: Start | None = None
    teacher: Teacher | None = None
    updates: SentUpdates | None = None
    simulation: bool
    policies: dict[str, str] = {}
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    rows: dict[str, dict[str, int | None]] = {}
    metrics: dict[str, dict[str, dict[str, Measure]]] = {}
    roc: dict[str, Roc] = {}
    appraisal: Appraised = Appraised()
    explanations: AverageExplanation | None = None
    absences: tuple[Absence, ...] = ()
    privacy: dict[str, PrivacySpent] = {}
    started: str = ""
    seconds: float | None = None
    timings: Timings | None = None


class CalibrationPoint(Record):
    """Rows of about the same score: the mean score, the share of class 1 among them, and how many."""

    predicted: float
    observed: float
    n: int


class SiteAbsence(Record):
    """A site that did not answer as asked, and why."""

    site: str
    sentence: str


class Evaluation(Record):
    """``evaluation.json``: a finished run's model on other rows. in_training: what the run reached on its own."""

    medfed: str
    run: str
    name: str
    task_type: str
    strategy: str
    classes: tuple[str, ...] = ()
    data: str
    split: str
    model: str = ""
    policies: dict[str, str] = {}
    metrics: dict[str, dict[str, Measure]]
    in_training: dict[str, Measure] = {}
    counts: dict[str, dict[str, int]] = {}
    left_out: dict[str, int] = {}
    roc: dict[str, Roc] = {}
    confusion: tuple[tuple[int, ...], ...] = ()
    calibration: tuple[CalibrationPoint, ...] = ()
    absences: tuple[SiteAbsence, ...] = ()


class CrossSiteRow(Record):
    """One model at every site. site: whose own it is; empty where there is one for all."""

    strategy: str
    site: str
    metrics: dict[str, dict[str, Measure]]


class CrossSite(Record):
    """``cross_site.json``: every site's own model, and those that sites share, on every site's held-out part."""

    split: str
    external: tuple[str, ...] = ()
    models: tuple[CrossSiteRow, ...] = ()
    not_measured: str = ""


class Sheet(Record):
    """A site's data sheet."""

    rows: int | None = None
    patients: int | None = None
    splits: dict[str, int | None] = {}
    classes: dict[str, dict[str, int | None]] = {}
    missing: dict[str, int | None] = {}
    dropped: int | None = None
    duplicates: int | None = None
    warnings: tuple[str, ...] = ()


class Environment(Record):
    """The machine and the packages of a run."""

    python: str
    platform: str
    cpus: int | None = None
    packages: dict[str, str] = {}


class Entry(Record):
    """A ledger's entry of a kind that the report only counts."""

    kind: str


class Departure(Entry):
    """A ledger's ``release``: one reply that left a site."""

    kind: Literal["release"]
    round: int
    step: str
    release: str
    shapes: tuple[str, ...] = ()
    bytes: int
    protection: str = ""


class Refusal(Entry):
    """A ledger's ``refusal``: a request that the site turned down."""

    kind: Literal["refusal"]
    step: str = ""
    code: str
    sentence: str


class ComparisonFile(Record):
    """``comparison.json``: the strategies compared, and the folder of each."""

    name: str
    task_type: str
    strategies: tuple[str, ...] = Field(min_length=1)
    folders: dict[str, str] = {}
