"""A proposal in words that a physician understands: what a steward reads before approving it.

What is quoted from the proposal is in quotation marks and on one line, so that it cannot pass for the text around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from medfed.core.steps import Release
from medfed.govern.noise import noise
from medfed.govern.proposals import Proposal, ProposedRelease
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec


@dataclass(frozen=True)
class Passage:
    """A part of the explanation: its heading, and its paragraphs, each on one line."""

    heading: str
    paragraphs: tuple[str, ...]


class FrozenCohort(Protocol):
    """The rows that would be approved: the dataset's name, their digest (hex), and how many they are."""

    @property
    def dataset(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def patients(self) -> int: ...  # noqa: D102


class Words(NamedTuple):
    """What a step's answer is, and when it is asked for, as templates over :func:`_figures`."""

    what: str
    when: str


_ONCE = "once, before training"
_TRAINING = "in each round, so {rounds} times at most"
_MEASURING = "{measured}, and at the end"
_AT_THE_END = "at the end"
_WEIGHTED_CHANGE = Words(
    "the change of the model's weights by training on this hospital's rows, times the number of its training rows; and "
    "that number",
    _TRAINING,
)

STEPS: dict[str, Words] = {
    "fedavg.train_locally": _WEIGHTED_CHANGE,
    "fedprox.train_near": _WEIGHTED_CHANGE,
    "scaffold.train_controlled": Words(
        "the change of the model's weights by training on this hospital's rows, and the change of a correction for how "
        "its patients differ from others', each times the number of its training rows if the task weights by it",
        _TRAINING,
    ),
    "ditto.train_both": _WEIGHTED_CHANGE,
    "finetuning.fine_tune": Words(
        "that this hospital has trained a model of its own, which stays here", "once, after the last round"
    ),
    "adaptive.set_norm": Words("that this hospital was told how far its next update may go", _TRAINING),
    "adaptive.count_within": Words(
        "whether this hospital's update of the round went less far than that, with noise that was drawn once", _TRAINING
    ),
    "partial.set_elements": Words(
        "that this hospital was told which part of the model is trained", "once, and once more where units are pruned"
    ),
    "distilling.set_teacher": Words(
        "that this hospital was given an earlier model, whose answers for its own training rows it learns from", _ONCE
    ),
    "prepare.moments": Words(
        "for each column, over the training rows: how many have a value, the sum of these values, and how many rows "
        "have each category, however few they are",
        _ONCE,
    ),
    "prepare.deviations": Words(
        "for each column, the sum of the squared differences from the hospitals' common mean; and the number of "
        "training rows",
        _ONCE,
    ),
    "prepare.intensities": Words(
        "where images are read, for each of their channels over the training images: the sum of the pixels' values, "
        "then of their squared differences from the hospitals' common mean; and the number of pixels",
        _ONCE,
    ),
    "prepare.adopt": Words("that this hospital has prepared its rows as agreed, and nothing of them", _ONCE),
    "prepare.describe": Words(
        "a description of this hospital's table: numbers of rows and patients, of rows in each part and of each "
        "outcome, of missing values in each column, of duplicates; a number that stands for fewer than {count} "
        "patients is withheld",
        _ONCE,
    ),
    "prepare.report_levels": Words(
        "the names of the columns, and of those categories and outcomes that at least {count} patients share; rarer "
        "ones are not named",
        _ONCE,
    ),
    "evaluation.class_sums": Words(
        "over one part of the rows: how many of each outcome the model took for which, the sum of its errors, and "
        "counts of its scores by outcome in narrow ranges; nothing where the part has fewer than {count} patients",
        _MEASURING,
    ),
    "evaluation.value_sums": Words(
        "over one part of the rows, where a number is predicted: how many they are, the sums of the outcome, of its "
        "squares, and of the model's squared errors; nothing where the part has fewer than {count} patients",
        _MEASURING,
    ),
    "evaluation.mask_sums": Words(
        "over one part of the images, where structures are outlined: how many images show each, and the sums of the "
        "model's errors, of its overlaps with the masks, and of the distances between outlines; nothing where the part "
        "has fewer than {count} patients",
        _MEASURING,
    ),
    "evaluation.own_metrics": Words(
        "how well the model does at this hospital (accuracy, AUC, error and the like) and on how many rows; withheld "
        "where fewer than {count} patients stand behind it",
        _MEASURING,
    ),
    "appraisal.own_appraisal": Words(
        "of the final model at this hospital: its ROC, precision-recall and calibration curves, how many of each "
        "outcome it took for which, and between which limits its metrics would lie for other patients like these; what "
        "looks at one outcome is withheld where one has fewer than {count} patients, and so is a point of the "
        "calibration behind which fewer stand",
        _AT_THE_END,
    ),
    "explanation.mean_shares": Words(
        "where in an image the model looks, or how much each column of a table moves its answers, added up over the "
        "patients of one part; nothing unless this hospital's policy says explanations: averages, nor where they are "
        "fewer than {count}",
        _AT_THE_END,
    ),
    "appraisal.patient_rows": Words(
        "how many rows the patients of one part have: their sum, and the sum of their squares; nothing where they are "
        "fewer than {count}",
        _AT_THE_END,
    ),
}
"""Every step that ships, in the order in which a steward reads of them."""

_HEADINGS = {
    Release.SUM: "What would leave this hospital to be added to the other hospitals'",
    Release.SITE: "What would leave this hospital about itself alone",
    Release.LEVELS: "What names would leave this hospital",
}


def explain(
    proposal: Proposal, *, site: str = "", policy: Policy | None = None, cohort: FrozenCohort | None = None
) -> tuple[Passage, ...]:
    """The proposal in words, and what the site's policy would refuse of it. site: whose steward reads it.

    Only a proposal whose releases were checked (:func:`~medfed.govern.proposals.check_releases`) says what this site's
    software would release. Raises TaskError where its task is none.
    """
    spec = proposal.task_file().spec
    return (
        Passage("What it is for", tuple(_purpose(proposal))),
        Passage("Whose data it would read", tuple(_data(spec, cohort))),
        Passage("What would be done with them", tuple(_training(spec, site))),
        *_leaving(proposal, spec, policy),
        Passage("How often", tuple(_frequency(policy))),
        Passage("Under which protection", tuple(_protection(spec))),
        Passage("What the coordinator could learn", tuple(_risks(spec))),
        Passage("What never leaves", tuple(_never(spec))),
        Passage(
            "What this hospital's policy would refuse of it", tuple(_refused(proposal, spec, policy, cohort)) or _NONE
        ),
    )


_NONE = ("Nothing.",)


def _purpose(proposal: Proposal) -> Iterator[str]:
    yield f"Purpose: {_quoted(proposal.purpose)}."
    yield f"Legal basis: {_quoted(proposal.legal_basis)}."
    yield f"Ethics approval: {_quoted(proposal.ethics_id)}, which ends after {proposal.ethics_expires}."
    yield "These are the coordinator's words. MedFed cannot check them: ask for the documents."


def _data(spec: TaskSpec, cohort: FrozenCohort | None) -> Iterator[str]:
    if cohort is not None:
        yield (
            f"The dataset {_quoted(cohort.dataset)}, as it is now: {_many(cohort.rows, 'row')} of "
            f"{_many(cohort.patients, 'patient')}. Its rows are frozen (digest {cohort.digest[:12]}): if one "
            "changes or is added, nothing runs before a new approval."
        )
    if spec.data.columns:
        named = [name for name, column in spec.data.columns.items() if column.type != "ignore"]
        yield f"Columns: {_listed(named)}."
    else:
        yield "All columns of the table, as the task names none."
    if spec.data.label is not None:
        yield f"To be predicted: {_quoted(spec.data.label.column)}."


def _training(spec: TaskSpec, site: str) -> Iterator[str]:
    federation = spec.federation
    rounds = _many(federation.total_rounds, "round")
    yield (
        f"Task {_quoted(spec.name)}: a {spec.task_type} by the model {_quoted(spec.model.name)}, trained by "
        f"{_quoted(federation.strategy.name)} in {rounds}."
    )
    local = (
        _many(federation.local_updates, "update")
        if federation.local_updates is not None
        else f"{_many(federation.local_epochs or 1, 'pass', 'passes')} over its training rows"
    )
    yield f"In each round every hospital trains at home: {local}; then the coordinator forms the hospitals' average."
    if (distillation := federation.distillation) is not None:
        teacher = distillation.teacher
        yield (
            f"It learns from the answers of an earlier model too: that of run {_quoted(teacher.parent or '')}, whose "
            f"weights have the SHA-256 {teacher.sha256}. Every hospital is given it, and asks it at home."
        )
    if spec.evaluation.holdout:
        yield (
            f"Held out: {_listed(spec.evaluation.holdout)}. A hospital that is held out trains nothing and adds to no "
            "total. It is given the model, and asked for its own figures over all of its rows."
        )
    if site in spec.evaluation.holdout:
        yield "This hospital is held out. What is listed below is what its gate would let leave, if it were asked for."


def _leaving(proposal: Proposal, spec: TaskSpec, policy: Policy | None) -> Iterator[Passage]:
    """What would leave, by kind; a step that has no words comes first."""
    figures, order = _figures(spec, policy), [None, *STEPS]
    ordered = sorted(proposal.releases, key=lambda each: order.index(each.step if each.step in STEPS else None))
    for kind, heading in _HEADINGS.items():
        found = tuple(_words(release, figures) for release in ordered if release.kind is kind)
        if found:
            yield Passage(heading, found)


def _words(release: ProposedRelease, figures: dict[str, str]) -> str:
    words = STEPS.get(release.step)
    if words is None:
        fields = "; ".join(release.fields)
        return _plain(f"An answer not described in words, whenever it is asked for: {fields} ({release.step}).")
    what, when = (each.format_map(figures) for each in words)
    return f"{what[0].upper()}{what[1:]}. Asked for {when} ({release.step})."


def _figures(spec: TaskSpec, policy: Policy | None) -> dict[str, str]:
    """What the templates of :data:`STEPS` are filled with."""
    every = spec.evaluation.every
    return {
        "rounds": f"{spec.federation.total_rounds:,}",
        "count": str(policy.minimum_count) if policy is not None else "`minimum_count`",
        "measured": "after every round" if every == 1 else f"after every {every} rounds",
    }


def _frequency(policy: Policy | None) -> Iterator[str]:
    yield "As said above, in one run. Another run of the same task needs another approval."
    most = policy.limits.requests if policy is not None else None
    limit = (
        f"this hospital's policy ends a run after {_many(most, 'request')} (limits.requests)"
        if most is not None
        else "this hospital's policy sets no limit (limits.requests)"
    )
    yield (
        "A dishonest coordinator could ask for the same things more often within it, about models of its own choice; "
        f"{limit}."
    )


def _protection(spec: TaskSpec) -> Iterator[str]:
    if spec.privacy.aggregation == "clear":
        yield (
            "On the way: encrypted (TLS). At the coordinator: in the clear. Whoever runs the coordinator can read this "
            "hospital's contribution on arrival, before adding it to the others (privacy.aggregation: clear)."
        )
    elif spec.privacy.aggregation == "encrypted":
        yield (
            "On the way: encrypted (TLS). At the coordinator: encrypted under a key that the hospitals share and the "
            "coordinator does not have. It adds what it cannot read, and one of the hospitals decrypts the total, over "
            "three hospitals or more, and over more than two thirds of those asked (privacy.aggregation: encrypted)."
        )
        yield (
            "This holds as long as no hospital works with the coordinator against this one: any one of them could give "
            "it the key. The total itself, and what changes from one round's to the next, is not hidden. Figures about "
            "this hospital alone do not leave it."
        )
    else:
        yield (
            "On the way: encrypted (TLS). At the coordinator: hidden. What this hospital contributes is masked by "
            "numbers that cancel in the total alone, so that whoever runs the coordinator reads totals over three "
            "hospitals or more, and over more than two thirds of those asked (privacy.aggregation: secure)."
        )
        yield (
            "This holds as long as fewer than a third of the hospitals work with the coordinator against this one. The "
            "total itself, and what changes from one round's to the next, is not hidden. Figures about this hospital "
            "alone do not leave it."
        )
    yield from noise(spec)
    if len(spec.sites) == 2:
        yield "There are two hospitals: each can subtract its own part from a total, which hides nothing from it."


def _risks(spec: TaskSpec) -> Iterator[str]:
    yield (
        "All that is listed above, and what follows from it: how many patients this hospital has, of which outcome and "
        "which category, also where they are few."
    )
    yield (
        "Something of single patients, perhaps: the change of a model's weights can tell whether a known person was "
        "among the training rows, and sometimes parts of a row. The risk grows with few rows, a large model, and many "
        f"rounds (here {spec.federation.total_rounds:,})."
    )
    yield (
        "The trained model goes to the coordinator and to every hospital that took part, and may carry some of this "
        "on, to whoever receives it."
    )


def _never(spec: TaskSpec) -> Iterator[str]:
    yield "Rows, patients' identifiers, files, and the site's own log. No step can be asked for that sends them."
    if spec.data.standardize == "site":
        yield "The mean and the spread of each column here, by which this hospital scales its own values."


def _refused(proposal: Proposal, spec: TaskSpec, policy: Policy | None, cohort: FrozenCohort | None) -> Iterator[str]:
    """What the gate would refuse, of what is known beforehand; which tasks may run is the steward's decision."""
    if policy is None:
        yield "The policy is not known here."
        return
    algorithm, rounds = spec.federation.strategy.name, spec.federation.total_rounds
    if policy.task_types != "*" and spec.task_type not in policy.task_types:
        yield f"All of it: its policy does not allow a {spec.task_type} (task_types)."
    if policy.algorithms != "*" and algorithm not in policy.algorithms:
        yield f"All of it: its policy does not allow {_quoted(algorithm)} (algorithms)."
    if cohort is not None and cohort.patients < policy.minimum_patients:
        yield f"All of it: the dataset has fewer than {policy.minimum_patients} patients (minimum_patients)."
    for kind, effect in _WITHOUT.items():
        if policy.releases != "*" and kind.value not in policy.releases:
            yield f"{effect} (releases)."
    steps = [step for step in proposal.steps if policy.steps != "*" and step not in policy.steps]
    if steps:
        yield f"The steps {_listed(steps)} (steps)."
    if spec.evaluation.explanations and policy.explanations == "local":
        yield "Averages of what the model's answers rest on: they stay at this hospital (explanations)."
    if policy.limits.rounds is not None and rounds > policy.limits.rounds:
        yield f"All after round {policy.limits.rounds} of {rounds} (limits.rounds)."
    if policy.epsilon is not None and spec.privacy.record is None:
        yield f"All training: a budget of epsilon {policy.epsilon:g} admits differential privacy only (epsilon)."
    if policy.epsilon is not None and spec.privacy.record is not None:
        yield f"Training from when this dataset has spent its budget of epsilon {policy.epsilon:g} (epsilon)."
    if policy.quiet_hours:
        yield "Whatever is asked for in this hospital's quiet hours (quiet_hours)."


_WITHOUT = {
    Release.SUM: "All of it: without contributions to totals this hospital cannot take part",
    Release.SITE: "All that is about this hospital alone: it is shown as `withheld`, and the run goes on",
    Release.LEVELS: "All names: the run goes on without this hospital's categories",
}


def _many(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _listed(names: Iterable[str]) -> str:
    shown = [_quoted(name) for name in names]
    more = f", and {len(shown) - _MOST_LISTED} more" if len(shown) > _MOST_LISTED else ""
    return ", ".join(shown[:_MOST_LISTED]) + more


_MOST_LISTED = 30


def _quoted(text: str) -> str:
    """Another's words, on one line, in quotation marks that they cannot close."""
    return f"“{_plain(text)}”"


def _plain(text: str) -> str:
    return " ".join(text.replace("”", '"').replace("“", '"').split())
