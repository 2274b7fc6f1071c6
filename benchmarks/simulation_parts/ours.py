"""Our training and aggregation alone: the algorithm's own round over a bare federation, without gate, ledger or wire.

The kernel is what the engine does by itself for a workload: small sites stacked, large ones spread over two forked
workers. The sequential path is that of everything else: one site after the other, in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.simulation_parts.product import name_of, task_of
from benchmarks.simulation_parts.spread import SpreadFederation
from benchmarks.simulation_parts.workloads import Part, Workload
from medfed.algorithms import ALGORITHMS
from medfed.core.examples import Examples
from medfed.core.messages import Message, Vector, add
from medfed.core.protocols import Algorithm, GradientTransform, Trained
from medfed.core.rng import generator
from medfed.core.steps import Step
from medfed.engine.blocks import STACK
from medfed.models.batches import Position
from medfed.models.catalogue import NetworkCache
from medfed.models.loss import local_loss
from medfed.models.network import Network
from medfed.models.training import train
from medfed.spec.loading import task_of as checked
from medfed.spec.task import TaskSpec

WORKERS = 2


@dataclass
class Site:
    """A site as an algorithm's batched step sees it: its rows, where it is in them, and a memory."""

    name: str
    examples: Examples
    seed: int
    position: Position = field(default_factory=Position)
    memory: dict[type[Message], Message] = field(default_factory=dict)

    def recall(self, kind: type[Message]) -> Any:
        """The message of this type kept last, or None."""
        return self.memory.get(kind)

    def keep(self, memory: Message) -> None:
        """Keep a message."""
        self.memory[type(memory)] = memory

    def shuffle(self, epoch: int) -> Any:
        """The stream from which the product, too, draws an epoch's order."""
        return generator(self.seed, self.name, "shuffle", epoch)


TrainSites = Callable[[Sequence[Site], Vector, int, GradientTransform | None], list[Trained]]
"""(sites, weights, round, transform) → what each site's training gives; positions go on."""


@dataclass(frozen=True)
class Stack:
    """Sites that run one step together."""

    sites: Sequence[Site]
    round: int
    trainer: TrainSites

    def train(self, weights: Vector, transform: GradientTransform | None = None) -> list[Trained]:
        """Local training at every site from the same weights."""
        return self.trainer(self.sites, weights, self.round, transform)


@dataclass
class BareFederation:
    """A federation whose sum is the steps' replies, added in the order of the sites.

    size: of the cohort. stack: the sites of a stack, at most.
    """

    members: dict[str, Site]
    size: int
    seed: int
    stack: int
    trainer: TrainSites
    round: int = 0

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site's name, sorted."""
        return tuple(self.members)

    def cohort(self) -> tuple[str, ...]:
        """The round's sites, drawn as the product draws them."""
        if self.size == len(self.members):
            return self.sites
        drawn = generator(self.seed, "cohort", self.round).choice(len(self.members), self.size, replace=False)
        return tuple(self.sites[i] for i in sorted(drawn))

    def sum(self, step: Step[Any, Any], message: Message, *, sites: Sequence[str]) -> Any:
        """The total of the sites' replies."""
        assert step.run_many is not None
        total: Message | None = None
        count = -(-len(sites) // self.stack)
        for k in range(count):
            names = sites[k * len(sites) // count : (k + 1) * len(sites) // count]
            stack: Any = Stack([self.members[name] for name in names], self.round, self.trainer)
            for reply in step.run_many(stack, message):
                total = add(total, reply)
        return total


def kernel(work: Workload) -> list[float]:
    """The clock at the end of each round of the path that the engine takes by itself."""
    return [end for end, _ in (two_workers(work) if work.model["name"] == "cnn" else stacked(work))]


def sequential(work: Workload) -> list[float]:
    """The clock at the end of each round of one site after the other."""
    return [end for end, _ in one_by_one(work)]


def stacked(work: Workload) -> Iterator[tuple[float, Vector]]:
    """Training of small sites together."""
    from medfed.models.stacked import Member, StackTrainer

    task, network, members = prepared(work)
    trainer = StackTrainer(network, task.task_type, task.federation, work.classes)

    def train_stack(
        sites: Sequence[Site], weights: Vector, number: int, transform: GradientTransform | None
    ) -> list[Trained]:
        stack = [Member(site.examples, site.position, site.shuffle) for site in sites]
        sessions = trainer.train(weights, stack, round_number=number, transform=transform)
        for site, session in zip(sites, sessions, strict=True):
            site.position = session.position
        return [session.trained for session in sessions]

    return rounds(work, network, BareFederation(members, work.taking_part, task.seed, STACK, train_stack))


def one_by_one(work: Workload) -> Iterator[tuple[float, Vector]]:
    """Training of one site after the other in this process."""
    task, network, members = prepared(work)
    train_each = trainer_of(work, task, network)
    return rounds(work, network, BareFederation(members, work.taking_part, task.seed, 1, train_each))


def two_workers(work: Workload) -> Iterator[tuple[float, Vector]]:
    """The same, the sites spread over the product's worker processes."""
    task, network, members = prepared(work)
    federation = SpreadFederation.over(members, trainer_of(work, task, network), WORKERS)
    yield from rounds(work, network, federation)
    federation.workers.detach()


def prepared(work: Workload) -> tuple[TaskSpec, Network, dict[str, Site]]:
    """The task, its network with the initial weights, and the sites with their training rows. One thread from here."""
    torch.set_num_threads(1)
    task = checked(task_of(work)).spec
    network = NetworkCache(task.model, task.seed).get(work.shape, work.classes)
    names = {name_of(index): _examples(work.site(index).train) for index in range(work.sites)}
    return task, network, {name: Site(name, examples, task.seed) for name, examples in names.items()}


def trainer_of(work: Workload, task: TaskSpec, network: Network) -> TrainSites:
    """Training by the product's loop, a site at a time."""

    def train_each(
        sites: Sequence[Site], weights: Vector, number: int, transform: GradientTransform | None
    ) -> list[Trained]:
        found = []
        for site in sites:
            network.load(weights)
            session = train(
                network,
                site.examples,
                local_loss(task.task_type, task.federation, site.examples, work.classes),
                task.federation,
                round_number=number,
                position=site.position,
                optimizer=None,
                generator=site.shuffle,
                transform=transform,
            )
            site.position = session.position
            found.append(session.trained)
        return found

    return train_each


def rounds(
    work: Workload, network: Network, federation: BareFederation | SpreadFederation
) -> Iterator[tuple[float, Vector]]:
    """After each round of the algorithm: the clock, and the weights."""
    options = {key: value for key, value in work.strategy.items() if key != "name"}
    kind: Any = ALGORITHMS.get(work.strategy["name"])
    algorithm: Algorithm[Any] = kind(network.vector(), work.rounds, **options)
    bare: Any = federation
    state = algorithm.initialize(bare)
    for federation.round in range(1, work.rounds + 1):
        state = algorithm.round(bare, state)
        yield time.monotonic(), algorithm.result(state).weights


def _examples(part: Part) -> Examples:
    return Examples(part.features, part.targets)
