"""What a stack's arithmetic needs of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Batch: TypeAlias = "tuple[torch.Tensor, torch.Tensor, torch.Tensor]"
"""One update of s sites: features (s, n, d), targets (s, n, 1) and coefficients (s, n, 1), all float32."""

OnBatch: TypeAlias = Callable[[Batch], None]
"""What is done with one batch of every site."""


class Kernel(Protocol):
    """Gradients of several copies of one network at once.

    Its weights are *leaves*: contiguous tensors with a leading axis of sites, one a layer or a parameter.
    columns: where the entries of the leaves, one after the other, stand in the network's flat vector; shape (d,).
    ones: columns of ones that it wants at the end of each row of features.
    """

    columns: NDArray[np.int64]
    ones: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each leaf of one site."""
        ...

    def padded_sites(self, sites: int) -> int:
        """The number of sites that it computes for so many."""
        ...

    def padded_rows(self, rows: int) -> int:
        """The rows of a batch that it computes for so many."""
        ...

    def bind(self, leaves: list[torch.Tensor], into: list[torch.Tensor], rows: int, *, keep: bool) -> OnBatch:
        """The gradients of batches of so many rows at ``leaves``, (∂z/∂w)ᵀ c (μ(z) − t) of each site.

        They are added to ``into``, which may be ``leaves``, or replace it where not ``keep``.
        """
        ...
