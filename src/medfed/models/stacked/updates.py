"""The updates of a stack.

Sites stand in the order of falling numbers of updates, so that those still active are always the first ones. The
updates from one change of their number to the next are a *segment*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from medfed.core.protocols import GradientTransform
from medfed.models.optimizers import OptimizerState, local_optimizer
from medfed.models.stacked.kernel import Batch, Kernel, OnBatch
from medfed.spec.task import FederationSpec

if TYPE_CHECKING:
    import torch


class Updates(Protocol):
    """How the sites of a stack go on from one batch of each to the next.

    scale: what the coefficients of the batches are multiplied by.
    """

    scale: float

    def segment(self, active: int, rows: int) -> OnBatch:
        """The update of a segment in which the first ``active`` sites train, in batches padded to so many rows."""
        ...

    def weights(self) -> torch.Tensor:
        """The weights of all sites, shape (sites, d), columns in the order of the kernel's leaves."""
        ...

    def moments(self) -> Sequence[torch.Tensor]:
        """The optimizer's moments after the last segment, each of the shape of :meth:`weights`."""
        ...


def updates_of(
    kernel: Kernel,
    leaves: list[torch.Tensor],
    lr: float,
    federation: FederationSpec,
    transform: GradientTransform | None,
) -> Updates:
    """The task's updates from these leaves on; ``transform`` takes the stack's tensors."""
    changed = federation.momentum or federation.weight_decay or federation.clip_norm or transform is not None
    if federation.optimizer == "sgd" and not changed:
        return Descent(kernel, leaves, lr)
    return Steps(kernel, leaves, lr, federation, transform)


class Descent:
    """w ← w − lr·g, where −lr is in the coefficients and the kernel adds to the weights themselves."""

    def __init__(self, kernel: Kernel, leaves: list[torch.Tensor], lr: float) -> None:
        self.scale = -lr
        self._kernel = kernel
        self._leaves = leaves

    def segment(self, active: int, rows: int) -> OnBatch:
        """As :class:`Updates`."""
        leaves = _first(self._leaves, self._kernel.padded_sites(active))
        return self._kernel.bind(leaves, leaves, rows, keep=True)

    def weights(self) -> torch.Tensor:
        """As :class:`Updates`."""
        return _joined(self._leaves)

    def moments(self) -> Sequence[torch.Tensor]:
        """None at all."""
        return ()


class Steps:
    """The gradient, ``transform``, clipping to ``clip_norm``, then the step of the task's optimizer."""

    def __init__(
        self,
        kernel: Kernel,
        leaves: list[torch.Tensor],
        lr: float,
        federation: FederationSpec,
        transform: GradientTransform | None,
    ) -> None:
        import torch

        self.scale = 1.0
        self._kernel = kernel
        self._leaves = leaves
        self._lr = lr
        self._federation = federation
        self._transform = transform
        self._weights = _joined(leaves)
        self._gradients = [torch.zeros_like(leaf) for leaf in leaves]
        self._optimizer = local_optimizer(federation, None)
        self._moments: list[torch.Tensor] = []
        self._active = 0

    def segment(self, active: int, rows: int) -> OnBatch:
        """As :class:`Updates`."""
        import torch

        self._narrow(active)
        computed = self._kernel.padded_sites(active)
        form_gradient = self._kernel.bind(
            _first(self._leaves, computed), _first(self._gradients, computed), rows, keep=False
        )
        weights, leaves = self._weights[:active], _first(self._leaves, active)
        parts = _split(weights, leaves)

        def update(batch: Batch) -> None:
            form_gradient(batch)
            gradient = _joined(self._gradients)
            if self._transform is not None:
                self._transform(gradient, self._weights)
            gradient = gradient[:active]
            if self._federation.clip_norm is not None:
                _clip(gradient, self._federation.clip_norm)
            self._optimizer.step(weights, gradient, self._lr)
            torch._foreach_copy_(leaves, parts)

        return update

    def weights(self) -> torch.Tensor:
        """As :class:`Updates`."""
        return self._weights

    def moments(self) -> Sequence[torch.Tensor]:
        """As :class:`Updates`."""
        self._narrow(0)
        return self._moments

    def _narrow(self, active: int) -> None:
        """Keep the moments of the sites of the last segment; let the optimizer go on with the first ``active``."""
        import torch

        state = self._optimizer.state()
        self._moments = self._moments or [torch.zeros_like(self._weights) for _ in state.moments]
        for kept, moment in zip(self._moments, state.moments, strict=True):
            kept[: self._active] = torch.from_numpy(moment)
        going_on = OptimizerState(state.steps, tuple(moment[:active] for moment in state.moments))
        self._optimizer = local_optimizer(self._federation, going_on)
        self._active = active


def leaves_of(kernel: Kernel, weights: torch.Tensor) -> list[torch.Tensor]:
    """The leaves of sites with these weights (sites, d), whose columns are in the order of the kernel's leaves."""
    parts = weights.split_with_sizes([math.prod(shape) for shape in kernel.shapes], 1)
    return [part.reshape(-1, *shape).contiguous() for part, shape in zip(parts, kernel.shapes, strict=True)]


def _joined(leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat([leaf.flatten(1) for leaf in leaves], 1)


def _split(joined: torch.Tensor, leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Views of a joined tensor, each of the shape of its leaf."""
    parts = joined.split_with_sizes([leaf[0].numel() for leaf in leaves], 1)
    return [part.view(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]


def _first(tensors: Sequence[torch.Tensor], sites: int) -> list[torch.Tensor]:
    return [tensor[:sites] for tensor in tensors]


def _clip(gradient: torch.Tensor, norm: float) -> None:
    """Scale each row down to the norm where it is longer."""
    import torch

    lengths = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    gradient.mul_((norm / lengths.clamp(min=1e-12)).clamp(max=1.0))
