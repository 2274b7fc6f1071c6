"""FedProx: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2.

Each site minimises F_k(w) + (μ/2) ‖w − w_t‖², so that sites with unlike data drift less from the global weights
w_t; aggregation is that of FedAvg, which μ = 0 gives back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from medfed.algorithms.fedavg import FedAvgState, WeightedDelta, weighted
from medfed.core.messages import Message, Vector
from medfed.core.protocols import Federation, GradientTransform, Law, ModelWeights, SiteContext, SiteStack
from medfed.core.steps import Release, step, twin

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Anchor(Message, wire="fedprox.anchor"):
    """The global weights w_t, shape (d,), and the weight μ of the proximal term."""

    weights: Vector
    mu: float


@step(releases=Release.SUM)
def train_near(site: SiteContext, message: Anchor) -> WeightedDelta:
    """Train on F_k(w) + (μ/2) ‖w − w_t‖² from w_t; contribute the weighted change."""
    return weighted(site.train(message.weights, proximal(message)), message.weights)


@twin(train_near)
def train_stack(stack: SiteStack, message: Anchor) -> list[WeightedDelta]:
    """:func:`train_near` at several sites at once."""
    return [weighted(trained, message.weights) for trained in stack.train(message.weights, proximal(message))]


def proximal(anchor: Anchor) -> GradientTransform | None:
    """∇F_k(w) → ∇F_k(w) + μ (w − w_t); None for μ = 0, which changes nothing."""
    if not anchor.mu:
        return None
    import torch

    w_t = torch.from_numpy(anchor.weights.copy())

    def transform(gradient: torch.Tensor, weights: torch.Tensor) -> None:
        gradient.add_(weights - w_t[: weights.shape[-1]].to(weights.device), alpha=anchor.mu)

    return transform


@dataclass(frozen=True, eq=False)
class FedProx:
    """FedProx (see the module). mu: the weight μ ≥ 0 of the proximal term."""

    REQUIRES: ClassVar = ()
    LAWS: ClassVar = frozenset({Law.SITE_ORDER, Law.RESUME})
    STEPS: ClassVar = (train_near,)
    ASKS: ClassVar = False
    PLAIN_SGD: ClassVar = False
    AVERAGES: ClassVar = True
    POST_PROCESSES: ClassVar = True
    SHARES_NOISE: ClassVar = True

    initial: Vector
    rounds: int
    tolerance: float = 0.0
    mu: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.mu < math.inf:
            raise ValueError("mu takes a finite number of 0 or more")

    def initialize(self, fed: Federation) -> FedAvgState:
        """The initial weights."""
        return FedAvgState(0, self.initial, float("inf"))

    def round(self, fed: Federation, state: FedAvgState) -> FedAvgState:
        """The weighted mean of the sites' proximal solutions."""
        total = fed.sum(train_near, Anchor(state.weights, self.mu), sites=fed.cohort())
        return state.advance(total.delta, 1 / total.rows)

    def done(self, state: FedAvgState) -> bool:
        """After ``rounds`` rounds, or when the weights change by no more than ``tolerance``."""
        return state.round >= self.rounds or state.change <= self.tolerance

    def result(self, state: FedAvgState) -> ModelWeights:
        """The global weights."""
        return ModelWeights(state.weights)


ALGORITHM = FedProx
