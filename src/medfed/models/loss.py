"""The losses of local training, chosen by the task's type and the network's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Examples
from medfed.models.masks import mask_losses
from medfed.spec.task import FederationSpec

if TYPE_CHECKING:
    import torch

Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
"""(network outputs (n, k), targets (n,)) → the mean loss of the batch; of masks, see :mod:`medfed.models.masks`."""


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean squared error."""
    from torch.nn import functional

    return functional.mse_loss(outputs.squeeze(-1), targets)


def cross_entropy(weights: torch.Tensor | None, kept: float = 1.0) -> Loss:
    """Binary cross-entropy on one logit, or cross-entropy on several; ``weights`` (C,) weighs by true class.

    The weighted mean divides by the sum of the weights in the batch, as ``torch.nn.CrossEntropyLoss`` does. kept: below
    1, the loss of noisy labels (:func:`corrected_entropy`).
    """
    from torch.nn import functional

    if kept < 1.0:

        def corrected(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            each = corrected_entropy(outputs, targets, kept)
            if weights is None:
                return each.mean()
            by_row = weights.to(targets.device)[targets]
            return (each * by_row).sum() / by_row.sum()

        return corrected

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if outputs.shape[-1] > 1:
            return functional.cross_entropy(outputs, targets, weight=_beside(weights, targets))
        logits, truth = outputs.squeeze(-1), targets.to(outputs.dtype)
        if weights is None:
            return functional.binary_cross_entropy_with_logits(logits, truth)
        each = weights.to(targets.device)[targets]
        return functional.binary_cross_entropy_with_logits(logits, truth, each, reduction="sum") / each.sum()

    return loss


def _beside(weights: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor | None:
    return None if weights is None else weights.to(targets.device)


def corrected_entropy(outputs: torch.Tensor, targets: torch.Tensor, kept: float) -> torch.Tensor:
    """Each row's −log(κ p + (1 − κ)/k), shape (n,): of labels that are kept with probability κ, and else any of k.

    The forward correction of Patrini et al. 2017, section 4; p is the probability that the network gives the label.
    """
    classes = max(outputs.shape[-1], 2)
    if outputs.shape[-1] > 1:
        chance = outputs.softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    else:
        chance = (outputs.squeeze(-1) * (2 * targets - 1)).sigmoid()
    return -(kept * chance + (1 - kept) / classes).log()


def row_losses(task_type: str, federation: FederationSpec, kept: float = 1.0) -> Loss:
    """(network outputs (n, k), targets (n,)) → each row's own loss, shape (n,), as differential privacy clips it.

    A declared weight of its true class multiplies a row's loss; there is no mean, and so nothing of other rows in it.
    kept: below 1, of noisy labels.
    """
    import torch
    from torch.nn import functional

    def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.squeeze(-1) - targets).square()

    declared = federation.class_weights
    weights = torch.tensor(declared, dtype=torch.float32) if isinstance(declared, tuple) else None

    def entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if kept < 1.0:
            each = corrected_entropy(outputs, targets, kept)
            return each if weights is None else each * weights.to(targets.device)[targets]
        if outputs.shape[-1] > 1:
            return functional.cross_entropy(outputs, targets, weight=_beside(weights, targets), reduction="none")
        logits = outputs.squeeze(-1)
        each = functional.binary_cross_entropy_with_logits(logits, targets.to(outputs.dtype), reduction="none")
        return each if weights is None else each * weights.to(targets.device)[targets]

    def masked(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return mask_losses(outputs, targets, weights)

    return {"regression": squared, "segmentation": masked}.get(task_type, entropy)


def class_weights(federation: FederationSpec, examples: Examples, classes: int) -> NDArray[np.float32] | None:
    """The task's class weights at a site, shape (C,), or None where all count alike.

    ``balanced`` weighs class c by n / (C · n_c) of the site's own training rows; of masks, of their pixels.
    """
    match federation.class_weights:
        case "none":
            return None
        case "balanced":
            counts = np.bincount(examples.targets.ravel(), minlength=classes)
            return (examples.targets.size / (classes * counts.clip(1))).astype(np.float32)
        case declared:
            return np.array(declared, np.float32)


def local_loss(task_type: str, federation: FederationSpec, examples: Examples, classes: int, kept: float = 1.0) -> Loss:
    """The loss of a site: squared error, or of classes or masks under the task's class weights. kept: as above."""
    import torch

    if task_type == "regression":
        return squared_error
    found = class_weights(federation, examples, classes)
    weights = None if found is None else torch.from_numpy(found)
    if task_type == "segmentation":
        return lambda outputs, targets: mask_losses(outputs, targets, weights).mean()
    return cross_entropy(weights, kept)
