"""The trained elements of a network's flat vector, in vectors of their own."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from medfed.models.elements import Elements

if TYPE_CHECKING:
    from medfed.core.messages import Vector


class Restriction:
    """What :class:`medfed.models.network.Network` keeps where it trains some elements alone.

    weights: the trained parameters, shape (p,). Reads and writes go to the network's whole flat vector (D,).
    """

    def __init__(self, elements: Elements, whole: torch.Tensor, parameters: int) -> None:
        """parameters: how many of the whole vector's elements, its first, are parameters."""
        self.elements = elements
        self._whole = whole
        self._places = torch.from_numpy(np.flatnonzero(elements.mask)).to(whole.device)
        count = int(np.count_nonzero(elements.mask[:parameters]))
        self._parameters = self._places[:count]
        self.weights = whole[self._parameters]
        whole[torch.from_numpy(~elements.mask).to(whole.device)] = torch.from_numpy(elements.fixed.copy()).to(whole)

    @property
    def size(self) -> int:
        """d, the trained elements: parameters, then buffers."""
        return self._places.numel()

    @cached_property
    def gradient(self) -> torch.Tensor:
        """The gradient by the trained parameters, shape (p,)."""
        return torch.zeros_like(self.weights)

    def collect(self, gradient: torch.Tensor) -> None:
        """Take over what a backward pass left in the gradient by all parameters."""
        torch.index_select(gradient, 0, self._parameters, out=self.gradient)

    def settle(self) -> None:
        """Give the network its weights after a step."""
        self._whole[self._parameters] = self.weights

    def load(self, chosen: Vector) -> None:
        """Give the network its trained elements (d,)."""
        self._whole[self._places] = torch.from_numpy(chosen.copy()).to(self._whole)
        self.weights.copy_(self._whole[self._parameters])

    def vector(self) -> Vector:
        """A copy of the trained elements (d,)."""
        copy: Vector = self._whole[self._places].numpy(force=True)
        return copy
