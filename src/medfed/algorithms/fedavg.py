"""Federated averaging: McMahan et al. 2017, Algorithm 1.

Each site trains from the global weights w_t; the new global weights are the mean of the sites' weights, weighted
by their training rows n_k: w_{t+1} = w_t + Σ_k n_k (w_k − w_t) / Σ_k n_k. With one local update on the full batch
this is FedSGD, which equals pooled gradient descent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medfed.core.halves import in_halves
from medfed.core.messages import Message, Vector, adds
from medfed.core.protocols import Federation, Law, ModelWeights, SiteContext, SiteStack, Trained
from medfed.core.steps import Release, step, twin


@dataclass(frozen=True, eq=False)
class Weights(Message, wire="fedavg.weights"):
    """The global weights w_t, shape (d,)."""

    weights: Vector


@dataclass(frozen=True, eq=False)
class WeightedDelta(Message, wire="fedavg.weighted_delta"):
    """delta: n_k (w_k − w_t), shape (d,). rows: n_k."""

    delta: Vector = adds(bound=2.0**40, resolution=2.0**-16, update=True)
    rows: int = adds(bound=2.0**31)


@step(releases=Release.SUM)
def train_locally(site: SiteContext, message: Weights) -> WeightedDelta:
    """Train from w_t by the task's local training; contribute the weighted change."""
    return weighted(site.train(message.weights), message.weights)


@twin(train_locally)
def train_stack(stack: SiteStack, message: Weights) -> list[WeightedDelta]:
    """:func:`train_locally` at several sites at once."""
    return [weighted(trained, message.weights) for trained in stack.train(message.weights)]


def weighted(trained: Trained, start: Vector) -> WeightedDelta:
    """n_k (w_k − w_t), in the memory of w_k, which is the step's own."""
    delta = trained.weights
    delta -= start
    delta *= np.float32(trained.rows)
    return WeightedDelta(delta, trained.rows)


@dataclass(frozen=True, eq=False)
class FedAvgState(Message, wire="fedavg.state"):
    """After ``round`` rounds: the weights, and their relative change ‖w_t − w_{t−1}‖ / ‖w_{t−1}‖ in the last one."""

    round: int
    weights: Vector
    change: float

    def advance(self, total: Vector, factor: float) -> FedAvgState:
        """The state after one more round, by factor · total (see :func:`moved`)."""
        return FedAvgState(self.round + 1, *moved(self.weights, total, factor))


@dataclass(frozen=True, eq=False)
class FedAvg:
    """Federated averaging (see the module)."""

    REQUIRES: ClassVar = ()
    LAWS: ClassVar = frozenset({Law.SITE_ORDER, Law.ONE_SITE_IS_LOCAL, Law.RESUME})
    STEPS: ClassVar = (train_locally,)
    ASKS: ClassVar = False
    PLAIN_SGD: ClassVar = False
    AVERAGES: ClassVar = True
    POST_PROCESSES: ClassVar = True
    SHARES_NOISE: ClassVar = True

    initial: Vector
    rounds: int
    tolerance: float = 0.0

    def initialize(self, fed: Federation) -> FedAvgState:
        """The initial weights."""
        return FedAvgState(0, self.initial, float("inf"))

    def round(self, fed: Federation, state: FedAvgState) -> FedAvgState:
        """w_{t+1} = w_t + Σ n_k (w_k − w_t) / Σ n_k over the round's cohort."""
        total = fed.sum(train_locally, Weights(state.weights), sites=fed.cohort())
        return state.advance(total.delta, 1 / total.rows)

    def done(self, state: FedAvgState) -> bool:
        """After ``rounds`` rounds, or when the weights change by no more than ``tolerance``."""
        return state.round >= self.rounds or state.change <= self.tolerance

    def result(self, state: FedAvgState) -> ModelWeights:
        """The global weights."""
        return ModelWeights(state.weights)


def moved(weights: Vector, total: Vector, factor: float) -> tuple[Vector, float]:
    """weights + factor · total, in the memory of ``total``, which a federation gives away; and its relative change."""

    def move(old: Vector, new: Vector) -> None:
        np.multiply(new, np.float32(factor), out=new)
        np.add(new, old, out=new)

    return total, _relative_change(weights, total, move)


def relative_change(before: Vector, after: Vector) -> float:
    """‖after − before‖ / ‖before‖, the denominator at least 1e-12."""
    return _relative_change(before, after, lambda old, new: None)


def _relative_change(before: Vector, after: Vector, first: Callable[[Vector, Vector], None]) -> float:
    """The relative change of each part once ``first`` was done to it: in the processor's cache, without a third vector.

    Raises ValueError where one vector is longer.
    """
    if before.shape != after.shape:
        raise ValueError(f"a vector of {before.size} elements cannot become one of {after.size}")
    squares = []

    def work(half: slice) -> None:
        changed = size = 0.0
        for start in range(half.start, half.stop, _AT_A_TIME):
            part = slice(start, min(start + _AT_A_TIME, half.stop))
            old, new = before[part], after[part]
            first(old, new)
            change = new - old
            changed, size = changed + float(np.dot(change, change)), size + float(np.dot(old, old))
        squares.append((changed, size))

    in_halves(work, before.size)
    changed, size = np.sum(squares, axis=0)
    return math.sqrt(changed) / max(math.sqrt(size), 1e-12)


_AT_A_TIME = 2**16
"""Elements of a part."""


ALGORITHM = FedAvg
