"""Ditto: Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", Algorithm 1.

Beside the federated model w, which is trained as in FedAvg, each site k keeps a model v_k of its own, which minimises
F_k(v) + (λ/2) ‖v − w_t‖²: λ = 0 is training alone, and a large λ gives the federated model back. v_k never leaves its
site, and is what is measured there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from medfed.algorithms.fedavg import FedAvgState, WeightedDelta, weighted
from medfed.algorithms.fedprox import Anchor, proximal
from medfed.core.messages import Message, Vector
from medfed.core.protocols import Federation, Law, ModelWeights, OwnModel, SiteContext
from medfed.core.steps import Release, step


@dataclass(frozen=True, eq=False)
class Regularizer(Message, wire="ditto.regularizer"):
    """The global weights w_t, shape (d,), and the weight λ of the distance from them."""

    weights: Vector
    lam: float


@step(releases=Release.SUM)
def train_both(site: SiteContext, message: Regularizer) -> WeightedDelta:
    """Train w_k from w_t and contribute its weighted change; train v_k towards w_t, and keep it."""
    shared = site.train(message.weights)
    own = site.recall(OwnModel)
    start = message.weights if own is None else own.weights
    site.keep(OwnModel(site.train(start, proximal(Anchor(message.weights, message.lam))).weights))
    return weighted(shared, message.weights)


@dataclass(frozen=True, eq=False)
class Ditto:
    """Ditto (see the module). lam: the weight λ ≥ 0 of each site's distance from the federated model."""

    REQUIRES: ClassVar = ()
    LAWS: ClassVar = frozenset({Law.SITE_ORDER, Law.RESUME})
    STEPS: ClassVar = (train_both,)
    ASKS: ClassVar = False
    PLAIN_SGD: ClassVar = False
    AVERAGES: ClassVar = True
    OWN_MODELS: ClassVar = True

    initial: Vector
    rounds: int
    tolerance: float = 0.0
    lam: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.lam < math.inf:
            raise ValueError("lam takes a finite number of 0 or more")

    def initialize(self, fed: Federation) -> FedAvgState:
        """The initial weights."""
        return FedAvgState(0, self.initial, float("inf"))

    def round(self, fed: Federation, state: FedAvgState) -> FedAvgState:
        """The weighted mean of the sites' w_k, as in FedAvg."""
        total = fed.sum(train_both, Regularizer(state.weights, self.lam), sites=fed.cohort())
        return state.advance(total.delta, 1 / total.rows)

    def done(self, state: FedAvgState) -> bool:
        """After ``rounds`` rounds, or when the weights change by no more than ``tolerance``."""
        return state.round >= self.rounds or state.change <= self.tolerance

    def result(self, state: FedAvgState) -> ModelWeights:
        """The federated weights w; what a site measures is its own v_k."""
        return ModelWeights(state.weights)


ALGORITHM = Ditto
