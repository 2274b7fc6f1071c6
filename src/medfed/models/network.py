"""A network whose weights and gradients are views into flat vectors."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medfed.core.errors import CodecError
from medfed.models.elements import EVERYTHING, Elements

if TYPE_CHECKING:
    import torch

    from medfed.core.messages import Vector
    from medfed.models.restriction import Restriction


class Network:
    """A ``torch.nn.Module`` over one flat float32 vector: parameters first, then floating-point buffers.

    flat: the vector, shape (parameters + buffers,). Where some elements alone are trained (:meth:`restrict`), what goes
    in and out is of these, and so are :attr:`weights` and :attr:`gradient`. Whole-number buffers, the counters of some
    layers, begin anew with every :meth:`load`.
    """

    def __init__(self, module: torch.nn.Module, weights: Vector | None = None) -> None:
        """weights: the vector that the module takes its values from, and its memory where that can be written.

        Raises CodecError where its length or type is another model's.
        """
        import torch

        self.module = module.float()
        self._parameters = list(module.parameters())
        self._buffers = [b for b in module.buffers() if b.is_floating_point()]
        self._counters = [(b, b.clone()) for b in module.buffers() if not b.is_floating_point()]
        size = sum(p.numel() for p in self._parameters)
        length = size + sum(b.numel() for b in self._buffers)
        self.flat = torch.empty(length) if weights is None else torch.from_numpy(np.require(weights, requirements="W"))
        _check(self.flat.numpy(), length)
        self._weights = self.flat[:size]
        position = 0
        for tensor in [*self._parameters, *self._buffers]:
            view = self.flat[position : position + tensor.numel()].view_as(tensor)
            if weights is None:
                view.copy_(tensor.detach())
            tensor.data = view
            position += tensor.numel()
        self._format: torch.memory_format | None = None
        self._restriction: Restriction | None = None

    @property
    def device(self) -> torch.device:
        """Where the vector is."""
        return self.flat.device

    def move(self, device: torch.device) -> None:
        """Train and predict there from now on; vectors go in and out as before. Before any restriction."""
        if device == self.device:
            return
        self.flat, position = self.flat.to(device), 0
        self._weights = self.flat[: self._weights.numel()]
        for tensor in [*self._parameters, *self._buffers]:
            tensor.data = self.flat[position : position + tensor.numel()].view_as(tensor)
            position += tensor.numel()
        for counter, _ in self._counters:
            counter.data = counter.to(device)

    @property
    def weights(self) -> torch.Tensor:
        """The trained parameters, shape (parameters,), which an optimizer steps in place."""
        return self._weights if self._restriction is None else self._restriction.weights

    @property
    def gradient(self) -> torch.Tensor:
        """The gradient by :attr:`weights`, shape (parameters,); see :meth:`collect`."""
        return self._gradient if self._restriction is None else self._restriction.gradient

    @property
    def elements(self) -> Elements:
        """Those that are trained (see :meth:`restrict`)."""
        return EVERYTHING if self._restriction is None else self._restriction.elements

    @cached_property
    def _gradient(self) -> torch.Tensor:
        """The flat gradient by all parameters, into which backward passes accumulate from first use on."""
        import torch

        flat, position = torch.zeros_like(self._weights), 0
        for parameter in self._parameters:
            view = flat[position : position + parameter.numel()].view_as(parameter)
            if parameter.grad is not None:
                view.copy_(parameter.grad)
            parameter.grad = view
            position += parameter.numel()
        return flat

    def clear_gradient(self) -> None:
        """Let the next backward passes begin with zeros."""
        self._gradient.zero_()

    def collect(self) -> None:
        """After backward passes: :attr:`gradient` is what they left."""
        if self._restriction is not None:
            self._restriction.collect(self._gradient)

    def settle(self) -> None:
        """After a step: the layers compute by the present :attr:`weights`."""
        if self._restriction is not None:
            self._restriction.settle()

    def forget_gradient(self) -> None:
        """Free the flat gradient; the next backward passes begin with zeros."""
        self.__dict__.pop("_gradient", None)
        for parameter in self._parameters:
            parameter.grad = None

    def restrict(self, elements: Elements) -> None:
        """Train these elements alone from now on; the others take the values that come with them.

        Raises CodecError where they are another network's.
        """
        if elements.same(self.elements):
            return
        mask = elements.mask
        if not elements.everything and len(mask) != self.flat.numel():
            raise CodecError(f"the model has {self.flat.numel()} weights, and the trained ones are of {len(mask)}")
        self.forget_gradient()
        position = 0
        for parameter in self._parameters:
            parameter.requires_grad_(elements.everything or bool(mask[position : position + parameter.numel()].any()))
            position += parameter.numel()
        if elements.everything:
            self._restriction = None
            return
        from medfed.models.restriction import Restriction

        self._restriction = Restriction(elements, self.flat, self._weights.numel())

    def begin_training(self) -> None:
        """Put the layers into training mode; those whose running statistics are not trained stay as in evaluation."""
        self.module.train()
        if self._restriction is None:
            return
        fixed = {id(b) for b, trained in zip(self._buffers, self._trained_buffers(), strict=True) if not trained}
        for layer in self.module.modules():
            if any(id(buffer) in fixed for buffer in layer.buffers(recurse=False)):
                layer.eval()

    def _trained_buffers(self) -> list[bool]:
        mask = self._restriction.elements.mask if self._restriction is not None else None
        position, found = self._weights.numel(), []
        for buffer in self._buffers:
            found.append(mask is None or bool(mask[position : position + buffer.numel()].any()))
            position += buffer.numel()
        return found

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
        modes = [(layer, layer.training) for layer in self.module.modules()]
        self.module.eval()
        try:
            with torch.no_grad():
                self.module(inputs.new_zeros(1, *inputs.shape[1:]).to(memory_format=channels_last))
        except RuntimeError:
            return torch.preserve_format
        finally:
            for layer, training in modes:
                layer.training = training
        return channels_last

    @property
    def has_statistics(self) -> bool:
        """Whether the vector holds buffers beside its parameters: running means and variances, say."""
        return self.size > self.weights.numel()

    @property
    def size(self) -> int:
        """The length of the flat vector."""
        return self.flat.numel() if self._restriction is None else self._restriction.size

    def load(self, weights: Vector) -> None:
        """Take over a flat vector. Raises CodecError where its length or type is another model's."""
        _check(weights, self.size)
        if self._restriction is None:
            _copy(self.flat, weights)
        else:
            self._restriction.load(weights)
        for buffer, initial in self._counters:
            buffer.copy_(initial)

    def vector(self) -> Vector:
        """A copy of the flat vector."""
        if self._restriction is not None:
            return self._restriction.vector()
        copy: Vector = self.flat.numpy(force=True).copy()
        return copy


def _copy(flat: torch.Tensor, weights: Vector) -> None:
    """Overwrite a tensor anywhere by a vector, which may be one that cannot be written."""
    if flat.device.type == "cpu":
        np.copyto(flat.numpy(), weights)
        return
    import torch

    flat.copy_(torch.from_numpy(weights.copy()))


def _check(weights: Vector, length: int) -> None:
    if weights.dtype != np.float32 or weights.shape != (length,):
        raise CodecError(f"the model has {length} weights, but {weights.dtype}{list(weights.shape)} came")
