"""Several sites that run one step on one message at once: the implementation of ``SiteStack``."""

from __future__ import annotations

from collections.abc import Sequence

from medfed.core.examples import Examples, Predictions, Split
from medfed.core.messages import Vector
from medfed.core.protocols import GradientTransform, Trained
from medfed.core.timings import Phase
from medfed.engine.rows import weights_digest
from medfed.engine.session import SiteSession
from medfed.models.network import Network
from medfed.models.stacked import StackTrainer, can_stack
from medfed.models.stacked.eligibility import can_stack_privately
from medfed.models.training import predict_many
from medfed.spec.task import TaskSpec


class CannotStack(Exception):
    """These sites' training cannot be stacked: each has to run by itself."""


class StackTrainers:
    """The trainer of each network of a process."""

    def __init__(self, task: TaskSpec) -> None:
        self._task = task
        self._trainers: dict[Network, StackTrainer | None] = {}

    def get(self, network: Network, shape: tuple[int, ...], classes: int) -> StackTrainer:
        """The trainer of a network for inputs of a shape. Raises CannotStack where there can be none."""
        if network not in self._trainers:
            stackable = can_stack(network, self._task, shape)
            task_type, federation = self._task.task_type, self._task.federation
            self._trainers[network] = StackTrainer(network, task_type, federation, classes) if stackable else None
        trainer = self._trainers[network]
        if trainer is None:
            raise CannotStack
        return trainer

    @property
    def used(self) -> bool:
        """Whether there is a trainer that sites were trained by."""
        return any(trainer is not None for trainer in self._trainers.values())


class SessionStack:
    """The sessions of several sites, in order; all take their turn with the same networks."""

    def __init__(self, sessions: Sequence[SiteSession], trainers: StackTrainers) -> None:
        self._sessions = sessions
        self._trainers = trainers
        self._timings = sessions[0].node.timings

    @property
    def sites(self) -> Sequence[SiteSession]:
        """Each site by itself."""
        return self._sessions

    def train(self, weights: Vector, transform: GradientTransform | None = None) -> list[Trained]:
        """Local training at every site from the same weights. Raises CannotStack where sites or model do not allow."""
        members = [session.member() for session in self._sessions]
        first = self._sessions[0]
        if not can_stack_privately(first.node.task.privacy):
            raise CannotStack
        network = self._network([member.examples for member in members])
        with self._timings[Phase.TRAIN]:
            trainer = self._trainers.get(network, members[0].examples.features.shape[1:], first.classes)
            trained = trainer.train(weights, members, round_number=max(first.round, 1), transform=transform)
        return [session.after(each) for session, each in zip(self._sessions, trained, strict=True)]

    def predict(self, weights: Vector, split: Split) -> list[Predictions]:
        """Score one split at every site by the model of these weights, in one go; asked the same again, it remembers.

        The last bits of a score depend on the rows scored with it, so only this very stack's predictions are the same.
        Raises CannotStack where a site has layers or a model of its own.
        """
        if any(session.personal for session in self._sessions):
            raise CannotStack
        task_type = self._sessions[0].node.task.task_type
        digest = weights_digest(weights, *(session.site for session in self._sessions))
        examples = [session.examples(split) for session in self._sessions]
        rows = [session.node.rows() for session in self._sessions]
        known = [found for each in rows if (found := each.predictions(digest, split)) is not None]
        if len(known) == len(rows):
            return known
        network = self._network(examples)
        with self._timings[Phase.EVALUATE]:
            network.load(weights)
            scored = predict_many(network, examples, task_type)
        for each, predictions in zip(rows, scored, strict=True):
            each.keep_predictions(digest, split, predictions)
        return scored

    def _network(self, examples: Sequence[Examples]) -> Network:
        """The one network of all sites. Raises CannotStack where their rows are not of one shape."""
        first, *others = (session.network(each) for session, each in zip(self._sessions, examples, strict=True))
        if any(other is not first for other in others):
            raise CannotStack
        return first
