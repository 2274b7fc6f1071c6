"""Between the order in which sites and weights are given and that in which a stack computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.core.protocols import GradientTransform

if TYPE_CHECKING:
    import torch


class Arrangement:
    """Rows are sites, columns are weights.

    rows: the row of the stack at which each given site stands, shape (s,). columns: the entry of the flat vector that
    each column of the stack holds, shape (d,).
    """

    def __init__(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        import torch

        self._rows = torch.from_numpy(rows)
        self._columns = torch.from_numpy(columns)
        self._positions = torch.from_numpy(np.argsort(columns))

    def columns_of(self, flat: torch.Tensor) -> torch.Tensor:
        """A flat vector (d,) in the order of the stack's columns."""
        return flat.index_select(0, self._columns)

    def given(self, stack: torch.Tensor) -> torch.Tensor:
        """A copy of a stack's tensor (sites of the stack, d) as it is given: (s, d)."""
        return stack.index_select(0, self._rows).index_select(1, self._positions)

    def stacked(self, transform: GradientTransform) -> GradientTransform:
        """A transform of given tensors as one of the stack's."""

        def arranged(gradient: torch.Tensor, weights: torch.Tensor) -> None:
            given = self.given(gradient)
            transform(given, self.given(weights))
            gradient.index_copy_(0, self._rows, given.index_select(1, self._columns))

        return arranged
