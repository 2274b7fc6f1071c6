"""A network whose weights and gradients are views into flat vectors."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medfed.core.errors import CodecError

if TYPE_CHECKING:
    import torch

    from medfed.core.messages import Vector


class Network:
    """A ``torch.nn.Module`` over one flat float32 vector: parameters first, then floating-point buffers.

    flat: the vector, shape (parameters + buffers,). weights: its view over the parameters alone. Whole-number
    buffers, the counters of some layers, begin anew with every :meth:`load`.
    """

    def __init__(self, module: torch.nn.Module, weights: Vector | None = None) -> None:
        """weights: the vector that the module takes its values from, and its memory where that can be written.

        Raises CodecError where its length or type is another model's.
        """
        import torch

        self.module = module.float()
        self._parameters = list(module.parameters())
        buffers = [b for b in module.buffers() if b.is_floating_point()]
        self._counters = [(b, b.clone()) for b in module.buffers() if not b.is_floating_point()]
        size = sum(p.numel() for p in self._parameters)
        length = size + sum(b.numel() for b in buffers)
        self.flat = torch.empty(length) if weights is None else torch.from_numpy(np.require(weights, requirements="W"))
        _check(self.flat.numpy(), length)
        self.weights = self.flat[:size]
        position = 0
        for tensor in [*self._parameters, *buffers]:
            view = self.flat[position : position + tensor.numel()].view_as(tensor)
            if weights is None:
                view.copy_(tensor.detach())
            tensor.data = view
            position += tensor.numel()
        self._format: torch.memory_format | None = None

    def places(self) -> dict[str, slice]:
        """Where in the flat vector each parameter and floating-point buffer stands, by its name in the module."""
        buffers = ((name, b) for name, b in self.module.named_buffers() if b.is_floating_point())
        found, position = {}, 0
        for name, tensor in (*self.module.named_parameters(), *buffers):
            found[name] = slice(position, position + tensor.numel())
            position += tensor.numel()
        return found

    @cached_property
    def gradient(self) -> torch.Tensor:
        """The flat gradient, shape (parameters,), into which backward passes accumulate from first use on."""
        import torch

        flat, position = torch.zeros_like(self.weights), 0
        for parameter in self._parameters:
            view = flat[position : position + parameter.numel()].view_as(parameter)
            if parameter.grad is not None:
                view.copy_(parameter.grad)
            parameter.grad = view
            position += parameter.numel()
        return flat

    def forget_gradient(self) -> None:
        """Free the flat gradient; the next use of :attr:`gradient` begins with zeros."""
        self.__dict__.pop("gradient", None)
        for parameter in self._parameters:
            parameter.grad = None

    @cached_property
    def has_convolutions(self) -> bool:
        """Whether the module has convolutional layers, transposed ones included."""
        from torch.nn.modules.conv import _ConvNd

        return any(isinstance(layer, _ConvNd) for layer in self.module.modules())

    def laid_out(self, inputs: torch.Tensor) -> torch.Tensor:
        """The same inputs (n, …) in the order in memory that the layers are fastest in; results differ by rounding.

        For convolutions over images and volumes that is channels last, unless the module cannot work on it, as one
        cannot that flattens by ``view``, or loses by it: group normalisation then takes longer than convolutions save.
        """
        if not self.has_convolutions:
            return inputs
        if self._format is None:
            self._format = self._fastest_format(inputs)
        return inputs.to(memory_format=self._format)

    def _fastest_format(self, inputs: torch.Tensor) -> torch.memory_format:
        import torch

        channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(inputs.dim())
        if channels_last is None or any(isinstance(layer, torch.nn.GroupNorm) for layer in self.module.modules()):
            return torch.preserve_format
        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                self.module(inputs.new_zeros(1, *inputs.shape[1:]).to(memory_format=channels_last))
        except RuntimeError:
            return torch.preserve_format
        finally:
            self.module.train(training)
        return channels_last

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
        _check(weights, self.size)
        np.copyto(self.flat.numpy(), weights)
        for buffer, initial in self._counters:
            buffer.copy_(initial)

    def vector(self) -> Vector:
        """A copy of the flat vector."""
        copy: Vector = self.flat.numpy().copy()
        return copy


def _check(weights: Vector, length: int) -> None:
    if weights.dtype != np.float32 or weights.shape != (length,):
        raise CodecError(f"the model has {length} weights, but {weights.dtype}{list(weights.shape)} came")
