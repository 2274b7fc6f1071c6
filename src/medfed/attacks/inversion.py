"""Analytic inversion of a linear layer: Phong et al. 2017, "Privacy-Preserving Deep Learning via Additively
Homomorphic Encryption", Section 3, and Geiping et al. 2020, Proposition 3.1.

Where z = W x + b, the gradient of a single record is ∂L/∂W_i = (∂L/∂z_i) x and ∂L/∂b_i = ∂L/∂z_i: their ratio is the
record itself. Of several records it is a mean, in which a record stands out only where it alone moves a neuron.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.attacks.intervals import proportion
from medfed.attacks.layers import first_linear
from medfed.attacks.results import Inversion
from medfed.attacks.victim import Update, Victim
from medfed.core.examples import Examples

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-3
"""A record is recovered where the distance to it is at most this share of its norm."""

_MOVED = 1e-12


def applies(victim: Victim, records: Examples) -> bool:
    """Whether the network's first layer is a linear one with a bias, which reads the record itself."""
    return first_linear(victim.network, records.features) is not None


def invert(victim: Victim, alone: Sequence[Update], updates: Sequence[Update]) -> Inversion:
    """The share of records recovered: of those sent alone, and of those behind updates as the task sends them."""
    singles = [recovered(_candidates(victim, update), update.records.features) for update in alone]
    candidates = [_candidates(victim, update) for update in updates]
    found = [recovered(each, update.records.features) for each, update in zip(candidates, updates, strict=True)]
    return Inversion(
        single=proportion(sum(singles), len(alone)),
        update=proportion(sum(found), sum(len(update.records) for update in updates)),
        candidates=sum(map(len, candidates)),
        updates=max(update.updates for update in updates),
    )


def _candidates(victim: Victim, update: Update) -> NDArray[np.float64]:
    places = first_linear(victim.network, update.records.features)
    assert places is not None  # noqa: S101 - see applies
    gradient = victim.gradient(update)
    return candidates(gradient[places[0]], gradient[places[1]])


def candidates(weight: torch.Tensor, bias: torch.Tensor) -> NDArray[np.float64]:
    """(neurons that moved, inputs): ∂L/∂W_i / ∂L/∂b_i."""
    moved = bias.abs() > _MOVED
    found: NDArray[np.float64] = (weight[moved].double() / bias[moved].double()[:, None]).numpy()
    return found


def recovered(found: NDArray[np.float64], records: NDArray[np.float32]) -> int:
    """How many records (n, …) have a candidate within the tolerance."""
    if not len(found):
        return 0
    flat = records.reshape(len(records), -1).astype(np.float64)
    norms = np.linalg.norm(flat, axis=1)
    nearest = [np.linalg.norm(found - record, axis=1).min() for record in flat]
    return int((np.array(nearest) <= TOLERANCE * norms).sum())
