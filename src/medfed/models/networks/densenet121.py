"""DenseNet-121 (Huang et al. 2017) from MONAI, over images or volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REQUIRES = ("imaging",)
IMPORTS = ("monai",)
TASKS = ("classification",)

_LEAST = {"batch": 64, "group": 32}
"""An axis is halved five times, and batch normalisation cannot learn from one row of one pixel."""


def build(input_shape: tuple[int, ...], outputs: int, *, norm: str = "batch", dropout: float = 0.0) -> torch.nn.Module:
    """The 121-layer network for inputs of shape (channels, height, width[, depth]), each axis at least 64, or 32
    with group normalisation.

    norm: ``batch``, ``group`` or ``instance`` (:func:`medfed.models.norms.with_norm`). dropout: the share that a dense
    layer drops. Raises ValueError for others, and for inputs of another shape.
    """
    from monai.networks.nets.densenet import DenseNet121

    from medfed.models.norms import with_norm

    least = _LEAST.get(norm, 32)
    if len(input_shape) not in (3, 4) or min(input_shape[1:]) < least:
        raise ValueError(
            f"densenet121 takes images of {least}×{least} or more: model.input_size is [channels, height, width]"
        )
    if not 0 <= dropout < 1:
        raise ValueError("dropout is at least 0 and below 1")
    network: torch.nn.Module = DenseNet121(
        spatial_dims=len(input_shape) - 1, in_channels=input_shape[0], out_channels=outputs, dropout_prob=dropout
    )
    return with_norm(network, norm)
