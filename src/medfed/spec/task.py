"""The task file as frozen models. What they allow is what a task may say; defaults are those of the docs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from medfed.spec.images import ImageSpec
from medfed.spec.section import NAME_IN_WORDS, Fraction, Name, NonNegative, Plugin, Positive, Section, named

__all__ = ["NAME_IN_WORDS", "Name", "NonNegative", "Plugin", "Positive", "Section", "named"]


TaskType: TypeAlias = Literal["classification", "regression", "segmentation"]
"""What can be learnt: a class, a number, or a class for each pixel of an image."""

MASK = "mask"
"""The label's column of segmentation: the masks that a connector finds beside the images."""


LayerNames = tuple[Annotated[str, BeforeValidator(lambda v: str(v) if type(v) is int else v)], ...]
"""Names of a network's layers, as ``layer1`` or ``3``, which take in all below them, or patterns such as ``layer*``."""


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="a digest of 64 hexadecimal digits, 0-9 and a-f")]


class Pretrained(Section):
    """The weights that training starts from: a safetensors file, or those of an earlier run.

    ``path`` and ``run`` are for whoever starts a run, which keeps a copy: a task on its way to sites names the digest
    alone. ``head: new`` starts the last layer afresh, ``fresh`` other layers. ``parent``: the earlier run's id.
    """

    path: str | None = None
    run: str | None = None
    sha256: Digest | None = None
    head: Literal["kept", "new"] = "kept"
    fresh: LayerNames = ()
    parent: str | None = None


class ModelSpec(Plugin):
    """Which model, the shape of one input without the batch (rarely needed: data tell), its classes, its start.

    ``freeze`` names layers that are neither trained nor sent.
    """

    input_size: tuple[int, ...] | None = None
    num_classes: Annotated[int, Field(ge=2)] | None = None
    pretrained: Annotated[Pretrained, BeforeValidator(lambda v: {"path": v} if isinstance(v, str) else v)] | None = None
    freeze: LayerNames = ()


class Schedule(Section):
    """The learning rate over rounds r = 1…R: lr·gamma^((r-1)//step), or half a cosine from lr to lr·floor."""

    name: Literal["constant", "step", "cosine"] = "constant"
    step: Annotated[int, Field(ge=1)] = 10
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    floor: Fraction = 0.0


class Compression(Section):
    """How sites send their updates: ``bfloat16`` at half the bytes, ``int8`` at a quarter, ``topk`` the share
    ``fraction`` of the elements, the largest; what ``int8`` and ``topk`` leave out is sent later (error feedback).
    ``zstd`` squeezes what is sent without any loss (extra ``zstd``).
    """

    name: Literal["none", "bfloat16", "int8", "topk"] = "none"
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    zstd: bool = False

    @property
    def changes(self) -> bool:
        """Whether updates are sent in another way than as they are."""
        return self.name != "none" or self.zstd


LayerChoice = Literal["statistics", "norm", "head"] | Annotated[tuple[str, ...], Field(min_length=1)]
"""Layers of a model: running statistics, all of normalisation, the last layer, or layers by name."""


class FineTune(Section):
    """After the last round every site trains a model of its own from the federated one, which it keeps for itself.

    layers: what changes, ``all`` or some layers as in ``local_layers``. lr: as in training, if absent.
    """

    layers: LayerChoice | Literal["all"] = "head"
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 5
    lr: Positive | None = None


class Pruning(Section):
    """Structured pruning: after so many rounds the ``share`` of each layer's units of least norm is removed, and the
    rounds that follow fine-tune what is left, which alone is sent."""

    share: Annotated[float, Field(gt=0, lt=1)]
    after: Annotated[int, Field(ge=1)]


class Teacher(Section):
    """The finished run whose model teaches, as ``run`` in a task at home.

    A task on its way to sites names no path: ``sha256`` is the digest of the weights' file, ``parent`` the run's id,
    and ``model`` the network that the weights are of, all of which whoever starts the run fills in.
    """

    run: str | None = None
    sha256: Digest | None = None
    parent: str | None = None
    model: Annotated[Plugin, BeforeValidator(named)] | None = None


class Distillation(Section):
    """The task's model learns from a teacher's answers too (Hinton, Vinyals, Dean 2015): at every site the loss is
    α·T²·KL(softmax(teacher/T) ‖ softmax(model/T)) + (1 − α)·cross-entropy, where T is ``temperature``."""

    teacher: Annotated[Teacher, BeforeValidator(lambda v: {"run": v} if isinstance(v, str) else v)]
    temperature: Positive = 2.0
    alpha: Fraction = 0.5


BASELINES = ("local", "pooled")
"""The strategies to compare with: every site alone, and all rows in one place (in simulation only)."""


class FederationSpec(Section):
    """How sites train and how many must answer.

    ``epochs: 50`` means 50 rounds of one local epoch; ``rounds`` with ``local_epochs`` or ``local_updates``
    says it exactly. Without any of them there are 10 rounds of one epoch.
    """

    strategy: Annotated[Plugin, BeforeValidator(named)]
    epochs: Annotated[int, Field(ge=1)] | None = None
    rounds: Annotated[int, Field(ge=1)] | None = None
    local_epochs: Annotated[int, Field(ge=1)] | None = None
    local_updates: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | Literal["full"] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1
    lr: Positive = 0.01
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NonNegative = 0.0
    schedule: Annotated[Schedule, BeforeValidator(named)] = Schedule()
    clip_norm: Positive | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    compression: Annotated[Compression, BeforeValidator(named)] = Compression()
    pruning: Pruning | None = None
    distillation: Distillation | None = None
    class_weights: Literal["none", "balanced"] | tuple[Positive, ...] = "none"
    data_position: Literal["kept", "fresh"] = "kept"
    optimizer_state: Literal["kept", "fresh"] | None = None
    cohort: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] = 1.0
    quorum: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] = 1.0
    deadline: Positive | None = None
    local_layers: LayerChoice | Literal["none"] = "none"
    fine_tune: FineTune | None = None

    @property
    def total_rounds(self) -> int:
        """The number of federated rounds."""
        return self.rounds or self.epochs or 10

    @property
    def counts_epochs(self) -> bool:
        """Whether a round is one epoch at every site, so that people may call it that."""
        return self.local_updates is None and self.local_epochs in (None, 1)

    @property
    def compresses(self) -> bool:
        """Whether updates are sent compressed; those of the baselines, which no network carries, never are."""
        return self.compression.changes and self.strategy.name not in BASELINES

    @property
    def keeps_layers(self) -> bool:
        """Whether layers stay at each site; at a baseline, whose model one site trains, none needs to."""
        return self.local_layers != "none" and self.strategy.name not in BASELINES

    @property
    def fine_tunes(self) -> bool:
        """Whether each site trains a model of its own in the end; a baseline's sites share none to begin with."""
        return self.fine_tune is not None and self.strategy.name not in BASELINES

    @property
    def keeps_optimizer_state(self) -> bool:
        """Whether a site's optimizer goes on from its last round: by default at the baselines alone.

        A baseline is one continuous training; a federated round starts from weights that are not its own.
        """
        chosen = self.optimizer_state or ("kept" if self.strategy.name in BASELINES else "fresh")
        return chosen == "kept"


class Column(Section):
    """One column: its type, a category's declared levels, and bounds beyond which a number is an error."""

    type: Literal["continuous", "binary", "categorical", "ignore"]
    levels: tuple[str | int | float | bool, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


class Label(Section):
    """The column to predict. ``positive`` lists the values of class 1; ``classes`` all values, in order.

    ``negative`` may list the values that make class 0; a value outside the declared set is an error. Of segmentation
    the column is ``mask``, and ``classes`` lists the names of a mask's numbers 0, 1, … or those numbers themselves,
    the background first.
    """

    column: str
    positive: tuple[str | int | float | bool, ...] | None = None
    negative: tuple[str | int | float | bool, ...] | None = None
    classes: tuple[str | int | float | bool, ...] | None = None


class Missing(Section):
    """The markers that mean missing (an empty field always does), and what is done with such rows."""

    markers: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
    strategy: Literal["drop", "impute"] = "drop"


class Splits(Section):
    """The parts of each site's patients. A patient is in one part only, whatever order the rows come in.

    stratify: ``False``, each patient falls by a hash of the id alone, so that appending a patient moves no
    other and the classes' shares agree in expectation; ``True``, the proportions are exact within each class,
    and an added patient may move one neighbour at a boundary.
    """

    train: Annotated[float, Field(gt=0, le=1)] = 0.7
    validation: Fraction = 0.1
    test: Fraction = 0.2
    stratify: bool = False
    seed: int | None = None
    column: str | None = None
    """A column that already says ``train``, ``validation`` or ``test`` for each row."""


class DataSpec(Section):
    """What a site's table holds and how it becomes numbers."""

    connector: Annotated[Plugin, BeforeValidator(named)] = Plugin(name="csv")
    label: Annotated[Label, BeforeValidator(lambda v: {"column": v} if isinstance(v, str) else v)] | None = None
    id: str | None = None
    columns: dict[str, Annotated[Column, BeforeValidator(lambda v: {"type": v} if isinstance(v, str) else v)]] = Field(
        default={}
    )
    missing: Missing = Missing()
    standardize: Literal["site", "federated", "none"] = "federated"
    split: Splits = Splits()
    images: ImageSpec = ImageSpec()


class SiteEntry(Section):
    """One simulated site: its data (a path below the data folder) and, if it has one, its policy file."""

    data: str
    policy: str | None = None


class Partition(Section):
    """One data set divided over simulated sites, by patient: a patient's rows stay together.

    by: ``even``, patients fall to sites alike; ``quantity``, sites' sizes are drawn from a symmetric Dirichlet
    distribution of ``alpha``; ``label``, each class is divided by a draw of its own (Hsu, Qi, Brown 2019). The draw is
    repeated until every site has ``minimum`` patients. ``acquisition``: patients fall to sites alike, and each site's
    images are changed as a scanner of its own would give them; ``vary``: in what; ``strength``: how far.
    """

    data: str
    sites: Annotated[int, Field(ge=2, le=10_000)]
    by: Literal["even", "quantity", "label", "acquisition"] = "even"
    alpha: Annotated[float, Field(ge=0.01, le=1_000_000)] = 0.5
    minimum: Annotated[int, Field(ge=1)] = 10
    vary: Annotated[tuple[Literal["contrast", "noise", "scanner"], ...], Field(min_length=1)] = (
        "contrast",
        "noise",
        "scanner",
    )
    strength: Annotated[float, Field(gt=0, le=2)] = 1.0

    @property
    def draws_shares(self) -> bool:
        """Whether sites' shares of the patients are drawn, and not all alike."""
        return self.by in ("quantity", "label")


class Evaluation(Section):
    """What is measured, how often, and to which resolution the federated AUC is formed.

    bins: ``auto`` is 200 for two classes and 50 for more, of which each has a histogram that every site sends. holdout:
    sites that never train; the model is measured on all of their rows, apart from the other sites' figures.
    explanations: whether sites are asked, at the end, for what the model's answers rest on, on average.
    """

    every: Annotated[int, Field(ge=1)] = 1
    split: Literal["train", "validation", "test"] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    bins: Annotated[int, Field(ge=10, le=100_000)] | Literal["auto"] = "auto"
    holdout: tuple[Name, ...] = ()
    explanations: bool = False

    def bins_for(self, classes: int) -> int:
        """The bins of each histogram where there are so many classes."""
        if self.bins == "auto":
            return 200 if classes == 2 else 50
        return self.bins


class Stop(Section):
    """When to stop before the last round: a metric that reaches its target or no longer improves, or weights
    whose relative change falls below ``tolerance``. The metric is read on ``evaluation.split``, which is the
    validation part where it is not given."""

    metric: str | None = None
    target: float | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    min_delta: NonNegative = 0.0
    tolerance: NonNegative = 0.0


class RecordPrivacy(Section):
    """Differential privacy by record (DP-SGD) at every site: (epsilon, delta) for one training row, over the whole run.

    Either ``epsilon``, from which each site finds its noise, or ``noise_multiplier``, the noise's standard deviation
    over ``clip_norm``, the largest norm of one row's gradient.
    """

    epsilon: Annotated[float, Field(ge=0.05, le=100)] | None = None
    noise_multiplier: Annotated[float, Field(ge=0.3, le=1_000_000)] | None = None
    delta: Annotated[float, Field(ge=1e-12, lt=1)] = 1e-5
    clip_norm: Positive = 1.0


class AdaptiveClip(Section):
    """A clipping norm that follows the sites' updates (Andrew et al. 2021, Algorithm 1).

    quantile: γ, the share of updates to be left as they are. rate: η_C, by which the norm's logarithm moves.
    count_noise: σ_b, the standard deviation of the noise in the number of such updates; if absent a twentieth of the
    sites, but no less than the noise multiplier, so that the updates' own noise grows by 15 % at most.
    """

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    rate: Annotated[float, Field(gt=0, le=2)] = 0.2
    count_noise: Annotated[float, Field(gt=0, le=1_000_000)] | None = None


class SitePrivacy(Section):
    """Differential privacy of a whole site: (epsilon, delta) for all of its rows together, over the whole run.

    Each site's update is clipped to ``clip_norm`` and counts alike, whatever its rows; the sites share the noise.
    ``noise_multiplier``: the standard deviation of the noise in a total over ``clip_norm``. adaptive: ``clip_norm`` is
    where the norm begins.
    """

    epsilon: Annotated[float, Field(ge=0.05, le=100)] | None = None
    noise_multiplier: Annotated[float, Field(ge=0.3, le=1_000_000)] | None = None
    delta: Annotated[float, Field(ge=1e-12, lt=1)] = 1e-5
    clip_norm: Positive = 1.0
    adaptive: AdaptiveClip | None = None


class LabelPrivacy(Section):
    """Differential privacy of each training row's label, by randomised response: epsilon for one label, for good."""

    epsilon: Annotated[float, Field(ge=0.05, le=20)]


class ReleasePrivacy(Section):
    """Noise in every sum that a site releases beside its training: epsilon for one patient's rows, each time.

    rows_per_patient: the most rows of a patient. loss_bound: to which each row's logarithmic loss is cut. outcome: the
    range to which outcomes and predictions are cut (regression).
    """

    mechanism: Literal["laplace", "gaussian"] = "laplace"
    epsilon: Annotated[float, Field(ge=0.001, le=20)]
    delta: Annotated[float, Field(ge=1e-12, lt=1)] | None = None
    rows_per_patient: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    loss_bound: Annotated[float, Field(gt=0, le=34)] = 4.0
    outcome: tuple[float, float] | None = None


class Privacy(Section):
    """How totals are formed, and what noise they hold.

    aggregation: ``clear``, the coordinator's process folds the sites' contributions; ``secure``, it sees them under
    masks that cancel in the total alone; ``encrypted``, it adds them encrypted under a key of the sites'. update_bound:
    the largest number in a site's update (the change of a weight times its training rows, as a rule) that is summed
    so: each then takes half the bytes.
    """

    aggregation: Literal["clear", "secure", "encrypted"] = "clear"
    update_bound: Positive | None = None
    record: RecordPrivacy | None = None
    site: SitePrivacy | None = None
    labels: LabelPrivacy | None = None
    release: ReleasePrivacy | None = None

    @property
    def totals_only(self) -> bool:
        """Whether no site releases figures of its own: they would say what masks or noise hide."""
        return self.hides_parts or self.release is not None

    @property
    def hides_parts(self) -> bool:
        """Whether the coordinator sees totals alone, and not what each site adds to them."""
        return self.aggregation != "clear"


class EngineSpec(Section):
    """Which engine carries the requests, and how it makes use of the machine.

    workers: processes that the simulated sites are spread over; ``auto``: one a core, as far as there is work for them.
    The same bits come from any number. batched: ``auto`` trains small sites together, where the model and the task
    allow it, which agrees with ``off`` to 1e-6. device: where networks are trained; ``auto``: on a graphics processor
    where there is one. The same bits come from ``cpu`` alone.
    """

    name: Literal["inprocess"] = "inprocess"
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    batched: Literal["auto", "off"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "cpu"


class Comparison(Section):
    """What ``medfed compare`` runs, and what differs for one strategy: ``{pooled: {optimizer: adam}}``."""

    strategies: tuple[Annotated[Plugin, BeforeValidator(named)], ...] = (
        Plugin(name="local"),
        Plugin(name="pooled"),
        Plugin(name="fedavg"),
    )
    overrides: dict[str, dict[str, Any]] = Field(default={})


_Entry = Annotated[SiteEntry, BeforeValidator(lambda v: {"data": v} if isinstance(v, str) else v)]


class TaskSpec(Section):
    """A whole task."""

    name: Name = "task"
    task_type: TaskType
    model: Annotated[ModelSpec, BeforeValidator(named)]
    federation: FederationSpec
    data: DataSpec = DataSpec()
    sites: dict[Name, _Entry] = Field(default={})
    partition: Partition | None = None
    evaluation: Evaluation = Evaluation()
    stop: Stop = Stop()
    privacy: Privacy = Privacy()
    engine: EngineSpec = EngineSpec()
    compare: Comparison = Comparison()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def measured_splits(self) -> tuple[str, ...]:
        """The splits that have rows by the task's word, in order; where a column says, train and test at least."""
        splits = self.data.split
        if splits.column is not None:
            return ("train", "validation", "test") if self.evaluation.split == "validation" else ("train", "test")
        shares = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        return tuple(name for name, fraction in shares.items() if fraction > 0)

    @property
    def monitored_split(self) -> str:
        """The split measured every round: the task's choice, else validation where there is one, else test."""
        splits = self.measured_splits
        return self.evaluation.split or ("validation" if "validation" in splits else splits[-1])
