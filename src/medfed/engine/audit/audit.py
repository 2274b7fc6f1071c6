"""The audit of a run: open it, try each attack, tell what it found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from medfed.attacks import inversion, labels, reconstruction
from medfed.attacks.canary import CONFIDENCE, epsilon_bound, guesses
from medfed.attacks.membership import AT_ONCE, judged, success
from medfed.attacks.reconstruction import Reconstructed
from medfed.attacks.results import Attack, Audit, Canaries, Membership, NotTried, Reconstruction
from medfed.attacks.victim import Update
from medfed.core.errors import UserError
from medfed.core.examples import Examples
from medfed.core.rng import generator
from medfed.engine.audit.canaries import CanaryTrainings
from medfed.engine.audit.kept import KeptModels
from medfed.engine.audit.observed import Observed, observe, sends_updates
from medfed.engine.audit.place import held
from medfed.engine.audit.shadows import Shadows
from medfed.engine.audit.subject import Subject
from medfed.govern.keys import SigningKey
from medfed.version import __version__

UPDATE_ATTACKS = (Attack.INVERSION, Attack.LABELS, Attack.RECONSTRUCTION)
_FEWEST_CANARIES = 4
_DELTA = 1e-5
"""At which epsilon is bounded where the run has no delta of its own."""


class Progress(Protocol):
    """Told how far an audit is."""

    def __call__(self, attack: Attack, done: int, of: int) -> None:
        """``done`` of ``of`` parts of an attack are done."""
        ...


@dataclass(frozen=True)
class Effort:
    """How much is tried: shadow models (a multiple of 4 from 8 on), trainings with canaries, records sent alone, images
    and the steps for each. quick: whether it is but a first look. Raises UserError for another number of models."""

    models: int = 16
    trainings: int = 8
    records: int = 200
    images: int = 3
    iterations: int = 1000
    quick: bool = False

    def __post_init__(self) -> None:
        if self.models < 2 * AT_ONCE or self.models % AT_ONCE:
            raise UserError("shadow models are 8, 12, 16, … in number", remedy="--models 16")

    @classmethod
    def small(cls) -> Effort:
        """A first look."""
        return cls(models=8, trainings=2, records=40, images=1, iterations=300, quick=True)


@dataclass(frozen=True)
class Audited:
    """What an audit found, and the images that it reconstructed, which no file of it holds."""

    audit: Audit
    pictures: tuple[Reconstructed, ...]


def audit_run(
    subject: Subject,
    attacks: Sequence[Attack],
    effort: Effort,
    key: SigningKey,
    *,
    progress: Progress,
) -> Audited:
    """Try each of these attacks. Models that were trained for an earlier audit are used again.

    Raises RunFolderError where another audit of the run is at work, and what training raises.
    """
    begun = time.monotonic()
    facts = subject.facts
    audit = Audit(
        medfed=__version__,
        run=facts.run,
        task_digest=facts.digest,
        name=subject.spec.name,
        strategy=subject.spec.federation.strategy.name,
        seed=subject.spec.seed,
        quick=effort.quick,
        simulation=facts.simulation,
        total=subject.spec.privacy.hides_parts,
        attacked=0,
        seconds=0.0,
        not_tried=tuple(NotTried(attack, "it was not asked for") for attack in Attack if attack not in attacks),
    )
    with held(subject.folder.path):
        audit, pictures = _tried(audit, subject, attacks, effort, key, progress)
    return Audited(replace(audit, seconds=round(time.monotonic() - begun, 1)), pictures)


def _tried(
    audit: Audit, subject: Subject, attacks: Sequence[Attack], effort: Effort, key: SigningKey, progress: Progress
) -> tuple[Audit, tuple[Reconstructed, ...]]:
    pictures: tuple[Reconstructed, ...] = ()
    wanted = [attack for attack in UPDATE_ATTACKS if attack in attacks]
    if wanted and not sends_updates(subject.task):
        nothing = f"under the strategy {audit.strategy} no update leaves a site"
        audit = _without(audit, *(NotTried(attack, nothing) for attack in wanted))
    elif wanted:
        audit, pictures = _on_updates(audit, subject, wanted, effort, key, progress)
    kept = KeptModels.open(subject)
    if Attack.MEMBERSHIP in attacks:
        audit = _membership(audit, Shadows(subject, kept, key), effort.models, progress)
    if Attack.CANARY in attacks:
        audit = _canary(audit, CanaryTrainings(subject, kept, key), effort.trainings, progress)
    return audit, pictures


def _without(audit: Audit, *reasons: NotTried) -> Audit:
    return replace(audit, not_tried=(*audit.not_tried, *reasons))


def _on_updates(
    audit: Audit, subject: Subject, wanted: Sequence[Attack], effort: Effort, key: SigningKey, progress: Progress
) -> tuple[Audit, tuple[Reconstructed, ...]]:
    """The attacks on updates, of records sent alone and of the first round as the task sends it."""
    progress(wanted[0], 0, 1)
    seen = observe(subject, key)
    victim, records = seen.victim, _drawn(seen, effort.records, subject.spec.seed)
    audit = replace(audit, attacked=len(seen.updates))
    alone: list[Update] = []
    if {Attack.INVERSION, Attack.LABELS} & {*wanted}:
        for number in range(len(records)):
            alone.append(victim.alone(_one(records, number)))
            progress(wanted[0], number + 1, len(records))
    pictures: tuple[Reconstructed, ...] = ()
    for attack in wanted:
        match attack:
            case Attack.INVERSION if inversion.applies(victim, records):
                audit = replace(audit, inversion=inversion.invert(victim, alone, seen.updates))
            case Attack.LABELS if labels.applies(victim, records):
                audit = replace(audit, labels=labels.recover_labels(victim, alone, seen.updates))
            case Attack.RECONSTRUCTION if reconstruction.applies(victim, records):
                pictures = tuple(_pictures(seen, effort, subject.spec.seed, progress))
                found = tuple(each.picture for each in pictures)
                images = len(next(iter(seen.records.values())))
                audit = replace(audit, reconstruction=Reconstruction(found, images, effort.iterations))
            case _:
                audit = _without(audit, NotTried(attack, _UNFIT[attack]))
    return audit, pictures


_UNFIT = {
    Attack.INVERSION: "the model’s first layer is no linear layer with a bias that reads the record itself",
    Attack.LABELS: "the targets are numbers, or the last layer is no linear layer with a bias",
    Attack.RECONSTRUCTION: "the records are no images with classes; what is in the rows of a table the attack on the "
    "first layer reads",
}


def _drawn(seen: Observed, most: int, seed: int) -> Examples:
    """Some of all sites' training records."""
    features = np.concatenate([each.features for each in seen.records.values()])
    targets = np.concatenate([each.targets for each in seen.records.values()])
    chosen = generator(seed, "audit", "alone").permutation(len(targets))[:most]
    return Examples(features[chosen], targets[chosen])


def _one(records: Examples, number: int) -> Examples:
    some = slice(number, number + 1)
    return Examples(records.features[some], records.targets[some])


def _pictures(seen: Observed, effort: Effort, seed: int, progress: Progress) -> list[Reconstructed]:
    """Images of the first site, each sent alone."""
    records = next(iter(seen.records.values()))
    chosen = generator(seed, "audit", "images").permutation(len(records))[: effort.images]
    found = []
    for number, place in enumerate(chosen.tolist()):
        update = seen.victim.alone(_one(records, place))
        random = generator(seed, "audit", "image", place)
        found.append(
            reconstruction.reconstruct(
                seen.victim, update, records.features, iterations=effort.iterations, random=random
            )
        )
        progress(Attack.RECONSTRUCTION, number + 1, len(chosen))
    return found


def _membership(audit: Audit, shadows: Shadows, models: int, progress: Progress) -> Audit:
    made = []
    progress(Attack.MEMBERSHIP, 0, models)
    for shadow in shadows.train(models):
        made.append(shadow)
        progress(Attack.MEMBERSHIP, len(made), models)
    seed = shadows.subject.spec.seed
    try:
        trials = judged(made, generator(seed, "audit", "judged"))
    except ValueError:
        return _without(audit, NotTried(Attack.MEMBERSHIP, "every site has too few patients to leave some out"))
    own = shadows.own(made)
    found = Membership(
        models=models,
        share=shadows.quarters / 4,
        records=len(np.unique(trials.records)),
        shadows=success(trials, generator(seed, "audit", "resampled"), patients=shadows.patients),
        own=success(own, generator(seed, "audit", "resampled"), patients=shadows.patients) if own is not None else None,
    )
    return replace(audit, membership=found)


def _canary(audit: Audit, canaries: CanaryTrainings, trainings: int, progress: Progress) -> Audit:
    if canaries.canaries < _FEWEST_CANARIES:
        return _without(audit, NotTried(Attack.CANARY, "the sites have too few training rows to plant among"))
    made = []
    progress(Attack.CANARY, 0, trainings)
    for training in canaries.train(trainings):
        made.append(training)
        progress(Attack.CANARY, len(made), trainings)
    planted, facts = trainings * canaries.canaries, canaries.subject.facts
    guessed, right = guesses(made)
    delta = facts.delta if facts.epsilon is not None else _DELTA
    found = Canaries(
        trainings=trainings,
        planted=planted,
        guesses=guessed,
        right=right,
        confidence=CONFIDENCE,
        delta=delta,
        epsilon=epsilon_bound(planted, guessed, right, delta),
        accounted=facts.epsilon,
    )
    return replace(audit, canary=found)
