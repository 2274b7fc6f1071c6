"""The local training loop: the only one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from medfed.core.errors import DataError
from medfed.core.examples import Examples, Predictions
from medfed.core.protocols import GradientTransform, Trained
from medfed.models.batches import Position, batches, updates_per_epoch
from medfed.models.loss import Loss
from medfed.models.network import Network
from medfed.models.optimizers import OptimizerState, local_optimizer
from medfed.spec.task import FederationSpec

if TYPE_CHECKING:
    import torch

_EVALUATION_BATCH = 4096


@dataclass(frozen=True, eq=False)
class Session:
    """A site's local training in one round, and what it needs to go on in the next."""

    trained: Trained
    position: Position
    optimizer: OptimizerState


def learning_rate(federation: FederationSpec, round_number: int) -> float:
    """The learning rate of round r = 1…R under the task's schedule."""
    schedule, lr = federation.schedule, federation.lr
    match schedule.name:
        case "step":
            return float(lr * schedule.gamma ** ((round_number - 1) // schedule.step))
        case "cosine":
            progress = (round_number - 1) / max(federation.total_rounds - 1, 1)
            return lr * (schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * progress)) / 2)
        case _:
            return lr


def train(
    network: Network,
    examples: Examples,
    loss: Loss,
    federation: FederationSpec,
    *,
    round_number: int,
    position: Position,
    optimizer: OptimizerState | None,
    generator: Callable[[int], np.random.Generator],
    transform: GradientTransform | None = None,
) -> Session:
    """Train from the network's present weights for the task's local epochs or updates.

    Each update: the batch's mean gradient, ``transform``, clipping to ``clip_norm``, then the optimizer's step.
    Raises DataError where there are no rows, or the loss is no longer finite.
    """
    import torch

    rows = len(examples)
    if rows == 0:
        raise DataError("there are no training rows", remedy="give the site data, or leave it out of the task")
    size = rows if federation.batch_size == "full" else min(federation.batch_size, rows)
    updates = federation.local_updates or (federation.local_epochs or 1) * updates_per_epoch(rows, size)
    stepper, lr = local_optimizer(federation, optimizer), learning_rate(federation, round_number)
    features, targets = torch.from_numpy(examples.features), torch.from_numpy(examples.targets)
    network.module.train()
    with one_thread():
        for batch, after in islice(batches(rows, size, position, generator), updates):
            index = torch.from_numpy(batch)
            network.gradient.zero_()
            loss(network.module(features[index]), targets[index]).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                if transform is not None:
                    transform(network.gradient, network.weights)
                if federation.clip_norm is not None:
                    _clip(network.gradient, federation.clip_norm)
                stepper.step(network.weights, network.gradient, lr)
            position = after
    weights = network.vector()
    if not np.isfinite(weights).all():
        raise DataError("training diverged: the weights are no longer finite", remedy="lower federation.lr")
    return Session(Trained(weights, updates, rows, lr), position, stepper.state())


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch's operations: sums then do not depend on the machine, and small models run faster."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def predict(network: Network, examples: Examples, task_type: str) -> Predictions:
    """Score all rows by the network's present weights, in large batches."""
    import torch

    network.module.eval()
    features = torch.from_numpy(examples.features)
    with torch.no_grad(), one_thread():
        outputs = torch.cat([network.module(part) for part in torch.split(features, _EVALUATION_BATCH)]).double()
    if task_type == "regression":
        scores = outputs.squeeze(-1)
    elif outputs.shape[-1] == 1:
        scores = outputs.squeeze(-1).sigmoid()
    elif outputs.shape[-1] == 2:
        scores = outputs.softmax(-1)[:, 1]
    else:
        scores = outputs.softmax(-1)
    return Predictions(scores.numpy(), examples.targets)


def _clip(gradient: torch.Tensor, norm: float) -> None:
    gradient.mul_((norm / gradient.norm().clamp(min=1e-12)).clamp(max=1.0))
