"""Whether the sites of a task can be stacked."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Examples
from medfed.core.rng import generator
from medfed.models.batches import Position
from medfed.models.loss import local_loss
from medfed.models.network import Network
from medfed.models.stacked.padding import Member
from medfed.models.stacked.trainer import StackTrainer
from medfed.models.training import train
from medfed.spec.task import FederationSpec, Privacy, TaskSpec

if TYPE_CHECKING:
    import torch

_TRIAL = FederationSpec.model_validate(
    {"strategy": "fedavg", "rounds": 1, "local_updates": 1, "batch_size": "full", "lr": 1.0}
)


def can_stack(network: Network, task: TaskSpec, input_shape: tuple[int, ...]) -> bool:
    """Whether a stack trains this network as each site alone would. input_shape: that of one row's features.

    Decided by the model and the task alone, never by the sites' data or the machine. No convolutions, which stacking
    slows down; no running statistics or counters (batch normalisation) and no random layers (dropout); float32; an
    optimizer that starts anew every round; no augmentation; no masks; no frozen, pruned or local layers; no teacher;
    and no differential privacy in training. What is left is tried out: a stack of two sites of made-up rows, one
    padded, must make the step that each makes alone.
    """
    federation = task.federation
    if federation.keeps_layers or task.model.freeze or federation.pruning is not None:
        return False
    if federation.distillation is not None:
        return False
    if not can_stack_privately(task.privacy) or task.data.images.augment or task.task_type == "segmentation":
        return False
    if federation.precision != "float32" or federation.keeps_optimizer_state or _never_stacks(network.module):
        return False
    return _stacks_as_alone(network, task.task_type, input_shape)


def can_stack_privately(privacy: Privacy) -> bool:
    """Whether what protects rows, sites or labels lets their sites be trained together."""
    return privacy.record is None and privacy.site is None and privacy.labels is None


def _never_stacks(module: torch.nn.Module) -> bool:
    from torch.nn.modules.conv import _ConvNd
    from torch.nn.modules.dropout import _DropoutNd

    def refused(part: torch.nn.Module) -> bool:
        return isinstance(part, _ConvNd) or (isinstance(part, _DropoutNd) and part.p > 0)

    return any(True for _ in module.buffers()) or any(refused(part) for part in module.modules())


def _stacks_as_alone(network: Network, task_type: str, shape: tuple[int, ...]) -> bool:
    """Whatever a network or its capture may raise says no."""
    import torch

    before = network.vector()
    draw = generator(0, "trial of a stack")
    weights = before + draw.normal(0, 0.05, network.size).astype(np.float32)
    members = [Member(_made_up(draw, task_type, rows, shape), Position(), lambda epoch: draw) for rows in (3, 2)]
    trainer = StackTrainer(network, task_type, _TRIAL, 0 if task_type == "regression" else 2)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("error", ".*performance drop")  # what vmap says where it cannot batch an operation
            together = [session.trained.weights for session in trainer.train(weights, members, round_number=1)]
            alone = [_alone(network, task_type, weights, member) for member in members]
    except Exception:
        return False
    finally:
        network.load(before)
    steps = np.stack(alone) - weights
    return bool(np.abs(np.stack(together) - weights - steps).max() <= 1e-4 * np.abs(steps).max())


def _made_up(draw: np.random.Generator, task_type: str, rows: int, shape: tuple[int, ...]) -> Examples:
    """Rows of features from 0 to 1, which logarithms and tables of embeddings take too."""
    features = draw.random((rows, *shape), np.float32)
    regression = task_type == "regression"
    return Examples(features, draw.random(rows, np.float32) if regression else np.arange(rows) % 2)


def _alone(network: Network, task_type: str, weights: NDArray[np.float32], member: Member) -> NDArray[np.float32]:
    network.load(weights)
    session = train(
        network,
        member.examples,
        local_loss(task_type, _TRIAL, member.examples, classes=2),
        _TRIAL,
        round_number=1,
        position=member.position,
        optimizer=None,
        generator=member.generator,
    )
    return session.trained.weights
