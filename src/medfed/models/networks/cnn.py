"""A small convolutional network for small images: two convolutions and a hidden layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TASKS = ("classification",)


def build(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """3×3 convolutions of 32 and 64 channels, each with 2×2 pooling, then linear layers of 64 and ``outputs``.

    Pooling comes before ReLU, which is the same and cheaper. An image of 1×28×28 and one output make 219,649
    parameters. Raises ValueError for inputs of a shape other than (channels, height, width) or below 4×4.
    """
    from torch import nn

    if len(input_shape) != 3 or min(input_shape[1:]) < 4:
        raise ValueError("cnn takes images of 4×4 or more: model.input_size is [channels, height, width]")
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 64),
        nn.ReLU(),
        nn.Linear(64, outputs),
    )
