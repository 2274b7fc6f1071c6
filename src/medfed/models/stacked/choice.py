"""Which kernel a network takes."""

from __future__ import annotations

from medfed.models.network import Network
from medfed.models.stacked.captured import CapturedKernel
from medfed.models.stacked.dense import DenseKernel, linear_layers
from medfed.models.stacked.kernel import Kernel
from medfed.models.stacked.residual import residual
from medfed.spec.task import FederationSpec

_REPAYS = 50_000
"""Updates of a run from which on compiling a captured graph takes less time than it saves."""


def kernel_of(network: Network, task_type: str, federation: FederationSpec, input_shape: tuple[int, ...]) -> Kernel:
    """The kernel written for linear layers where the network is made of them, else its captured graph."""
    layers = linear_layers(network.module)
    if layers is not None:
        return DenseKernel(layers, residual(task_type))
    return CapturedKernel(network, input_shape, residual(task_type), compiled=compiling_repays(federation))


def compiling_repays(federation: FederationSpec) -> bool:
    """Whether a run is long enough, by the task alone: an epoch is taken for ten updates."""
    updates = federation.local_updates or 10 * (federation.local_epochs or 1)
    return federation.total_rounds * updates >= _REPAYS
