"""The product's worker processes, over sites without gate, ledger or memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medfed.core.messages import Message, Vector
from medfed.core.protocols import GradientTransform, Trained
from medfed.core.steps import Step, installed_step
from medfed.core.timings import Phase, Timings
from medfed.core.wire import Reply, Request
from medfed.engine.fold import OrderedFold
from medfed.engine.workers import Workers
from medfed.govern.heads import Head

if TYPE_CHECKING:
    from benchmarks.simulation_parts.ours import Site, TrainSites


@dataclass(frozen=True)
class Alone:
    """One site as a step sees it."""

    site: Site
    round: int
    trainer: TrainSites

    def train(self, weights: Vector, transform: GradientTransform | None = None) -> Trained:
        """Local training."""
        (trained,) = self.trainer([self.site], weights, self.round, transform)
        return trained


@dataclass(frozen=True)
class BareHost:
    """Runs the step that a request names, and nothing else."""

    members: dict[str, Site]
    trainer: TrainSites

    def handle(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Each site's reply as soon as it is there."""
        for each in requests:
            context: Any = Alone(self.members[each.site], each.round, self.trainer)
            body = installed_step(each.step).run(context, each.message)
            yield [Reply(each.run, each.site, each.round, each.call, 0, "", body)]

    def sign_heads(self, round_number: int) -> dict[str, Head]:
        """There are no ledgers."""
        return {}

    def witness(self, head: Head, party: str) -> None:
        """There are no ledgers."""

    def close(self, status: str) -> dict[str, Head]:
        """There are no ledgers."""
        return {}

    def spent(self) -> dict[Phase, float]:
        """Nothing is timed here."""
        return {}

    def detach(self) -> None:
        """Nothing is open."""


@dataclass
class SpreadFederation:
    """A federation of all sites over worker processes, whose sum is folded in the order of the sites."""

    sites: tuple[str, ...]
    workers: Workers
    round: int = 0

    @classmethod
    def over(cls, members: dict[str, Site], trainer: TrainSites, workers: int) -> SpreadFederation:
        """Worker k of n holds the sites k, k + n, …"""
        homes = [tuple(members)[k::workers] for k in range(workers)]
        return cls(tuple(members), Workers(lambda _sites: BareHost(members, trainer), homes, Timings()))

    def cohort(self) -> tuple[str, ...]:
        """All sites."""
        return self.sites

    def sum(self, step: Step[Any, Any], message: Message, *, sites: Sequence[str]) -> Any:
        """The total of the sites' replies."""
        requests = [Request("", "", site, self.round, 0, 0, 0, step.name, message) for site in sites]
        with OrderedFold(sites, step.reply) as fold:
            for reply in self.workers.exchange(requests):
                fold.contribute(reply.site, reply.body)
            return fold.finish()
