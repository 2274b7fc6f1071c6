"""A network whose weights and gradients are views into flat vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medfed.core.errors import CodecError

if TYPE_CHECKING:
    import torch

    from medfed.core.messages import Vector


class Network:
    """A ``torch.nn.Module`` over one flat float32 vector: parameters first, then floating-point buffers.

    flat: the vector, shape (parameters + buffers,). weights: its view over the parameters alone.
    gradient: the flat gradient, shape (parameters,); backward passes accumulate into it. Whole-number buffers, the
    counters of some layers, begin anew with every :meth:`load`.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        import torch

        self.module = module.float()
        parameters = list(module.parameters())
        buffers = [b for b in module.buffers() if b.is_floating_point()]
        self._counters = [(b, b.clone()) for b in module.buffers() if not b.is_floating_point()]
        size = sum(p.numel() for p in parameters)
        self.flat = torch.empty(size + sum(b.numel() for b in buffers))
        self.weights = self.flat[:size]
        self.gradient = torch.zeros(size)
        position = 0
        for tensor in [*parameters, *buffers]:
            view = self.flat[position : position + tensor.numel()].view_as(tensor)
            view.copy_(tensor.detach())
            tensor.data = view
            if position < size:
                tensor.grad = self.gradient[position : position + tensor.numel()].view_as(tensor)
            position += tensor.numel()

    @property
    def has_statistics(self) -> bool:
        """Whether the vector holds buffers beside its parameters: running means and variances, say."""
        return self.flat.numel() > self.weights.numel()

    @property
    def size(self) -> int:
        """The length of the flat vector."""
        return self.flat.numel()

    def load(self, weights: Vector) -> None:
        """Take over a flat vector. Raises CodecError where its length or type is another model's."""
        if weights.dtype != np.float32 or weights.shape != (self.size,):
            raise CodecError(f"the model has {self.size} weights, but {weights.dtype}{list(weights.shape)} came")
        np.copyto(self.flat.numpy(), weights)
        for buffer, initial in self._counters:
            buffer.copy_(initial)

    def vector(self) -> Vector:
        """A copy of the flat vector."""
        copy: Vector = self.flat.numpy().copy()
        return copy
