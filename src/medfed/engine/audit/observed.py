"""The updates of a run's first round, as its coordinator receives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medfed.attacks.victim import Update, Victim
from medfed.core.examples import Examples, Split
from medfed.data.encoding import Encoding, encode, fit_to
from medfed.engine.assembly import Assembly
from medfed.engine.audit.federations import assembled, solve_noise
from medfed.engine.audit.subject import Subject
from medfed.engine.federation import SiteFederation
from medfed.engine.process import RunState, input_shape
from medfed.govern.keys import SigningKey
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.training import learning_rate, updates_of
from medfed.spec.loading import TaskFile
from medfed.spec.task import BASELINES, Plugin

_OWN_UPDATES = ("fedavg", "fedprox")
_PUBLIC = 2_000
"""Held-out rows, at most, that the attacker is taken to know."""


@dataclass(frozen=True, eq=False)
class Observed:
    """The first round: the local training as the attacker knows it, the updates that it sees, and each site's records.

    total: it sees one update, that of all sites together.
    """

    victim: Victim
    updates: tuple[Update, ...]
    records: dict[str, Examples]
    total: bool


def sends_updates(task: TaskFile) -> bool:
    """Whether anything of training leaves a site: not under a baseline."""
    return task.spec.federation.strategy.name not in BASELINES


def observe(subject: Subject, key: SigningKey) -> Observed:
    """Train the first round of the task at its sites, each by itself, or together where the parts of totals are hidden.

    Local training is the task's own: its steps, batches, optimizer, clipping and noise. What SCAFFOLD and FedAdam send
    of it in the first round is what FedAvg sends, and so the attacker is given that.
    """
    task, total = _first_round(subject.task), subject.spec.privacy.hides_parts
    with assembled(subject, task, subject.tables, key) as assembly:
        process = assembly.process
        state = process.initialize()
        encodings = {site: _fitted(state.lanes[0].encoding, subject, site) for site in subject.tables}
        records = {s: encode(t, encodings[s], Split.TRAIN) for s, t in subject.tables.items()}
        public = _public(subject, encodings)
        victim = _victim(subject, assembly, state, records)
        process.federation.conversation.begin_round(1, state.versions.by_site())
        groups = [tuple(subject.tables)] if total else [(site,) for site in subject.tables]
        updates = [
            _update(victim, assembly, state, process.federation.restricted(sites), [records[s] for s in sites], public)
            for sites in groups
        ]
    return Observed(victim, tuple(updates), records, total)


def _first_round(task: TaskFile) -> TaskFile:
    spec = task.spec
    if spec.federation.strategy.name in _OWN_UPDATES:
        return task
    federation = spec.federation.model_copy(update={"strategy": Plugin(name="fedavg")})
    return TaskFile(spec.model_copy(update={"federation": federation}), task.document)


def _fitted(encoding: Encoding, subject: Subject, site: str) -> Encoding:
    return encoding if encoding.fitted else fit_to(encoding, subject.tables[site])


def _public(subject: Subject, encodings: dict[str, Encoding]) -> Examples:
    """Rows that nothing was trained on, of all sites; where there are none, normal numbers in their place."""
    parts = [
        encode(t, encodings[s], split) for s, t in subject.tables.items() for split in (Split.TEST, Split.VALIDATION)
    ]
    features = np.concatenate([part.features for part in parts])[:_PUBLIC]
    targets = np.concatenate([part.targets for part in parts])[:_PUBLIC]
    if not len(features):
        drawn = np.random.default_rng(0).standard_normal((_PUBLIC, *features.shape[1:]), np.float32)
        return Examples(drawn, np.zeros(_PUBLIC, targets.dtype))
    return Examples(features, targets)


def _victim(subject: Subject, assembly: Assembly, state: RunState, records: dict[str, Examples]) -> Victim:
    spec, encoding = subject.spec, state.lanes[0].encoding
    network = build_network(
        spec.model, input_shape(encoding, spec.model), outputs_for(len(encoding.classes)), spec.seed
    )
    noise = solve_noise(spec, {site: len(each) for site, each in records.items()})
    return Victim(spec, network, next(iter(assembly.process.weights(state).values())), len(encoding.classes), noise)


def _update(
    victim: Victim,
    assembly: Assembly,
    state: RunState,
    federation: SiteFederation,
    records: Sequence[Examples],
    public: Examples,
) -> Update:
    spec, strategy = victim.task, assembly.process.strategy
    algorithm = strategy.algorithm(victim.weights, spec.federation.total_rounds, 0.0)
    after = algorithm.round(federation, algorithm.initialize(federation))
    change = algorithm.result(after).weights - victim.weights
    together = Examples(
        np.concatenate([each.features for each in records]), np.concatenate([each.targets for each in records])
    )
    steps = max(updates_of(spec.federation, len(each))[1] for each in records)
    return Update(victim.weights, change, together, public, steps, learning_rate(spec.federation, 1))
