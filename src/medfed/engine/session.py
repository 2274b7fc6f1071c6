"""What a step sees of its site while it runs: the implementation of ``SiteContext``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from medfed.core.errors import DataError
from medfed.core.examples import Examples, Predictions, Split
from medfed.core.messages import Message, Vector
from medfed.core.protocols import GradientTransform, Trained
from medfed.core.rng import generator, torch_seed
from medfed.core.wire import Request
from medfed.data.encoding import Encoding, encode
from medfed.data.table import SiteTable
from medfed.models.batches import Position
from medfed.models.loss import local_loss
from medfed.models.network import Network
from medfed.models.optimizers import OptimizerState
from medfed.models.training import predict, train
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

if TYPE_CHECKING:
    from medfed.engine.site import SiteNode

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass
class Encoded:
    """A site's rows as the present encoding gives them, kept between requests so that they are encoded once."""

    encoding: Encoding | None = None
    splits: dict[Split, Examples] = field(default_factory=dict)

    def split(self, table: SiteTable, encoding: Encoding, split: Split) -> Examples:
        """The encoded rows of a split."""
        if self.encoding is not encoding:
            self.encoding, self.splits = encoding, {}
        if split not in self.splits:
            self.splits[split] = encode(table, encoding, split)
        return self.splits[split]


class SiteSession:
    """The context of one request. ``changes`` are the messages the step kept, for the site's memory."""

    def __init__(self, node: SiteNode, request: Request, kept: dict[type[Message], Message], policy: Policy) -> None:
        self._node = node
        self._request = request
        self._memory = kept
        self._changed: dict[type[Message], Message] = {}
        self._resources = {TaskSpec: node.task, Policy: policy, SiteTable: node.table}

    @property
    def site(self) -> str:
        """The site's name."""
        return self._node.site

    @property
    def round(self) -> int:
        """The round of the request."""
        return self._request.round

    @property
    def changes(self) -> tuple[Message, ...]:
        """What the step kept."""
        return tuple(self._changed.values())

    def recall(self, kind: type[M]) -> M | None:
        """The message of this type kept last, or None."""
        return cast(M | None, self._memory.get(kind))

    def keep(self, memory: Message) -> None:
        """Keep a message; it becomes the site's memory when the reply is recorded."""
        self._memory[type(memory)] = self._changed[type(memory)] = memory

    def resource(self, kind: type[T]) -> T:
        """The site's task, policy or table of rows. Raises KeyError for anything else."""
        return cast(T, self._resources[kind])

    def generator(self, purpose: str) -> np.random.Generator:
        """The seeded generator of (task seed, site, round, purpose)."""
        return generator(self._node.task.seed, self.site, self.round, purpose)

    def examples(self, split: Split) -> Examples:
        """The site's encoded rows. Raises DataError before an encoding was adopted."""
        encoding = self.recall(Encoding)
        if encoding is None:
            raise DataError("the site's data are not prepared: no encoding was adopted", where=self.site)
        return self._node.encoded.split(self._node.table, encoding, split)

    def train(self, weights: Vector, transform: GradientTransform | None = None) -> Trained:
        """Local training from ``weights``; the data's position and the optimizer's state are kept where asked."""
        import torch

        task, examples = self._node.task, self.examples(Split.TRAIN)
        network, federation, classes = self._network(examples), task.federation, self._classes()
        network.load(weights)
        keeps_position = federation.data_position == "kept"
        shuffle = (self.site, "shuffle") if keeps_position else (self.site, self.round, "shuffle")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(task.seed, self.site, self.round, "layers"))
            session = train(
                network,
                examples,
                local_loss(task.task_type, federation, examples, classes),
                federation,
                round_number=max(self.round, 1),
                position=(self.recall(Position) if keeps_position else None) or Position(),
                optimizer=self.recall(OptimizerState) if federation.keeps_optimizer_state else None,
                generator=lambda epoch: generator(task.seed, *shuffle, epoch),
                transform=transform,
            )
        if keeps_position:
            self.keep(session.position)
        if federation.keeps_optimizer_state:
            self.keep(session.optimizer)
        return session.trained

    def predict(self, weights: Vector, split: Split) -> Predictions:
        """Score one split by the model of these weights."""
        examples = self.examples(split)
        network = self._network(examples)
        network.load(weights)
        return predict(network, examples, self._node.task.task_type)

    def _classes(self) -> int:
        encoding = self.recall(Encoding)
        return len(encoding.classes) if encoding is not None else 0

    def _network(self, examples: Examples) -> Network:
        return self._node.networks.get(examples.features.shape[1:], self._classes())
