"""Batches computed in pieces, for less memory: the gradients of the pieces add up to the batch's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medfed.core.examples import Examples
from medfed.models.loss import class_weights
from medfed.spec.task import FederationSpec

if TYPE_CHECKING:
    import torch


def row_weights(federation: FederationSpec, examples: Examples) -> torch.Tensor | None:
    """The weight of each class in a batch's mean loss, where batches are computed in pieces; None: rows count alike,
    as images with masks do."""
    import torch

    if federation.accumulate == 1 or federation.class_weights == "none" or examples.targets.ndim > 1:
        return None
    found = class_weights(federation, examples, int(examples.targets.max()) + 1)
    return None if found is None else torch.from_numpy(found)


def pieces(
    inputs: torch.Tensor, truth: torch.Tensor, count: int, weights: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """A batch in ``count`` pieces or fewer, each with its share in the batch's mean; None is all of it.

    The sum of the pieces' gradients, by these shares, is the batch's own where the layers treat rows by themselves.
    """
    if count == 1 or len(truth) == 1:
        yield inputs, truth, None
        return
    of_rows = truth.new_ones(len(truth), dtype=inputs.dtype) if weights is None else weights.to(truth.device)[truth]
    for some, labels, shares in zip(*(each.tensor_split(count) for each in (inputs, truth, of_rows)), strict=True):
        if len(labels):
            yield some, labels, shares.sum() / of_rows.sum()
