"""Updates as the coordinator receives them, and what an attacker makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Examples
from medfed.core.messages import Vector
from medfed.core.protocols import PrivateGradients
from medfed.core.rng import generator
from medfed.models.batches import Position
from medfed.models.loss import local_loss, row_losses
from medfed.models.network import Network
from medfed.models.training import train
from medfed.privacy.dpsgd import DpSgd
from medfed.spec.task import TaskSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Update:
    """What left a site, or the sites together: the change of the weights, from ``start``, both of shape (d,).

    records: those it was trained on. public: records of the same kind that the attacker may know. updates: local steps
    behind it, the largest number. lr: their learning rate.
    """

    start: Vector
    change: Vector
    records: Examples
    public: Examples
    updates: int
    lr: float


@dataclass(frozen=True, eq=False)
class Victim:
    """The local training of a task, from weights that the attacker knows.

    noise_multiplier: of the task's differential privacy, or None. classes: 0 for regression.
    """

    task: TaskSpec
    network: Network
    weights: Vector
    classes: int
    noise_multiplier: float | None

    def alone(self, record: Examples) -> Update:
        """The update after one local step on one record: the task's training in all else, noise included."""
        federation = self.task.federation.model_copy(
            update={"batch_size": 1, "local_updates": 1, "local_epochs": None, "epochs": None, "rounds": 1}
        )
        self.network.load(self.weights)
        trained = train(
            self.network,
            record,
            local_loss(self.task.task_type, federation, record, self.classes),
            federation,
            round_number=1,
            position=Position(),
            optimizer=None,
            generator=partial(generator, self.task.seed, "audit"),
            private=self._private(),
        ).trained
        return Update(self.weights, trained.weights - self.weights, record, record, 1, trained.lr)

    def _private(self) -> PrivateGradients | None:
        privacy = self.task.privacy.record
        if privacy is None or self.noise_multiplier is None:
            return None
        return DpSgd(
            self.network.module,
            row_losses(self.task.task_type, self.task.federation),
            clip_norm=privacy.clip_norm,
            noise_multiplier=self.noise_multiplier,
            sampling_rate=1.0,
            expected_batch=1.0,
        )

    def gradient(self, update: Update) -> list[torch.Tensor]:
        """What the attacker takes for the mean gradient, by parameter: the change over −lr and the number of steps,
        less the weight decay, which it knows. That is exact after one step of plain SGD."""
        import torch

        size = self.network.weights.numel()
        flat = torch.from_numpy(update.change[:size] / np.float32(-update.lr * update.updates))
        flat = flat - self.task.federation.weight_decay * torch.from_numpy(update.start[:size])
        parameters = list(self.network.module.parameters())
        parts = torch.split(flat, [parameter.numel() for parameter in parameters])
        return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]

    def outputs(self, weights: Vector, features: NDArray[np.float32]) -> torch.Tensor:
        """The network's outputs (n, k) with these weights."""
        import torch

        self.network.load(weights)
        self.network.module.eval()
        with torch.no_grad():
            found: torch.Tensor = self.network.module(torch.from_numpy(features))
        return found
