"""Linear layers and ReLU by batched matrix products, with the backward pass written out.

A layer's leaf is W̃ = [Wᵀ; b], shape (in + 1, out), and each of its inputs h̃ = [h, 1] ends in a one:

    forward    z_l = h̃_l W̃_l,   h_{l+1} = max(z_l, 0)
    backward   ∂W̃_l = h̃_lᵀ g_l,   g_{l−1} = (g_l W_l) · 1[h_l > 0]

from g_L = c (μ(z_L) − t) of the last layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.models.stacked.kernel import Batch, OnBatch
from medfed.models.stacked.residual import Residual

if TYPE_CHECKING:
    import torch
    from torch import nn


def linear_layers(module: nn.Module) -> list[nn.Linear] | None:
    """The layers of a Linear, or of a Sequential of Linear with ReLU between them, perhaps after a Flatten.

    None for any other network.
    """
    from torch import nn

    layers = list(module) if type(module) is nn.Sequential else [module]
    if type(layers[0]) is nn.Flatten and (layers[0].start_dim, layers[0].end_dim) == (1, -1):
        layers = layers[1:]
    linear = [layer for layer in layers[::2] if type(layer) is nn.Linear and layer.bias is not None]
    between = [layer for layer in layers[1::2] if type(layer) is nn.ReLU]
    alternate = len(linear) + len(between) == len(layers) and len(linear) == len(between) + 1
    fits = all(a.out_features == b.in_features for a, b in itertools.pairwise(linear))
    return linear if alternate and fits and len(set(linear)) == len(linear) else None


class DenseKernel:
    """The kernel (see the module) of a network of linear layers."""

    ones = 1

    def __init__(self, layers: Sequence[nn.Linear], residual: Residual) -> None:
        self.shapes = tuple((layer.in_features + 1, layer.out_features) for layer in layers)
        starts = itertools.accumulate((rows * columns for rows, columns in self.shapes[:-1]), initial=0)
        self.columns = np.concatenate(
            [start + _augmented(*shape) for start, shape in zip(starts, self.shapes, strict=True)]
        )
        self._residual = residual

    def padded_sites(self, sites: int) -> int:
        """As many as there are."""
        return sites

    def padded_rows(self, rows: int) -> int:
        """As many as there are."""
        return rows

    def bind(self, leaves: list[torch.Tensor], into: list[torch.Tensor], rows: int, *, keep: bool) -> OnBatch:
        """As :class:`medfed.models.stacked.kernel.Kernel`."""
        import torch

        residual, beta, last = self._residual, int(keep), len(leaves) - 1
        relu_backward = torch.ops.aten.threshold_backward.default
        back = [w[:, :-1].mT for w in leaves]
        hidden = [w.new_ones(len(w), rows, w.shape[-1] + 1) for w in leaves[:-1]]
        outputs = [h[..., :-1] for h in hidden]
        transposed = [h.mT for h in hidden]

        def accumulate(batch: Batch) -> None:
            x, t, c = batch
            h = x
            for layer in range(last):
                torch.clamp_min(torch.bmm(h, leaves[layer]), 0, out=outputs[layer])
                h = hidden[layer]
            g = residual(torch.bmm(h, leaves[last]), t, c)
            for layer in range(last, 0, -1):
                before = torch.bmm(g, back[layer])
                into[layer].baddbmm_(transposed[layer - 1], g, beta=beta)
                g = relu_backward(before, outputs[layer - 1], 0)
            into[0].baddbmm_(x.mT, g, beta=beta)

        return accumulate


def _augmented(rows: int, columns: int) -> NDArray[np.int64]:
    """Where the entries of [Wᵀ; b] stand in [W, b], W of shape (columns, rows − 1) and b of (columns,)."""
    w = np.arange((rows - 1) * columns).reshape(columns, rows - 1)
    b = np.arange((rows - 1) * columns, rows * columns)
    return np.concatenate([w.T, b[None]]).ravel()
