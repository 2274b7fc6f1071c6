"""Logistic regression: one linear layer whose output is the logit (two classes) or the logits (more)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TASKS = ("classification",)


def build(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """``Linear(d, outputs)`` over the flattened input, so that a seed gives the library's own initial weights."""
    from torch import nn

    linear = nn.Linear(math.prod(input_shape), outputs)
    return linear if len(input_shape) == 1 else nn.Sequential(nn.Flatten(), linear)
