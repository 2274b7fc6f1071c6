"""Structured pruning: the units of least norm leave each layer (after Li et al. 2017, "Pruning Filters for Efficient
ConvNets").

A unit is an output channel of a convolution or an output of a linear layer; its norm is the Euclidean one of its
weights. The last layer keeps all of its units. What a removed unit had, weights and bias, is zero and stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import UserError
from medfed.models.elements import Elements
from medfed.models.layers import flat_tensors, head_of

if TYPE_CHECKING:
    import torch

    from medfed.core.messages import Vector
    from medfed.models.network import Network


def pruned_elements(network: Network, whole: Vector, present: Elements, share: float) -> Elements:
    """What is still trained when a share of each layer's units is removed from a model.

    network: one that is trained as a whole; it holds the model afterwards. whole: the model (D,). present: what was
    trained before; layers of which nothing was keep their units. Raises UserError where no layer has units to remove.
    """
    network.load(whole)
    trained = np.ones(whole.size, bool) if present.everything else present.mask.copy()
    values, removed = whole.copy(), units_removed(network.module, share)
    if not removed:
        raise UserError(
            "the network has no convolution and no linear layer to prune before its last one",
            remedy="leave out federation.pruning",
        )
    position = 0
    for name, tensor in flat_tensors(network):
        part = slice(position, position + tensor.numel())
        units = removed.get(name.rpartition(".")[0])
        if units is not None and trained[part].any():
            trained[part].reshape(tensor.shape)[units] = False
            values[part].reshape(tensor.shape)[units] = 0
        position = part.stop
    return Elements.of(values, trained)


def units_removed(module: torch.nn.Module, share: float) -> dict[str, NDArray[np.int64]]:
    """The indices of the units of least norm, by the name of their layer; one unit stays at least."""
    from torch import nn

    head, removed = head_of(module), {}
    for name, layer in module.named_modules():
        if name == head or not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        norms = layer.weight.detach().flatten(1).norm(dim=1).numpy(force=True)
        count = min(round(share * len(norms)), len(norms) - 1)
        removed[name] = np.argsort(norms, kind="stable")[:count]
    return removed
