"""A clipping norm that follows the updates of whole sites: Andrew et al. 2021, Algorithm 1, around any algorithm.

Before each total of a round the sites are told the norm C_t, and after it they are asked how many of their updates were
within it, by a sum with noise; then C_{t+1} = C_t · exp(−η_C (b̃_t − γ)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from medfed.core.errors import DataError, Refused
from medfed.core.messages import Message, adds
from medfed.core.protocols import Algorithm, Federation, Law, ModelWeights, SiteContext
from medfed.core.sensitivity import unmoved
from medfed.core.steps import Release, Step, step
from medfed.engine.wholesite import ClipNorm, NoisyWithin, is_norm
from medfed.privacy.wholesite import adapted
from medfed.spec.task import SitePrivacy

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class Norm(Message, wire="adaptive.norm"):
    """The clipping norm C_t of a round."""

    round: int
    norm: float


@dataclass(frozen=True)
class Told(Message, wire="adaptive.told"):
    """sites: 1, of a site that was told the norm."""

    sites: int = adds(bound=1, sensitivity=unmoved)


@dataclass(frozen=True)
class Within(Message, wire="adaptive.within"):
    """within: b_k − ½ with the site's share of the noise, of an update that protects its rows. sites: 1."""

    within: float = adds(bound=2.0**40, resolution=2.0**-20, sensitivity=unmoved)
    sites: int = adds(bound=1, sensitivity=unmoved)


@step(releases=Release.SUM)
def set_norm(site: SiteContext, message: Norm) -> Told:
    """Clip the round's updates to this norm, and to no other."""
    if not is_norm(message.norm) or message.round != site.round:
        raise Refused("a clipping norm is a number above 0 that is not huge, and of the round in progress")
    told = site.recall(ClipNorm)
    if told is not None and told.round == message.round and told.norm != message.norm:
        raise Refused("another clipping norm was told for this round before")
    site.keep(ClipNorm(message.round, message.norm))
    return Told(1)


@step(releases=Release.SUM)
def count_within(site: SiteContext, message: Norm) -> Within:
    """Whether the round's update was within the norm, as it was said once with noise."""
    said = site.recall(NoisyWithin)
    if said is None or (said.round, said.norm) != (message.round, message.norm):
        raise DataError("this site has no update of that round under that norm")
    return Within(said.within, 1)


STEPS: tuple[Step[Norm, Told], Step[Norm, Within]] = (set_norm, count_within)


@dataclass(frozen=True, eq=False)
class AdaptiveState(Message, wire="adaptive.state"):
    """The algorithm's own state, and the norm C of the next round."""

    algorithm: Message
    norm: float


@dataclass(frozen=True)
class AdaptivelyClipped:
    """An algorithm whose sites clip their updates to a norm that follows them (see the module)."""

    REQUIRES: ClassVar = ("privacy",)
    LAWS: ClassVar[frozenset[Law]] = frozenset()
    STEPS: ClassVar = STEPS
    ASKS: ClassVar = False
    PLAIN_SGD: ClassVar = False
    AVERAGES: ClassVar = False

    algorithm: Algorithm[Message]
    privacy: SitePrivacy

    def initialize(self, fed: Federation) -> AdaptiveState:
        """The algorithm's state, and the norm to begin with."""
        return AdaptiveState(self.algorithm.initialize(fed), self.privacy.clip_norm)

    def round(self, fed: Federation, state: AdaptiveState) -> AdaptiveState:
        """One round of the algorithm under C_t, and C_{t+1}."""
        settings, watched = self.privacy.adaptive, _Watched(fed, state.norm)
        assert settings is not None  # noqa: S101 - the strategy saw to it
        after, norm = self.algorithm.round(watched, state.algorithm), state.norm
        for counted in watched.counted:
            norm = adapted(norm, counted.within, counted.sites, quantile=settings.quantile, rate=settings.rate)
        return AdaptiveState(after, norm)

    def done(self, state: AdaptiveState) -> bool:
        """As the algorithm says."""
        return self.algorithm.done(state.algorithm)

    def result(self, state: AdaptiveState) -> ModelWeights:
        """The algorithm's model."""
        return self.algorithm.result(state.algorithm)


@dataclass(frozen=True)
class _Watched:
    """A federation that tells the norm before each total, and counts the updates within it after."""

    fed: Federation
    norm: float
    counted: list[Within] = field(default_factory=list)

    @property
    def sites(self) -> tuple[str, ...]:
        return self.fed.sites

    @property
    def round(self) -> int:
        return self.fed.round

    def cohort(self) -> tuple[str, ...]:
        return self.fed.cohort()

    def sum(self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None) -> R:
        norm = Norm(self.fed.round, self.norm)
        self.fed.sum(set_norm, norm, sites=sites)
        total = self.fed.sum(step, message, sites=sites)
        self.counted.append(self.fed.sum(count_within, norm, sites=sites))
        return total

    def ask(
        self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None
    ) -> dict[str, R]:
        return self.fed.ask(step, message, sites=sites)

    def stream(
        self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None
    ) -> Iterator[tuple[str, R]]:
        return self.fed.stream(step, message, sites=sites)
