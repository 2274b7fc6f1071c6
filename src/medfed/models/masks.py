"""The loss of a segmentation, and the class that it gives each pixel.

Outputs are (n, K, …) over pixels or voxels: K = 1 logit for two classes, else a logit a class; targets are (n, …) class
indices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SMOOTH = 1.0
"""Added to both sides of the Dice coefficient: with it an empty mask, too, has a loss that falls as less is marked."""


def mask_losses(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Each image's loss, (n,): its mean cross-entropy plus its mean soft Dice loss over the classes but the first.

    The soft Dice loss of a class is 1 − (2 Σ p t + 1) / (Σ p + Σ t + 1), with p its probability and t its mask (after
    Milletari et al. 2016; the sum with cross-entropy is that of nnU-Net, Isensee et al. 2021). Dice weighs small
    structures like large ones; where a mask is empty, cross-entropy says which pixels are wrong. weights (C,) weigh the
    cross-entropy by true class, as ``torch.nn.CrossEntropyLoss`` does within an image.
    """
    return _cross_entropy(outputs, targets.long(), weights) + _soft_dice(outputs, targets)


def _soft_dice(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean over classes but the first, (n,); of plain operations, so that each row's gradient can be formed."""
    import torch

    classes = torch.arange(1, max(outputs.shape[1], 2), device=targets.device).view(-1, *[1] * (targets.dim() - 1))
    truth = (targets[:, None] == classes).to(outputs.dtype).flatten(2)
    found = probabilities(outputs)[:, 1:].flatten(2)
    dice = (2 * (found * truth).sum(2) + _SMOOTH) / (found.sum(2) + truth.sum(2) + _SMOOTH)
    return (1 - dice).mean(1)


def _cross_entropy(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    from torch.nn import functional

    if outputs.shape[1] == 1:
        logits = outputs[:, 0]
        each = functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    else:
        each = functional.cross_entropy(outputs, targets, reduction="none")
    if weights is None:
        return each.flatten(1).mean(1)
    weight = weights.to(targets.device)[targets]
    return (each * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)


def most_probable(outputs: torch.Tensor) -> torch.Tensor:
    """The most probable class of each pixel, uint8 (n, …); of two that are equal the later."""
    import torch

    found = outputs[:, 0] >= 0 if outputs.shape[1] == 1 else outputs.argmax(1)
    return found.to(torch.uint8)


def probabilities(outputs: torch.Tensor) -> torch.Tensor:
    """The probability of every class of each pixel, (n, C, …)."""
    import torch

    if outputs.shape[1] > 1:
        return outputs.softmax(1)
    second = outputs.sigmoid()
    return torch.cat([1 - second, second], 1)
