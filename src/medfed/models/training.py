"""The local training loop: the only one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.core.examples import Examples, Predictions
from medfed.core.protocols import GradientTransform, PrivateGradients, Trained
from medfed.models.accumulation import pieces, row_weights
from medfed.models.allocator import keep_freed_memory
from medfed.models.batches import Position, batches, updates_per_epoch
from medfed.models.loss import Loss
from medfed.models.masks import mask_losses, most_probable, probabilities
from medfed.models.network import Network
from medfed.models.optimizers import OptimizerState, local_optimizer
from medfed.spec.task import FederationSpec

if TYPE_CHECKING:
    import torch

_EVALUATION_ROWS, _EVALUATION_ELEMENTS = 4096, 2**20
"""The most rows and the most input numbers of a batch that is scored: what layers make of them takes memory too."""

_CONVOLVED_ELEMENTS = 2**15
"""The same for convolutions, which make dozens of numbers of each, and gain nothing from larger batches."""


class Teacher(Protocol):
    """What says more of a batch than its labels."""

    def beside(self, loss: Loss, batch: NDArray[np.int64], inputs: torch.Tensor) -> Loss:
        """The loss of a batch: rows' indices, shape (n,), and their inputs (n, …)."""
        ...


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


def updates_of(federation: FederationSpec, rows: int) -> tuple[int, int]:
    """The rows of a batch, and the local updates of a round, at a site with so many training rows."""
    size = rows if federation.batch_size == "full" else min(federation.batch_size, rows)
    return size, federation.local_updates or (federation.local_epochs or 1) * updates_per_epoch(rows, size)


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
    private: PrivateGradients | None = None,
    augment: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
    teacher: Teacher | None = None,
) -> Session:
    """Train from the network's present weights for the task's local epochs or updates.

    Each update: the batch's mean gradient, ``transform``, clipping to ``clip_norm``, then the optimizer's step. Under
    ``precision: bfloat16`` the forward pass is computed in it, and all else in float32. ``private`` draws the batches
    and forms their gradients instead, from the rows' own losses; what follows is then post-processing. ``augment``
    varies each batch's inputs, row by row, and moves masks with them. ``teacher`` adds to the loss what it says of each
    batch, which is not computed in pieces then.
    Raises DataError where there are no rows, or the weights are no longer finite.
    """
    import torch

    rows = len(examples)
    if rows == 0:
        raise DataError("there are no training rows", remedy="give the site data, or leave it out of the task")
    size, updates = updates_of(federation, rows)
    stepper = local_optimizer(federation, optimizer, network.device)
    lr = learning_rate(federation, round_number)
    features, targets = torch.from_numpy(examples.features), torch.from_numpy(examples.targets)
    forward, weights = _forward(network, federation.precision), row_weights(federation, examples)
    network.begin_training()
    if network.has_convolutions:
        keep_freed_memory()
    with one_thread():
        visited = batches(rows, size, position, generator) if private is None else _drawn(private, rows, position)
        for batch, after in islice(visited, updates):
            index = torch.from_numpy(batch)  # a batch of its own memory: a view's alignment would change the last bits
            inputs, truth = features.index_select(0, index), targets.index_select(0, index)
            if augment is not None:
                inputs, truth = augment(inputs, truth)
            inputs, truth = inputs.to(network.device), truth.to(network.device)
            if private is None:
                network.clear_gradient()
                measured = loss if teacher is None else teacher.beside(loss, batch, inputs)
                for some, labels, share in pieces(inputs, truth, federation.accumulate, weights):
                    measured(forward(some), labels).backward(share)  # type: ignore[no-untyped-call]
                network.collect()
            else:
                private.write(network.gradient, network.laid_out(inputs), truth)
            if transform is not None:
                transform(network.gradient, network.weights)
            if federation.clip_norm is not None:
                _clip(network.gradient, federation.clip_norm)
            stepper.step(network.weights, network.gradient, lr)
            network.settle()
            position = after
    network.forget_gradient()
    if not all(math.isfinite(extreme) for extreme in torch.aminmax(network.flat)):
        raise DataError("training diverged: the weights are no longer finite", remedy="lower federation.lr")
    return Session(Trained(network.vector(), updates, rows, lr), position, stepper.state())


def _drawn(private: PrivateGradients, rows: int, position: Position) -> Iterator[tuple[NDArray[np.int64], Position]]:
    """Batches that do not depend on where in the data the site is."""
    for _ in repeat(None):
        yield private.draw(rows), position


def _forward(network: Network, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = network.module(network.laid_out(inputs))
        return outputs

    def in_bfloat16(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(
            inputs.device.type, dtype=torch.bfloat16
        ):  # anew each update, since it keeps the weights it rounded
            outputs = forward(inputs)
        return outputs.float()

    return in_bfloat16 if precision == "bfloat16" else forward


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch's operations: sums then do not depend on the machine, and small models run faster."""
    import torch

    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def predict(network: Network, examples: Examples, task_type: str) -> Predictions:
    """Score all rows by the network's present weights, in large batches of bounded memory."""
    if task_type == "segmentation":
        return _segmented(network, examples)
    return Predictions(_scores(network, examples.features, task_type), examples.targets)


@one_thread()
def predict_many(network: Network, several: Sequence[Examples], task_type: str) -> list[Predictions]:
    """As :func:`predict` for each of several small sites, their rows scored together."""
    if not several or task_type == "segmentation":
        return [predict(network, examples, task_type) for examples in several]
    scores = _scores(network, np.concatenate([examples.features for examples in several]), task_type)
    ends = np.cumsum([len(examples) for examples in several])
    return [Predictions(*each) for each in zip(np.split(scores, ends[:-1]), (e.targets for e in several), strict=True)]


def outputs_in_parts(network: Network, features: NDArray[np.float32]) -> Iterator[torch.Tensor]:
    """The network's outputs for all rows, part after part; no rows are scored as one: not all layers take none.

    To be asked for in one thread, which holds for what is made of each part too.
    """
    import torch

    network.module.eval()
    elements = _CONVOLVED_ELEMENTS if network.has_convolutions else _EVALUATION_ELEMENTS
    rows = min(_EVALUATION_ROWS, elements // math.prod(features.shape[1:]))
    inputs = torch.from_numpy(features if len(features) else np.zeros_like(features, shape=(1, *features.shape[1:])))
    with torch.no_grad():  # of copies, whose memory is aligned: a view's would change the last bits
        for part in torch.split(inputs, max(rows, 1)):
            yield network.module(network.laid_out(part.clone().to(network.device))).cpu()


def _scores(network: Network, features: NDArray[np.float32], task_type: str) -> NDArray[np.float64]:
    import torch

    outputs = torch.cat(list(outputs_in_parts(network, features))).double()
    found: NDArray[np.float64] = _scores_of(outputs, task_type).numpy()[: len(features)]
    return found


def _segmented(network: Network, examples: Examples) -> Predictions:
    """The class of each pixel, and each image's loss; memory holds the outputs of one part at a time."""
    import torch

    scores, losses = np.empty(examples.targets.shape, np.uint8), np.empty(len(examples))
    done = 0
    for outputs in outputs_in_parts(network, examples.features):
        rows = slice(done, min(done + len(outputs), len(examples)))
        truth = torch.from_numpy(examples.targets[rows])
        found = outputs[: len(truth)].float().contiguous()
        scores[rows] = most_probable(found).numpy()
        losses[rows] = mask_losses(found, truth).double().numpy()
        done = rows.stop
    return Predictions(scores, examples.targets, losses)


@one_thread()
def pixel_probabilities(network: Network, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of every class of each pixel, (n, C, …), by a network of segmentation."""
    parts = [probabilities(outputs.float()).numpy() for outputs in outputs_in_parts(network, features)]
    found: NDArray[np.float32] = np.concatenate(parts)[: len(features)]
    return found


def _scores_of(outputs: torch.Tensor, task_type: str) -> torch.Tensor:
    """Scores as in :class:`Predictions` from a network's outputs (n, K)."""
    if task_type == "regression":
        return outputs.squeeze(-1)
    if outputs.shape[-1] == 1:
        return outputs.squeeze(-1).sigmoid()
    if outputs.shape[-1] == 2:
        return outputs.softmax(-1)[:, 1]
    return outputs.softmax(-1)


def _clip(gradient: torch.Tensor, norm: float) -> None:
    gradient.mul_((norm / gradient.norm().clamp(min=1e-12)).clamp(max=1.0))
