"""From a checked task and the sites' rows to a process that is ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medfed.core.collector import rare_collections
from medfed.core.errors import UserError
from medfed.data.table import merge_tables
from medfed.engine.blocks import plan_blocks, workers_for
from medfed.engine.buildable import check_network
from medfed.engine.compression.squeezed import require_zstd
from medfed.engine.distilling import check_teacher
from medfed.engine.federation import Conversation, SiteFederation, share
from medfed.engine.hospitals import Hospitals
from medfed.engine.host import Consortium
from medfed.engine.mechanisms import sums_of
from medfed.engine.partial import check_partial
from medfed.engine.private import check_private
from medfed.engine.process import Process
from medfed.engine.simulation import COORDINATOR, Simulation
from medfed.engine.start import Start
from medfed.engine.strategies import POOLED, Strategy, apart, resolve_strategy
from medfed.engine.teacher import KeptTeacher
from medfed.evaluate.evaluation import FEDERATED
from medfed.govern.keys import SigningKey
from medfed.govern.ledger import LedgerFolder
from medfed.models.catalogue import MODELS, NetworkCache, check_options
from medfed.models.device import resolve_device
from medfed.privacy.extra import require_he
from medfed.spec.canonical import task_digest
from medfed.spec.loading import TaskFile
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

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
    check_network(task)
    _check_device(task)
    check_partial(task)
    check_teacher(task)
    check_private(task)
    if spec.federation.compression.zstd:
        require_zstd()
    if spec.privacy.aggregation == "encrypted":
        require_he()
    return strategy


def _check_holdout(task: TaskSpec, sites: tuple[str, ...], *, trains: bool) -> None:
    """Raise UserError where a held-out name is no site's, or no site is left to train."""
    if not trains:
        return
    if unknown := sorted({*task.evaluation.holdout} - {*sites}):
        raise UserError(
            f"evaluation.holdout names {unknown[0]!r}, and no site is called that",
            remedy=f"write some of: {', '.join(sites)}",
        )
    if {*sites} <= {*task.evaluation.holdout}:
        raise UserError("every site is held out, and none is left to train", remedy="leave one out of holdout")


def _check_device(task: TaskFile) -> None:
    if task.spec.engine.device == "cuda":
        try:
            resolve_device("cuda")
        except UserError as error:
            raise task.error("engine", "device", cause=error.cause, remedy=error.remedy) from error


@dataclass(frozen=True)
class Assembly:
    """A run ready to start or to go on: its process, and the simulated parties behind it."""

    process: Process
    simulation: Simulation


@rare_collections()
def assemble(
    task: TaskFile,
    hospitals: Hospitals,
    folder: Path,
    run: str,
    key: SigningKey,
    *,
    trains: bool = True,
    start: Start | None = None,
) -> Assembly:
    """Put a simulation together in a folder. Raises what :func:`check_parts` raises.

    trains: whether sites admit the algorithm's own steps, and not those alone that measure a model. start: the weights
    that it begins from, where they are not the folder's own.
    """
    import numpy.ma  # noqa: F401 - np.unique and np.quantile ask for it
    import torch  # noqa: F401 - both before processes are forked, which share them

    spec, everyone = task.spec, tuple(sorted(hospitals.sites))
    _check_holdout(spec, everyone, trains=trains)
    names, external = apart(everyone, spec.evaluation.holdout)
    strategy = check_parts(task, everyone)
    cohort = share(spec.federation.cohort, len(names))
    blocks = plan_blocks(spec, names, cohort) if names else []
    workers = workers_for(spec, len(blocks))
    policies = {name: site.policy for name, site in hospitals.sites.items()}
    if any(POOLED in lane.trainers for lane in strategy.lanes):
        hospitals.rows.add(POOLED, lambda: merge_tables(POOLED, [hospitals.rows.get(name).table for name in names]))
        policies[POOLED] = Policy.permissive()
        blocks.append((POOLED,))
    blocks += [(site,) for site in external]
    consortium = Consortium(
        run=run,
        task=spec,
        digest=task_digest(spec),
        steps=strategy.steps if trains else strategy.measuring,
        folder=folder,
        ledgers=LedgerFolder.open(folder / "ledger", key, durable=False),
        rows=hospitals.rows,
        policies=policies,
        networks=NetworkCache(spec.model, spec.seed, spec.engine.device),
        blocks=tuple(blocks),
        identities={name: SigningKey.generate() for name in names} if spec.privacy.hides_parts else {},
    )
    sources = {name: site.policy_source for name, site in hospitals.sites.items()}
    simulation = Simulation.open(consortium, sources, workers, hospitals.known)
    federation = SiteFederation(
        Conversation(simulation.parties, run, consortium.digest),
        names,
        spec.federation,
        spec.seed,
        sums_of(spec, len(names), consortium.public_identities),
        spec.privacy.totals_only,
    )
    begins, teacher = start or Start.of(folder, spec), KeptTeacher.of(folder, spec)
    return Assembly(Process(spec, strategy, federation, consortium.networks, external, begins, teacher), simulation)
