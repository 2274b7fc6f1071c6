"""The option ``norm`` of networks that come with batch normalisation, and the inputs that such networks take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

NORMS = ("batch", "group", "instance")

_GROUPS = 32
"""Of Wu and He 2018, "Group normalization"; fewer where they do not divide the channels."""


def with_norm(network: torch.nn.Module, norm: str) -> torch.nn.Module:
    """The network as it is (``batch``), or each batch normalisation in it replaced (``group``, ``instance``).

    Groups are the greatest common divisor of 32 and the channels; ``instance`` normalises each channel of an image by
    itself (Ulyanov et al. 2016). Weights begin at one and offsets at zero in all. Raises ValueError for another norm.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    if norm not in NORMS:
        raise ValueError(f"norm is one of: {', '.join(NORMS)}")
    if norm != "batch":
        for layer in list(network.modules()):
            for name, part in layer.named_children():
                if isinstance(part, _BatchNorm):
                    setattr(layer, name, _in_place_of(part, norm))
    return network


def _in_place_of(part: _BatchNorm, norm: str) -> torch.nn.Module:
    """A group norm of one channel a group is an instance norm of any number of axes."""
    from torch import nn

    channels = part.num_features
    groups = channels if norm == "instance" else math.gcd(_GROUPS, channels)
    return nn.GroupNorm(groups, channels, part.eps, part.affine)


def check_axes(model: str, input_shape: tuple[int, ...], multiple: int) -> None:
    """Raise ValueError for inputs that are no images or volumes, or whose axes a network cannot halve so often."""
    if len(input_shape) not in (3, 4):
        raise ValueError(
            f"{model} takes images or volumes: model.input_size is [channels, height, width] or "
            "[channels, depth, height, width]"
        )
    if any(axis % multiple or axis < 2 * multiple for axis in input_shape[1:]):
        raise ValueError(
            f"{model} takes images whose axes are multiples of {multiple}, from {2 * multiple} on; resize or crop them "
            "by data.images.transforms"
        )
