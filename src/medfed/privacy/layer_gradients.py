"""What the rows' gradients are in one layer, from its inputs a and the loss's gradient b by its outputs.

With T places of the outputs (pixels, tokens), p channels of the outputs and d weights of each, a row's gradient of the
weight is Σ_t b_t a_tᵀ (p, d). Its norm is found in one of three ways, whichever is cheapest:

- T = 1: ‖b aᵀ‖² = ‖b‖² ‖a‖² (Goodfellow 2015);
- few places: Σ_{t,u} (b_t · b_u)(a_t · a_u), of T² numbers (Bu et al. 2022, "Scalable and efficient training of large
  convolutional neural networks with differential privacy": ghost norms, mixed by layer);
- many: the gradient is formed, of p·d numbers.

In a convolution a_t is the patch of the image that output t looks at. All is computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, TypeAlias

import torch
from torch import nn
from torch.nn import functional

Kept: TypeAlias = "torch.Tensor | None"
"""The rows whose gradients are finite, as booleans (n,); None: all."""

_PATCHES = 2**21
"""Numbers of patches that are formed at once: 8 MiB, which caches hold."""


class LayerGradients(Protocol):
    """The rows' gradients by one layer's parameters."""

    squared_norms: torch.Tensor
    """‖g_i‖², shape (n,)."""

    def sums(self, scale: torch.Tensor, kept: Kept) -> Iterator[torch.Tensor]:
        """Σ_i scale_i · g_i over the kept rows, flat, for each parameter in order. scale: shape (rows kept,)."""
        ...


def layer_gradients(layer: nn.Module, entering: torch.Tensor, slope: torch.Tensor) -> LayerGradients:
    """From a layer's inputs (n, …) and the gradient of the sum of the losses by its outputs (n, …)."""
    has_bias = layer.bias is not None
    if isinstance(layer, nn.GroupNorm):
        normal = functional.group_norm(entering, layer.num_groups, eps=layer.eps)
        places = range(2, slope.dim())
        return Formed([_total(slope * normal, places), _total(slope, places)])
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return Convolution(layer, entering, slope)
    if entering.dim() == 2:
        return Product(slope, entering, has_bias)
    slope, entering = slope.flatten(1, -2), entering.flatten(1, -2)
    return Formed([slope.transpose(1, 2) @ entering] + ([slope.sum(1)] if has_bias else []))


def numbers_held(layer: nn.Module, entering: torch.Tensor, leaving: torch.Size) -> int:
    """How many numbers of one row are held for a layer. leaving: the shape of its outputs."""
    held = entering.numel() + 2 * math.prod(leaving)
    if isinstance(layer, nn.Linear) and entering.dim() > 2:
        return held + layer.weight.numel()
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return held + min(layer.weight.numel(), math.prod(leaving[2:]) ** 2)
    return held


class Formed:
    """Gradients that are formed, one tensor (n, …) a parameter."""

    def __init__(self, gradients: list[torch.Tensor]) -> None:
        self._gradients = [each.flatten(1) for each in gradients]
        self.squared_norms = torch.stack([each.square().sum(1) for each in self._gradients]).sum(0)

    def sums(self, scale: torch.Tensor, kept: Kept) -> Iterator[torch.Tensor]:
        """As :class:`LayerGradients`."""
        for each in self._gradients:
            yield scale @ _of(kept, each)


class Product:
    """A linear layer of one place: b (n, p), a (n, d)."""

    def __init__(self, b: torch.Tensor, a: torch.Tensor, has_bias: bool) -> None:
        self._b, self._a, self._has_bias = b, a, has_bias
        self.squared_norms = b.square().sum(1) * (a.square().sum(1) + has_bias)

    def sums(self, scale: torch.Tensor, kept: Kept) -> Iterator[torch.Tensor]:
        """As :class:`LayerGradients`."""
        b = _of(kept, self._b)
        yield ((b * scale.unsqueeze(1)).T @ _of(kept, self._a)).flatten()
        if self._has_bias:
            yield scale @ b


_Conv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d


class Convolution:
    """A convolution over one to three dimensions. b (n, p, …), a the image (n, channels, …)."""

    def __init__(self, layer: _Conv, a: torch.Tensor, b: torch.Tensor) -> None:
        self._layer, self._a, self._b = layer, a, b
        self._bias = None if layer.bias is None else _total(b, range(2, b.dim()))
        places, channels = math.prod(b.shape[2:]), b.shape[1]
        slopes = b.movedim(1, -1).reshape(len(b), places, channels)
        forms = places**2 > self._layer.weight.numel()
        pieces = [_gradients(*each) if forms else _norms(*each) for each in self._pieces(slopes)]
        self._formed = torch.cat(pieces) if forms else None
        self.squared_norms = self._formed.square().sum(1) if self._formed is not None else torch.cat(pieces)
        if self._bias is not None:
            self.squared_norms = self.squared_norms + self._bias.square().sum(1)

    def sums(self, scale: torch.Tensor, kept: Kept) -> Iterator[torch.Tensor]:
        """As :class:`LayerGradients`."""
        layer = self._layer
        if self._formed is not None:
            found = (scale @ _of(kept, self._formed)).view(layer.out_channels, *layer.kernel_size, layer.in_channels)
            yield found.movedim(-1, 1).flatten()
        else:
            scaled = _of(kept, self._b) * scale.view(-1, *[1] * (self._b.dim() - 1))
            dimensions, only_weight = self._b.dim() - 2, [False, True, False]
            yield torch.ops.aten.convolution_backward(
                *(scaled, _of(kept, self._a), layer.weight, None, layer.stride, layer.padding, layer.dilation),
                *(False, [0] * dimensions, 1, only_weight),
            )[1].flatten()
        if self._bias is not None:
            yield scale @ _of(kept, self._bias)

    def _pieces(self, slopes: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Slopes (m, T, p) and patches (m, T, d) of a few rows at a time."""
        size = max(1, _PATCHES // (slopes.shape[1] * self._layer.weight[0].numel()))
        for b, a in zip(torch.split(slopes, size), torch.split(self._a, size), strict=True):
            yield b, _patches(a, self._layer)


def _gradients(b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Σ_t b_t a_tᵀ of each row, flat: (m, p·d)."""
    return (b.transpose(1, 2) @ a).flatten(1)


def _norms(b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Σ_{t,u} (b_t · b_u)(a_t · a_u) of each row, (m,): not below 0, which rounding may bring."""
    return ((b @ b.transpose(1, 2)) * (a @ a.transpose(1, 2))).sum((1, 2)).clamp(min=0)


def _patches(images: torch.Tensor, layer: _Conv) -> torch.Tensor:
    """What each output looks at, (m, T, kernel places · channels): a copy of a view that repeats places."""
    assert not isinstance(layer.padding, str)  # noqa: S101 - such layers go row by row
    margins = [margin for size in reversed(layer.padding) for margin in (size, size)]
    padded = functional.pad(images.movedim(1, -1), (0, 0, *margins)).contiguous()
    row, *steps, _ = padded.stride()
    spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    out = [(size - span) // s + 1 for size, span, s in zip(padded.shape[1:-1], spans, layer.stride, strict=True)]
    between: list[int] = [step * s for step, s in zip(steps, layer.stride, strict=True)]
    within: list[int] = [step * d for step, d in zip(steps, layer.dilation, strict=True)]
    view = padded.as_strided(
        (len(images), *out, *layer.kernel_size, layer.in_channels), (row, *between, *within, 1), padded.storage_offset()
    )
    return view.reshape(len(images), math.prod(out), -1)


def _total(values: torch.Tensor, places: range) -> torch.Tensor:
    """Values (n, p, …) summed over their places: (n, p)."""
    return values.sum(tuple(places)) if places else values


def _of(kept: Kept, values: torch.Tensor) -> torch.Tensor:
    return values if kept is None else values[kept]
