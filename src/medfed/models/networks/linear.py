"""Linear regression: one linear layer, least squares by the task's loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TASKS = ("regression",)


def build(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """``Linear(d, outputs)`` over the flattened input."""
    from torch import nn

    linear = nn.Linear(math.prod(input_shape), outputs)
    return linear if len(input_shape) == 1 else nn.Sequential(nn.Flatten(), linear)
