"""Local training under record-level differential privacy beside plain training: rows of ``benchmarks.privacy``.

Both are the product's own loop over the same network and rows, with as many updates and batches as large, on average;
the private one draws its batches, clips each row's gradient and adds noise. Neither counts the planning of the noise.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Row
from medfed.core.examples import Examples
from medfed.core.protocols import PrivateGradients
from medfed.core.rng import generator
from medfed.models.batches import Position
from medfed.models.catalogue import build_network
from medfed.models.loss import cross_entropy, row_losses
from medfed.models.network import Network
from medfed.models.training import train
from medfed.privacy.dpsgd import DpSgd
from medfed.spec.loading import task_of
from medfed.spec.task import TaskSpec

ROWS, CLASSES = 2_000, 10


@dataclass(frozen=True)
class Work:
    """What is trained: the model, the shape of a row, the rows of a batch, the updates timed, and the limit."""

    name: str
    model: dict[str, Any]
    shape: tuple[int, ...]
    batch: int
    updates: int
    limit: float


WORKS = (
    Work("dpsgd/cnn", {"name": "cnn"}, (1, 28, 28), batch=32, updates=20, limit=3.0),
    Work("dpsgd/mlp", {"name": "mlp", "hidden": [64]}, (30,), batch=32, updates=300, limit=3.0),
    Work("dpsgd/resnet18", {"name": "resnet18", "norm": "group"}, (3, 32, 32), batch=32, updates=3, limit=6.5),
)


def training_rows(repetitions: int) -> list[Row]:
    """The rows, each the median over repetitions in which the two alternate."""
    return [_row(work, repetitions) for work in WORKS]


def _row(work: Work, repetitions: int) -> Row:
    features = np.random.default_rng(0).standard_normal((ROWS, *work.shape), np.float32)
    examples = Examples(features, np.random.default_rng(1).integers(0, CLASSES, ROWS))
    task = _task(work)
    network = build_network(task.model, work.shape, CLASSES, 0)
    private = DpSgd(
        network.module,
        row_losses(task.task_type, task.federation),
        clip_norm=1.0,
        noise_multiplier=1.0,
        sampling_rate=work.batch / ROWS,
        expected_batch=work.batch,
    )
    found = np.array(
        [
            (_seconds(network, examples, task, None), _seconds(network, examples, task, private))
            for _ in range(repetitions + 1)
        ][1:]
    )
    plain, noisy = np.median(found, axis=0) / work.updates
    ratio = float(np.median(found[:, 1] / found[:, 0]))
    said = f"an update without privacy: {1000 * plain:.3g} ms; {network.size:,} parameters, batches of {work.batch}"
    return Row(work.name, float(noisy), "s", ratio, work.limit, said)


def _task(work: Work) -> TaskSpec:
    settings = {"strategy": "fedavg", "rounds": 1, "local_updates": work.updates, "batch_size": work.batch, "lr": 0.01}
    return task_of({"task_type": "classification", "model": work.model, "federation": settings}).spec


def _seconds(network: Network, examples: Examples, task: TaskSpec, private: PrivateGradients | None) -> float:
    """The processor's seconds of a round's local training."""
    weights: NDArray[np.float32] = network.vector()
    begun = time.process_time()
    train(
        network,
        examples,
        cross_entropy(None),
        task.federation,
        round_number=1,
        position=Position(),
        optimizer=None,
        generator=lambda epoch: generator(0, "benchmark", "shuffle", epoch),
        private=private,
    )
    taken = time.process_time() - begun
    network.load(weights)
    return taken
