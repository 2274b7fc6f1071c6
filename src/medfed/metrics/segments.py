"""The predictions of several sites, one after another, so that one pass measures them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Predictions


@dataclass(frozen=True, eq=False)
class Segments:
    """The rows of several sites: ``lengths[i]`` rows of site i follow those of site i − 1."""

    lengths: NDArray[np.int64]

    @cached_property
    def site(self) -> NDArray[np.int64]:
        """The index of each row's site."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """Each site's sum of its rows' values, in the values' own type; 0 for a site without rows."""
        total = np.zeros(len(self.lengths), values.dtype)
        occupied = self.lengths > 0
        if len(values):
            total[occupied] = np.add.reduceat(values, (np.cumsum(self.lengths) - self.lengths)[occupied])
        return total


def joined(several: Sequence[Predictions]) -> tuple[Predictions, Segments]:
    """All rows of several sites, and which are whose."""
    if len(several) == 1:
        rows = several[0]
    else:
        rows = Predictions(np.concatenate([p.scores for p in several]), np.concatenate([p.targets for p in several]))
    return rows, Segments(np.array([len(p.targets) for p in several], dtype=np.int64))
