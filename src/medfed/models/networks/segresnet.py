"""SegResNet (Myronenko 2018, without the autoencoder) from MONAI, over images or volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REQUIRES = ("imaging",)
IMPORTS = ("monai",)
TASKS = ("segmentation",)

_LEVELS = 4


def build(
    input_shape: tuple[int, ...], outputs: int, *, filters: int = 8, norm: str = "group", dropout: float = 0.0
) -> torch.nn.Module:
    """The network for inputs of shape (channels, height, width) or (channels, depth, height, width), each axis a
    multiple of 8.

    filters: of the first level, doubled at each of the three below. norm: ``group``, ``instance`` or ``batch``
    (:func:`medfed.models.norms.with_norm`). dropout: the share of the first layer's channels that is dropped. Raises
    ValueError for others, and for inputs of another shape.
    """
    from monai.networks.nets.segresnet import SegResNet

    from medfed.models.norms import check_axes, with_norm

    if type(filters) is not int or filters < 1:
        raise ValueError("filters is a whole number from 1 on")
    if not 0 <= dropout < 1:
        raise ValueError("dropout is at least 0 and below 1")
    check_axes("segresnet", input_shape, 2 ** (_LEVELS - 1))
    network: torch.nn.Module = SegResNet(
        spatial_dims=len(input_shape) - 1,
        init_filters=filters,
        in_channels=input_shape[0],
        out_channels=outputs,
        dropout_prob=dropout or None,
        act=("RELU", {"inplace": False}),
        norm="BATCH",
    )
    return with_norm(network, norm)
