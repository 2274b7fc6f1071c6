"""The task trained once more, on rows of the audit's choice."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.attacks.margins import margins
from medfed.core.examples import Split
from medfed.core.messages import Vector
from medfed.data.encoding import Encoding, encode, fit_to
from medfed.data.table import SiteTable
from medfed.engine.assembly import Assembly, assemble
from medfed.engine.audit.subject import Subject, with_tables
from medfed.engine.process import input_shape
from medfed.engine.simulation import attached
from medfed.engine.start import Start
from medfed.govern.keys import SigningKey
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.training import updates_of
from medfed.privacy.plan import plan_for
from medfed.spec.loading import TaskFile
from medfed.spec.task import TaskSpec


@dataclass(frozen=True, eq=False)
class SiteModel:
    """The model that serves a site, and how the site's rows become its inputs."""

    task: TaskSpec
    encoding: Encoding
    weights: Vector

    def margins(self, table: SiteTable) -> NDArray[np.float64]:
        """The margin of each row of a table, in order."""
        network = build_network(
            self.task.model, input_shape(self.encoding, self.task.model), outputs_for(len(self.encoding.classes)), 0
        )
        network.load(self.weights)
        return margins(network, encode(table, self.encoding, None))


def solve_noise(task: TaskSpec, rows: Mapping[str, int]) -> float | None:
    """The noise multiplier of the site with the most training rows; None without differential privacy.

    It takes seconds for each number of rows. Solved for here it is known in this process from then on, and in those
    that are forked from it, which train.
    """
    privacy, federation = task.privacy.record, task.federation
    if privacy is None:
        return None
    noise = 0.0
    for site, n in sorted(rows.items(), key=lambda each: each[1]):
        batch, updates = updates_of(federation, n)
        plan = plan_for(privacy, rows=n, batch=batch, round_steps=updates, rounds=federation.total_rounds, site=site)
        noise = plan.noise_multiplier
    return noise


@contextmanager
def assembled(subject: Subject, task: TaskFile, tables: Mapping[str, SiteTable], key: SigningKey) -> Iterator[Assembly]:
    """A run of the task on these rows, in a folder below the audited run's that goes with it."""
    work = subject.folder.path / "audit" / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    solve_noise(task.spec, {site: table.rows(Split.TRAIN) for site, table in tables.items()})
    start = Start.of(subject.folder.path, task.spec)
    try:
        assembly = assemble(task, with_tables(subject.hospitals, tables), work, uuid.uuid4().hex, key, start=start)
        with attached(assembly.simulation):
            yield assembly
    finally:
        shutil.rmtree(work, ignore_errors=True)


def trained(subject: Subject, tables: Mapping[str, SiteTable], key: SigningKey) -> dict[str, SiteModel]:
    """Train the task on these rows to its end; the model of each site."""
    with assembled(subject, _unmeasured(subject.task), tables, key) as assembly:
        process = assembly.process
        state = process.initialize()
        while not process.done(state):
            state, _ = process.next(state)
        weights, models = process.weights(state), {}
        for lane, kept in zip(process.strategy.lanes, state.lanes, strict=True):
            for site in lane.serves:
                encoding = kept.encoding if kept.encoding.fitted else fit_to(kept.encoding, tables[site])
                models[site] = SiteModel(subject.spec, encoding, weights[lane.name])
    return models


def _unmeasured(task: TaskFile) -> TaskFile:
    """The task, measured after its last round alone where nothing is decided by measures: they cost time."""
    spec = task.spec
    if spec.stop.metric is not None:
        return task
    evaluation = spec.evaluation.model_copy(update={"every": spec.federation.total_rounds})
    return TaskFile(spec.model_copy(update={"evaluation": evaluation}), task.document)
