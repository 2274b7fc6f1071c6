"""The option ``norm`` of networks that come with batch normalisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_GROUPS = 32
"""Of Wu and He 2018, "Group normalization"; fewer where they do not divide the channels."""


def with_norm(network: torch.nn.Module, norm: str) -> torch.nn.Module:
    """The network as it is (``batch``), or each batch normalisation in it replaced by group normalisation (``group``).

    Groups are the greatest common divisor of 32 and the channels. Weights begin at one and offsets at zero in both.
    Raises ValueError for another norm.
    """
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    if norm not in {"batch", "group"}:
        raise ValueError("norm is `batch` or `group`")
    if norm == "group":
        for layer in list(network.modules()):
            for name, part in layer.named_children():
                if isinstance(part, _BatchNorm):
                    channels = part.num_features
                    setattr(layer, name, nn.GroupNorm(math.gcd(_GROUPS, channels), channels, part.eps, part.affine))
    return network
