"""A multilayer perceptron with ReLU between its layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def build(
    input_shape: tuple[int, ...], outputs: int, *, hidden: Sequence[int] = (32,), dropout: float = 0.0
) -> torch.nn.Module:
    """Linear layers of the widths d, *hidden, outputs. Raises ValueError for a width below one or a bad dropout."""
    from torch import nn

    if any(type(width) is not int or width < 1 for width in hidden):
        raise ValueError("hidden takes a list of positive widths, such as [32] or [64, 32]")
    if not 0.0 <= dropout < 1.0:
        raise ValueError("dropout takes a share from 0 to below 1")
    widths = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()] if len(input_shape) > 1 else []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
