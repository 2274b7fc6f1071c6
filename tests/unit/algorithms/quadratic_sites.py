"""A federation in memory whose sites minimise f_i(x) = ½ Σ_j a_ij (x_j − b_ij)² by K exact gradient steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from medfed.core.codec import decode, encode
from medfed.core.messages import add, out_of_bounds
from medfed.core.protocols import Trained


@dataclass
class QuadraticSite:
    """One site: curvatures a, minimum b, the rows that it weighs, its rate and number K of local steps."""

    site: str
    a: Sequence[float]
    b: Sequence[float]
    rows: int
    lr: float
    updates: int
    memory: dict[type, Any] = field(default_factory=dict)

    def train(self, weights, transform=None):
        a, b = (torch.tensor(values, dtype=torch.float32) for values in (self.a, self.b))
        y = torch.from_numpy(weights.copy())
        for _ in range(self.updates):
            gradient = a * (y - b)
            if transform is not None:
                transform(gradient, y)
            y -= self.lr * gradient
        return Trained(y.numpy(), self.updates, self.rows, self.lr)

    def recall(self, kind):
        return self.memory.get(kind)

    def keep(self, memory):
        self.memory[type(memory)] = memory


@dataclass
class QuadraticFederation:
    """Sums in the order of names; every message goes through the codec. cohorts: the sites drawn, round by round."""

    nodes: dict[str, QuadraticSite]
    cohorts: tuple[tuple[str, ...], ...] = ()
    round: int = 0

    @property
    def sites(self):
        return tuple(sorted(self.nodes))

    def cohort(self):
        return self.cohorts[self.round - 1] if self.cohorts else self.sites

    def sum(self, step, message, *, sites=None):
        total = None
        for name in sorted(self.sites if sites is None else sites):
            reply = step.run(self.nodes[name], decode(encode(message), step.message))
            assert out_of_bounds(reply) is None
            total = add(total, decode(encode(reply), step.reply))
        return total


def federation_of(*sites: QuadraticSite, cohorts: tuple[tuple[str, ...], ...] = ()) -> QuadraticFederation:
    return QuadraticFederation({site.site: site for site in sites}, cohorts)


def run_rounds(algorithm, fed: QuadraticFederation, rounds: int) -> list[Any]:
    """The states after 0, 1, … ``rounds`` rounds."""
    states = [algorithm.initialize(fed)]
    for number in range(1, rounds + 1):
        fed.round = number
        states.append(algorithm.round(fed, states[-1]))
    return states


def float32(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, dtype=np.float32)
