"""ResNet-18 (He et al. 2016) from MONAI, over images or volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REQUIRES = ("imaging",)
IMPORTS = ("monai",)
TASKS = ("classification",)


def build(input_shape: tuple[int, ...], outputs: int, *, norm: str = "batch") -> torch.nn.Module:
    """The 18-layer network for inputs of shape (channels, height, width[, depth]).

    norm: ``batch``, ``group`` or ``instance`` (:func:`medfed.models.norms.with_norm`). Raises ValueError for another
    one, and for inputs of another shape.
    """
    from monai.networks.nets.resnet import resnet18

    from medfed.models.norms import with_norm

    if len(input_shape) not in (3, 4):
        raise ValueError("resnet18 takes images: model.input_size is [channels, height, width]")
    network: torch.nn.Module = resnet18(
        spatial_dims=len(input_shape) - 1, n_input_channels=input_shape[0], num_classes=outputs
    )
    return with_norm(network, norm)
