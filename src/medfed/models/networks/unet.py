"""U-Net (Ronneberger et al. 2015; residual units after Kerfoot et al. 2018) from MONAI, over images or volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REQUIRES = ("imaging",)
IMPORTS = ("monai",)
TASKS = ("segmentation",)


def build(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    channels: Sequence[int] = (16, 32, 64, 128),
    units: int = 2,
    norm: str = "instance",
    dropout: float = 0.0,
) -> torch.nn.Module:
    """The network for inputs of shape (channels, height, width) or (channels, depth, height, width).

    channels: the width of each level; every level but the first halves each axis, so that an axis is a multiple of
    2^(levels − 1). units: residual units a level, 0 for plain convolutions. norm: ``instance``, ``group`` or ``batch``
    (:func:`medfed.models.norms.with_norm`). dropout: the share that a layer drops. Raises ValueError for others, and
    for inputs of another shape.
    """
    from monai.networks.nets.unet import UNet

    from medfed.models.norms import check_axes, with_norm

    if len(channels) < 2 or any(type(width) is not int or width < 1 for width in channels):
        raise ValueError("channels takes a list of two or more positive widths, such as [16, 32, 64]")
    if type(units) is not int or units < 0:
        raise ValueError("units is a whole number from 0 on")
    if not 0 <= dropout < 1:
        raise ValueError("dropout is at least 0 and below 1")
    check_axes("unet", input_shape, 2 ** (len(channels) - 1))
    network: torch.nn.Module = UNet(
        spatial_dims=len(input_shape) - 1,
        in_channels=input_shape[0],
        out_channels=outputs,
        channels=tuple(channels),
        strides=(2,) * (len(channels) - 1),
        num_res_units=units,
        norm="BATCH",
        dropout=dropout,
    )
    return with_norm(network, norm)
