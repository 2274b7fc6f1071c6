"""From a checked task and the sites' rows to a process that is ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import DataError, UserError
from medfed.core.examples import Split
from medfed.data.table import merge_tables
from medfed.engine.federation import Conversation, SiteFederation
from medfed.engine.inprocess import InProcess
from medfed.engine.process import Process
from medfed.engine.simulation import COORDINATOR, SimulatedSite, Simulation
from medfed.engine.strategies import POOLED, Strategy, resolve_strategy
from medfed.evaluate.evaluation import FEDERATED
from medfed.govern.keys import SigningKey
from medfed.models.catalogue import MODELS, NetworkCache, check_options
from medfed.spec.canonical import task_digest
from medfed.spec.loading import TaskFile
from medfed.spec.policy import Policy

RESERVED = (POOLED, COORDINATOR, FEDERATED)
"""Names that no hospital may have, since they stand for something else in ledgers and metrics."""


def check_parts(task: TaskFile, sites: tuple[str, ...]) -> Strategy:
    """The task's strategy, after checking that everything the task names is installed and fits together.

    Raises TaskError located in the file, MissingExtra where a part's dependencies are not installed.
    """
    spec = task.spec
    for site in sites:
        if site in RESERVED:
            raise UserError(f"no site can be called {site!r}", remedy=f"rename it; taken: {', '.join(RESERVED)}")
    if spec.model.name not in MODELS.names():
        raise task.error(
            "model",
            cause=f"no model is called {spec.model.name!r}",
            remedy=MODELS.suggestion(spec.model.name),
        )
    strategy = resolve_strategy(task, sites)
    try:
        check_options(spec.model, spec.task_type)
    except UserError as error:
        if error.where or error.code == "extra":
            raise
        raise task.error("model", cause=error.cause, remedy=error.remedy) from error
    return strategy


@dataclass(frozen=True)
class Assembly:
    """A run ready to start or to go on: its process, and the simulated parties behind it."""

    process: Process
    simulation: Simulation


def assemble(task: TaskFile, sites: Mapping[str, SimulatedSite], folder: Path, run: str, key: SigningKey) -> Assembly:
    """Put a simulation together in a folder. Raises what :func:`check_parts` raises."""
    spec, names = task.spec, tuple(sorted(sites))
    strategy, digest = check_parts(task, names), task_digest(task.spec)
    for name in names:
        if sites[name].table.rows(Split.TRAIN) == 0:
            raise DataError(
                "there are no training rows", where=name, remedy="leave the site out, or raise data.split.train"
            )
    networks = NetworkCache(spec.model, spec.seed)
    parties = {name: sites[name] for name in names}
    if any(POOLED in lane.trainers for lane in strategy.lanes):
        everything = merge_tables(POOLED, [sites[name].table for name in names])
        parties[POOLED] = SimulatedSite(everything, Policy.permissive(), "permissive")
    simulation = Simulation.open(run, spec, digest, strategy.steps, parties, networks, folder, key)
    engine = InProcess(simulation.handlers, spec.federation.deadline)
    federation = SiteFederation(Conversation(engine, run, digest), names, spec.federation, spec.seed)
    return Assembly(Process(spec, strategy, federation, networks), simulation)
