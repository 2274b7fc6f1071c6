"""What a step sees of its site while it runs: the implementation of ``SiteContext``."""

from __future__ import annotations

from dataclasses import replace
from secrets import randbits
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from medfed.core.errors import DataError, Refused
from medfed.core.examples import Examples, Predictions, Split
from medfed.core.messages import Message, Vector
from medfed.core.protocols import GradientTransform, OwnModel, PrivateGradients, Trained
from medfed.core.rng import generator, torch_seed
from medfed.core.timings import Phase
from medfed.core.wire import Request
from medfed.data.encoding import Encoding
from medfed.data.table import SiteTable
from medfed.engine.compression.compressed import Residual, compressed
from medfed.engine.distilling import TeacherWeights, teaching
from medfed.engine.labels import kept_of
from medfed.engine.personal import (
    LocalElements,
    fine_tuning,
    on_shared_layers,
    personal_weights,
    with_local_layers,
    without_local_layers,
)
from medfed.engine.private import check_trainable, private_gradients
from medfed.engine.rows import weights_digest
from medfed.engine.wholesite import ClipNorm, protected_update
from medfed.models.batches import Position
from medfed.models.elements import EVERYTHING, Elements
from medfed.models.local_layers import tuned_elements
from medfed.models.loss import local_loss
from medfed.models.network import Network
from medfed.models.optimizers import OptimizerState
from medfed.models.stacked import Member
from medfed.models.training import Session, predict, train
from medfed.spec.policy import Policy
from medfed.spec.task import FederationSpec, TaskSpec

if TYPE_CHECKING:
    from medfed.data.images.transforms import Augment
    from medfed.engine.site import SiteNode

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class SiteSession:
    """The context of one request. ``changes`` are the messages the step kept, for the site's memory."""

    def __init__(self, node: SiteNode, request: Request, kept: dict[type[Message], Message], policy: Policy) -> None:
        self.node = node
        self._request = request
        self._memory = dict(kept)
        self._changed: dict[type[Message], Message] = {}
        self._policy = policy
        self._trained = False

    @property
    def site(self) -> str:
        """The site's name."""
        return self.node.site

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
        return cast("M | None", self._memory.get(kind))

    def keep(self, memory: Message) -> None:
        """Keep a message; it becomes the site's memory when the reply is recorded."""
        self._memory[type(memory)] = self._changed[type(memory)] = memory

    def resource(self, kind: type[T]) -> T:
        """The site's task, policy or table of rows. Raises KeyError for anything else."""
        if kind is TaskSpec:
            return cast(T, self.node.task)
        if kind is Policy:
            return cast(T, self._policy)
        if kind is SiteTable:
            return cast(T, self.node.rows().table)
        raise KeyError(kind)

    def generator(self, purpose: str) -> np.random.Generator:
        """The seeded generator of (task seed, site, round, purpose)."""
        return generator(self.node.task.seed, self.site, self.round, purpose)

    def examples(self, split: Split) -> Examples:
        """The site's encoded rows; under ``privacy.labels`` training rows have noisy labels, whatever they are for.

        Raises DataError before an encoding was adopted, Refused where the budget does not allow the labels.
        """
        encoding = self.recall(Encoding)
        if encoding is None:
            raise DataError("the site's data are not prepared: no encoding was adopted", where=self.site)
        rows = self.node.rows()
        if rows.encoded(encoding, split):
            found = rows.examples(encoding, split)
        else:
            with self.node.timings[Phase.DATA]:
                found = rows.examples(encoding, split)
        if self.node.labels is None or split is not Split.TRAIN:
            return found
        return self.node.labels.answered(self.node, self._request, self._policy, found, encoding.classes)

    def train(self, weights: Vector, transform: GradientTransform | None = None) -> Trained:
        """Local training from ``weights``; the data's position and the optimizer's state are kept where asked.

        Under differential privacy it is charged to the dataset's budget first; that of a whole site clips the update
        and adds noise before the step sees it. By record, what augments rows and drops units is drawn in secret too: by
        a seed that others know, one row more would tell in how those after it are varied. Raises Refused where the
        budget or the plan does not allow it.
        """
        task, member = self.node.task, self.member()
        network, federation = self.network(member.examples), task.federation
        first, self._trained = not self._trained, True
        private = private_gradients(
            self.node, self._request, self._policy, network, len(member.examples), self.classes, first=first
        )
        protected = protected_update(self.node, self._request, self._policy, self.recall(ClipNorm), first=first)
        start = with_local_layers(self, federation, network, weights)
        transform = on_shared_layers(federation, network, transform)
        network.load(start)
        session = self._trained_locally(member, network, federation, "layers", transform, private)
        trained = without_local_layers(self, federation, network, weights, self.after(session))
        if task.privacy.release is not None:  # a number of rows would leave without noise
            trained = replace(trained, rows=1)
        if protected is None:
            return trained
        with self.node.timings[Phase.TRAIN]:
            trained, said = protected.apply(weights, trained)
        if said is not None:
            self.keep(said)
        return trained

    def fine_tune(self, weights: Vector) -> None:
        """Train a model of the site's own from ``weights`` by the task's ``fine_tune``, and keep it."""
        task, member = self.node.task, self.member()
        tune, network = task.federation.fine_tune, self.network(member.examples)
        if tune is None:
            raise Refused("the task fine-tunes no models")
        network.load(with_local_layers(self, task.federation, network, weights))
        network.restrict(tuned_elements(network, tune.layers))
        self._trained_locally(member, network, fine_tuning(task.federation), "fine-tuning", None, None)
        whole: Vector = network.flat.numpy(force=True).copy()
        self.keep(OwnModel((self.recall(Elements) or EVERYTHING).chosen(whole)))

    def _trained_locally(
        self,
        member: Member,
        network: Network,
        federation: FederationSpec,
        purpose: str,
        transform: GradientTransform | None,
        private: PrivateGradients | None,
    ) -> Session:
        """The training loop from the network's weights. purpose: what its random draws are for."""
        import torch

        task = self.node.task
        with self.node.timings[Phase.TRAIN], torch.random.fork_rng(devices=[]):
            torch.manual_seed(
                torch_seed(task.seed, self.site, self.round, purpose) if private is None else randbits(63)
            )
            return train(
                network,
                member.examples,
                local_loss(
                    task.task_type, federation, member.examples, self.classes, kept_of(task.privacy, self.classes)
                ),
                federation,
                round_number=max(self.round, 1),
                position=member.position,
                optimizer=self._optimizer(network) if federation.keeps_optimizer_state else None,
                generator=member.generator,
                transform=transform,
                private=private,
                augment=self._augmentation(private),
                teacher=teaching(
                    task, self.recall(TeacherWeights), self.node.rows(), member.examples, self.classes, network
                ),
            )

    def _augmentation(self, private: PrivateGradients | None) -> Augment | None:
        """What varies a training batch; None where the task asks for none."""
        images = self.node.task.data.images
        if not images.augment:
            return None
        from medfed.data.images.transforms import augmentation

        drawn = self.generator("augment") if private is None else np.random.default_rng(randbits(128))
        return augmentation(images, drawn)

    def _optimizer(self, network: Network) -> OptimizerState | None:
        """What the optimizer goes on from; what belongs to other weights, those before pruning, is of no use."""
        kept = self.recall(OptimizerState)
        fits = kept is not None and all(moment.size == network.weights.numel() for moment in kept.moments)
        return kept if fits else None

    def member(self) -> Member:
        """What local training starts from here: the rows, the place in them, and how they are shuffled.

        Raises Refused where the site's policy allows no such training.
        """
        task = self.node.task
        check_trainable(task, self._policy)
        keeps_position = task.federation.data_position == "kept"
        shuffle = (self.site, "shuffle") if keeps_position else (self.site, self.round, "shuffle")
        return Member(
            examples=self.examples(Split.TRAIN),
            position=(self.recall(Position) if keeps_position else None) or Position(),
            generator=lambda epoch: generator(task.seed, *shuffle, epoch),
        )

    def after(self, session: Session) -> Trained:
        """Keep what the next round's training goes on from; the outcome of this one."""
        federation = self.node.task.federation
        if federation.data_position == "kept":
            self.keep(session.position)
        if federation.keeps_optimizer_state:
            self.keep(session.optimizer)
        return session.trained

    def compressed(self, body: Message) -> Message:
        """A summed reply as the task wants it sent; what is left out of its updates is kept for the next round."""
        federation = self.node.task.federation
        if not federation.compresses:
            return body
        sent, residual = compressed(body, federation.compression, self.recall(Residual))
        if residual is not None:
            self.keep(residual)
        return sent

    def predict(self, weights: Vector, split: Split) -> Predictions:
        """Score one split by the model of these weights, or by what the site makes of it for itself; asked for the same
        again, it remembers."""
        rows, examples = self.node.rows(), self.examples(split)
        network = self.network(examples)
        weights = personal_weights(self, self.node.task.federation, network, weights)
        digest = weights_digest(weights)
        predictions = rows.predictions(digest, split)
        if predictions is None:
            with self.node.timings[Phase.EVALUATE]:
                network.load(weights)
                predictions = predict(network, examples, self.node.task.task_type)
            rows.keep_predictions(digest, split, predictions)
        return predictions

    def model(self, weights: Vector, split: Split) -> Network:
        """The network that :meth:`predict` scores a split by."""
        network = self.network(self.examples(split))
        network.load(personal_weights(self, self.node.task.federation, network, weights))
        return network

    @property
    def personal(self) -> bool:
        """Whether the site keeps layers or a model for itself."""
        return self.recall(OwnModel) is not None or self.recall(LocalElements) is not None

    @property
    def classes(self) -> int:
        """The number of classes; 0 for regression."""
        encoding = self.recall(Encoding)
        return len(encoding.classes) if encoding is not None else 0

    def network(self, examples: Examples) -> Network:
        """The network for such rows, whatever weights it holds; it trains what this site was told to."""
        network = self.node.networks.get(examples.features.shape[1:], self.classes)
        network.restrict(self.recall(Elements) or EVERYTHING)
        return network
