"""The gradient of the losses by the network's outputs.

All three losses have the same form of it: with outputs z, targets t and ℓ the loss of one row, ∂ℓ/∂z = κ (μ(z) − t),

- squared error: μ(z) = z, κ = 2;
- binary cross-entropy on one logit: μ(z) = σ(z), κ = 1;
- cross-entropy on several logits: μ(z) = softmax(z), t one-hot, κ = 1.

A batch's loss is Σ_i ω_i ℓ_i / Σ_i ω_i with ω_i the weight of row i's class, so its gradient by z_i is
c_i (μ(z_i) − t_i) with the coefficient c_i = κ ω_i / Σ_j ω_j; and c_i = 0 for padding, for which ω_i = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Residual: TypeAlias = "Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]"
"""(outputs z (…, n, k), targets t (…, n, 1), coefficients c (…, n, 1)) → c (μ(z) − t), shape (…, n, k)."""


def residual(task_type: str) -> Residual:
    """The residual of the task's loss; class indices come as float32."""
    return _identity if task_type == "regression" else _probability


def coefficients(task_type: str, omega: NDArray[np.float32]) -> NDArray[np.float32]:
    """κ ω_i / Σ_j ω_j over the last axis, and 0 where a batch has no rows."""
    kappa = 2 if task_type == "regression" else 1
    total: NDArray[np.float32] = omega.sum(-1, keepdims=True)
    total[total == 0] = 1
    return omega * (np.float32(kappa) / total)


def _identity(z: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return (z - t).mul_(c)


def _probability(z: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    import torch

    if z.shape[-1] == 1:
        return torch.sigmoid(z).sub_(t).mul_(c)
    one_hot = (t == torch.arange(z.shape[-1])).to(z.dtype)
    return torch.softmax(z, -1).sub_(one_hot).mul_(c)
