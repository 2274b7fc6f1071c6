"""One round of local training of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medfed.core.errors import DataError
from medfed.core.messages import Vector
from medfed.core.protocols import GradientTransform, Trained
from medfed.models.network import Network
from medfed.models.optimizers import OptimizerState
from medfed.models.stacked.arrangement import Arrangement
from medfed.models.stacked.choice import kernel_of
from medfed.models.stacked.kernel import Kernel
from medfed.models.stacked.padding import Member, Plan, padded_size, plan, runs
from medfed.models.stacked.updates import Updates, leaves_of, updates_of
from medfed.models.training import Session, learning_rate, one_thread
from medfed.spec.task import FederationSpec


class StackTrainer:
    """Trains sites of one task together; each comes out as :func:`medfed.models.training.train` gives it, to 1e-6."""

    def __init__(self, network: Network, task_type: str, federation: FederationSpec, classes: int) -> None:
        self._network = network
        self._task_type = task_type
        self._federation = federation
        self._classes = classes
        self._kernels: dict[tuple[int, ...], Kernel] = {}

    def train(
        self,
        weights: Vector,
        members: Sequence[Member],
        *,
        round_number: int,
        transform: GradientTransform | None = None,
    ) -> list[Session]:
        """Train every member from the same flat weights for the task's local epochs or updates.

        ``transform`` takes tensors (s, d), a row a member in their order, which is also that of the result. Raises
        DataError where a member has no rows or its weights are no longer finite, CodecError for another model's
        weights.
        """
        import torch

        self._network.load(weights)
        lr = learning_rate(self._federation, round_number)
        kernel = self._kernel(members[0].examples.features.shape[1:])
        plans = [plan(member, self._federation, self._classes) for member in members]
        order = sorted(range(len(members)), key=lambda k: -plans[k].updates)
        arrangement = Arrangement(np.argsort(order), kernel.columns)
        with one_thread(), torch.no_grad():
            start = arrangement.columns_of(self._network.weights)
            leaves = leaves_of(kernel, start.expand(kernel.padded_sites(len(members)), -1))
            arranged = None if transform is None else arrangement.stacked(transform)
            updates = updates_of(kernel, leaves, lr, self._federation, arranged)
            self._run(updates, kernel, [plans[k] for k in order])
            trained = arrangement.given(updates.weights()).numpy()
            moments = [arrangement.given(moment).numpy() for moment in updates.moments()]
        if not np.isfinite(trained).all():
            raise DataError("training diverged: the weights are no longer finite", remedy="lower federation.lr")
        return [
            Session(
                Trained(trained[k], p.updates, len(p.examples), lr),
                p.table.after,
                OptimizerState(p.updates, tuple(moment[k] for moment in moments)),
            )
            for k, p in enumerate(plans)
        ]

    def _run(self, updates: Updates, kernel: Kernel, plans: Sequence[Plan]) -> None:
        width = padded_size(plans, kernel)
        for active, batches in runs(plans, kernel, width, self._task_type, updates.scale):
            update = updates.segment(active, width)
            for batch in batches:
                update(batch)

    def _kernel(self, input_shape: tuple[int, ...]) -> Kernel:
        if input_shape not in self._kernels:
            self._kernels[input_shape] = kernel_of(self._network, self._task_type, self._federation, input_shape)
        return self._kernels[input_shape]
