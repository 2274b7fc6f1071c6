"""A small convolutional network for small images: two convolutions and a hidden layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TASKS = ("classification",)


def build(input_shape: tuple[int, ...], outputs: int, *, norm: str = "none") -> torch.nn.Module:
    """3×3 convolutions of 32 and 64 channels, each with 2×2 pooling, then linear layers of 64 and ``outputs``.

    norm: ``none``, or normalisation after each convolution: ``batch`` or ``group``. Pooling comes before ReLU, which is
    the same and cheaper. An image of 1×28×28 and one output make 219,649 parameters without normalisation. Raises
    ValueError for another norm, and for inputs of a shape other than (channels, height, width) or below 4×4.
    """
    from torch import nn

    from medfed.models.norms import with_norm

    if len(input_shape) != 3 or min(input_shape[1:]) < 4:
        raise ValueError("cnn takes images of 4×4 or more: model.input_size is [channels, height, width]")
    if norm not in {"none", "batch", "group"}:
        raise ValueError("norm is `none`, `batch` or `group`")

    def block(before: int, after: int) -> list[nn.Module]:
        normal = [] if norm == "none" else [nn.BatchNorm2d(after)]
        return [nn.Conv2d(before, after, 3, padding=1), *normal, nn.MaxPool2d(2), nn.ReLU()]

    channels, height, width = input_shape
    network = nn.Sequential(
        *block(channels, 32),
        *block(32, 64),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 64),
        nn.ReLU(),
        nn.Linear(64, outputs),
    )
    return with_norm(network, "batch" if norm == "none" else norm)
