"""The same training by pfl-research (0.6): its simulated backend in one process.

It evaluates in the first round alone, which it always does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn

from benchmarks.simulation_parts.raw import batches, loss_of, network, own_order, tensors
from benchmarks.simulation_parts.workloads import SEED, Workload


class Model(nn.Module):
    """The network with the two functions that pfl asks of a model."""

    def __init__(self, work: Workload) -> None:
        super().__init__()
        self.network = network(work)

    def loss(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch."""
        return loss_of(self.network(features), targets)

    @torch.no_grad()
    def metrics(self, features: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        """The loss of some rows."""
        return {"loss": Weighted(self.loss(features, targets).item() * len(targets), len(targets))}


class Rows(PyTorchTensorDataset):
    """A site's training rows; one pass over them is all the batches of a round, shuffled."""

    def __init__(self, work: Workload, index: int) -> None:
        data = tensors(work.site(index).train)
        super().__init__(data, user_id=str(index))
        self._size, self._updates = work.batch, work.updates(len(data[1]))
        self._batches = batches(work, index, data, own_order)

    def iter(self, batch_size: int | None) -> Iterator[Any]:
        """The batches of a round, or all rows to evaluate."""
        return islice(self._batches, self._updates) if batch_size == self._size else iter([self.raw_data])


class Stopwatch(TrainingProcessCallback):
    """Reads the clock after every round."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """The end of a round."""
        self.ends.append(time.monotonic())
        return False, Metrics()


def pfl(work: Workload) -> list[float]:
    """The clock at the end of each round."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    module = Model(work)
    model = PyTorchModel(
        module,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
    )
    rows = [Rows(work, index) for index in range(work.sites)]
    users = FederatedDataset(rows.__getitem__, get_user_sampler("minimize_reuse", range(work.sites)))
    stopwatch = Stopwatch()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=work.rounds,
            train_cohort_size=work.taking_part,
            val_cohort_size=None,
        ),
        SimulatedBackend(users, users, postprocessors=[WeightByDatapoints()]),
        model,
        NNTrainHyperParams(local_batch_size=work.batch, local_num_epochs=1, local_learning_rate=work.lr),
        callbacks=[stopwatch],
    )
    return stopwatch.ends
