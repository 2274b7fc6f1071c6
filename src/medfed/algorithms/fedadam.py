"""FedAdam: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2.

The sites' mean change Δ_t is taken as a gradient by Adam at the coordinator:
m_t = β₁ m_{t−1} + (1 − β₁) Δ_t;  v_t = β₂ v_{t−1} + (1 − β₂) Δ_t²;  x_{t+1} = x_t + η m_t / (√v_t + τ),
with m_{−1} = 0, v_{−1} = τ² and no bias correction. The mean is weighted by training rows, as in the paper's
experiments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medfed.algorithms.fedavg import Weights, relative_change, train_locally
from medfed.core.messages import Message, Vector
from medfed.core.protocols import Federation, Law, ModelWeights


@dataclass(frozen=True, eq=False)
class FedAdamState(Message, wire="fedadam.state"):
    """After ``round`` rounds: weights x, moments m and v (each shape (d,)), and the last relative change of x."""

    round: int
    weights: Vector
    m: Vector
    v: Vector
    change: float


@dataclass(frozen=True, eq=False)
class FedAdam:
    """FedAdam (see the module). lr: η; beta1, beta2: β₁, β₂; tau: τ, the degree of adaptivity."""

    REQUIRES: ClassVar = ()
    LAWS: ClassVar = frozenset({Law.SITE_ORDER, Law.RESUME})
    STEPS: ClassVar = (train_locally,)
    ASKS: ClassVar = False
    PLAIN_SGD: ClassVar = False
    AVERAGES: ClassVar = False
    POST_PROCESSES: ClassVar = True
    SHARES_NOISE: ClassVar = True

    initial: Vector
    rounds: int
    tolerance: float = 0.0
    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        positive = 0 < self.lr < math.inf and 0 < self.tau < math.inf
        if not (positive and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError("lr and tau are above 0 and finite; beta1 and beta2 from 0 to below 1")

    def initialize(self, fed: Federation) -> FedAdamState:
        """x_0, m_{−1} = 0, v_{−1} = τ²."""
        zeros = np.zeros_like(self.initial)
        return FedAdamState(0, self.initial, zeros, zeros + np.float32(self.tau**2), float("inf"))

    def round(self, fed: Federation, state: FedAdamState) -> FedAdamState:
        """One step of Adam along Δ_t = Σ n_k Δ_k / Σ n_k."""
        total = fed.sum(train_locally, Weights(state.weights), sites=fed.cohort())
        delta = total.delta / np.float32(total.rows)
        beta1, beta2 = np.float32(self.beta1), np.float32(self.beta2)
        m = beta1 * state.m + (1 - beta1) * delta
        v = beta2 * state.v + (1 - beta2) * np.square(delta)
        x = state.weights + np.float32(self.lr) * m / (np.sqrt(v) + np.float32(self.tau))
        return FedAdamState(state.round + 1, x, m, v, relative_change(state.weights, x))

    def done(self, state: FedAdamState) -> bool:
        """After ``rounds`` rounds, or when the weights change by no more than ``tolerance``."""
        return state.round >= self.rounds or state.change <= self.tolerance

    def result(self, state: FedAdamState) -> ModelWeights:
        """The weights x."""
        return ModelWeights(state.weights)


ALGORITHM = FedAdam
