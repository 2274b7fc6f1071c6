"""SCAFFOLD: Karimireddy et al. 2020, Algorithm 1 with option II.

Site i keeps a control variate c_i, the coordinator c; local steps follow g_i(y) − c_i + c. After K steps of size
η_l from x: c_i⁺ = c_i − c + (x − y_i)/(K η_l). With S the sites of the round and N all sites,
x ← x + η_g · mean_S(y_i − x) and c ← c + (|S|/N) · mean_S(c_i⁺ − c_i).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from medfed.algorithms.fedavg import moved
from medfed.core.messages import Message, Vector, adds
from medfed.core.protocols import Federation, GradientTransform, Law, ModelWeights, SiteContext, SiteStack, Trained
from medfed.core.steps import Release, step, twin

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Controlled(Message, wire="scaffold.controlled"):
    """The global weights x and variate c, each shape (d,); and whether sites count alike or by their rows."""

    weights: Vector
    variate: Vector
    by_rows: bool


@dataclass(frozen=True, eq=False)
class SiteVariate(Message, wire="scaffold.site_variate"):
    """The site's own variate c_i, kept between rounds and never released."""

    variate: Vector


@dataclass(frozen=True, eq=False)
class ControlledDelta(Message, wire="scaffold.controlled_delta"):
    """delta: ω_i (y_i − x) with ω_i = 1 or the site's rows; variate: ω_i (c_i⁺ − c_i); weight: ω_i; sites: 1."""

    delta: Vector = adds(bound=2.0**40, resolution=2.0**-16, update=True)
    variate: Vector = adds(bound=2.0**40, resolution=2.0**-16, update=True)
    weight: int = adds(bound=2.0**31)
    sites: int = adds(bound=1)


@step(releases=Release.SUM)
def train_controlled(site: SiteContext, message: Controlled) -> ControlledDelta:
    """K local steps along g_i(y) − c_i + c, then the new variate by option II."""
    c_i = own_variate(site, message)
    trained = site.train(message.weights, correction(message.variate - c_i))
    return contribution(site, trained, c_i, message)


@twin(train_controlled)
def train_stack(stack: SiteStack, message: Controlled) -> list[ControlledDelta]:
    """:func:`train_controlled` at several sites at once."""
    variates = [own_variate(site, message) for site in stack.sites]
    difference = np.stack([message.variate - c_i for c_i in variates])
    trained = stack.train(message.weights, correction(difference))
    return [contribution(*each, message) for each in zip(stack.sites, trained, variates, strict=True)]


def own_variate(site: SiteContext, message: Controlled) -> Vector:
    """c_i, which is 0 at first, and again when other elements are trained than before."""
    kept = site.recall(SiteVariate)
    fits = kept is not None and kept.variate.shape == message.variate.shape
    return kept.variate if kept is not None and fits else np.zeros_like(message.variate)


def correction(difference: NDArray[np.float32]) -> GradientTransform:
    """g → g + (c − c_i), for a difference of shape (d,), or (s, d) over stacked sites."""
    import torch

    c_minus_c_i = torch.from_numpy(difference)

    def transform(gradient: torch.Tensor, weights: torch.Tensor) -> None:
        gradient.add_(c_minus_c_i[..., : gradient.shape[-1]].to(gradient.device))

    return transform


def contribution(site: SiteContext, trained: Trained, c_i: Vector, message: Controlled) -> ControlledDelta:
    """Keep c_i⁺; contribute the changes of the weights and of the variate, weighted by ω_i."""
    x, c = message.weights, message.variate
    length = trained.updates * trained.lr
    c_plus = c_i - c + (x - trained.weights) / np.float32(length) if length else c_i  # a schedule may end at rate 0
    site.keep(SiteVariate(c_plus))
    weight = trained.rows if message.by_rows else 1
    omega = np.float32(weight)
    return ControlledDelta(omega * (trained.weights - x), omega * (c_plus - c_i), weight, 1)


@dataclass(frozen=True, eq=False)
class ScaffoldState(Message, wire="scaffold.state"):
    """After ``round`` rounds: weights x and variate c (each shape (d,)), and the last relative change of x."""

    round: int
    weights: Vector
    variate: Vector
    change: float


@dataclass(frozen=True, eq=False)
class Scaffold:
    """SCAFFOLD (see the module). lr: η_g; weighting: both means ``uniform`` over sites (the paper), or by ``rows``."""

    REQUIRES: ClassVar = ()
    LAWS: ClassVar = frozenset({Law.SITE_ORDER, Law.RESUME})
    STEPS: ClassVar = (train_controlled,)
    ASKS: ClassVar = False
    PLAIN_SGD: ClassVar = True
    AVERAGES: ClassVar = True
    POST_PROCESSES: ClassVar = True

    initial: Vector
    rounds: int
    tolerance: float = 0.0
    lr: float = 1.0
    weighting: Literal["uniform", "rows"] = "uniform"

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf or self.weighting not in ("uniform", "rows"):
            raise ValueError("lr is above 0 and finite; weighting is uniform or rows")

    def initialize(self, fed: Federation) -> ScaffoldState:
        """x_0 and c = 0."""
        return ScaffoldState(0, self.initial, np.zeros_like(self.initial), float("inf"))

    def round(self, fed: Federation, state: ScaffoldState) -> ScaffoldState:
        """One round over the cohort S; the coordinator's variate moves by |S|/N of the sites' mean change."""
        message = Controlled(state.weights, state.variate, by_rows=self.weighting == "rows")
        total = fed.sum(train_controlled, message, sites=fed.cohort())
        x, change = moved(state.weights, total.delta, self.lr / total.weight)
        c, _ = moved(state.variate, total.variate, total.sites / len(fed.sites) / total.weight)
        return ScaffoldState(state.round + 1, x, c, change)

    def done(self, state: ScaffoldState) -> bool:
        """After ``rounds`` rounds, or when the weights change by no more than ``tolerance``."""
        return state.round >= self.rounds or state.change <= self.tolerance

    def result(self, state: ScaffoldState) -> ModelWeights:
        """The weights x."""
        return ModelWeights(state.weights)


ALGORITHM = Scaffold
