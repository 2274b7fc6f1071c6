"""Parts that the engine's tests share: small messages, steps that record their calls, and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medfed.core.messages import Message, Moments, Vector, adds
from medfed.core.protocols import SiteContext
from medfed.core.steps import Release, step
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.federation import Conversation, SiteFederation
from medfed.spec.loading import task_of

RUN = "run-1"
DIGEST = "ab" * 32
CALLS: list[str] = []
"""The sites at which a sentinel step ran; a test clears it before it looks."""


@dataclass(frozen=True, eq=False)
class Ping(Message, wire="test.engine.ping"):
    number: int


@dataclass(frozen=True, eq=False)
class Pong(Message, wire="test.engine.pong"):
    text: str


@dataclass(frozen=True, eq=False)
class Diary(Message, wire="test.engine.diary"):
    entry: int


@dataclass(frozen=True, eq=False)
class Mood(Message, wire="test.engine.mood"):
    entry: int


@dataclass(frozen=True, eq=False)
class Part(Message, wire="test.engine.part"):
    values: Vector = adds(bound=2.0**40, resolution=2.0**-16)
    squares: Moments = adds(bound=2.0**60, resolution=2.0**-16)
    rows: int = adds(bound=2.0**31)


def part(*values: float, rows: int = 1) -> Part:
    return Part(np.array(values, np.float32), np.array(values, np.float64) ** 2, rows)


@step(releases=Release.SUM)
def add_up(site: SiteContext, message: Ping) -> Part:
    CALLS.append(site.site)
    seen = site.recall(Diary)
    site.keep(Diary((seen.entry if seen else 0) + message.number))
    return part(1.0, 2.0)


@step(releases=Release.SITE)
def tell(site: SiteContext, message: Ping) -> Pong:
    CALLS.append(site.site)
    return Pong("hello")


@step(releases=Release.SUM)
def divide_by_zero(site: SiteContext, message: Ping) -> Part:
    CALLS.append(site.site)
    return part(float("nan"))


def request(
    *,
    base: int = 0,
    settled: int = 0,
    round_: int = 1,
    call: int = 0,
    site: str = "north",
    step_name: str = "engine_parts.add_up",
    task: str = DIGEST,
    message: Message | None = None,
) -> Request:
    return Request(RUN, task, site, round_, call, base, settled, step_name, message or Ping(1))


@dataclass
class ScriptedEngine:
    """An engine whose replies a test writes: it keeps the requests and yields what ``answer`` gives for them."""

    answer: Callable[[Sequence[Request]], Iterable[Reply]]
    asked: list[Request] = field(default_factory=list)

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        self.asked += requests
        yield from self.answer(requests)


def reply_to(asked: Request, body: Message, *, version: int = 1, **changed: Any) -> Reply:
    fields = {name: getattr(asked, name) for name in ("run", "site", "round", "call")}
    return Reply(**(fields | {"version": version, "request": asked.digest()} | changed), body=body)


def bodies(by_site: Mapping[str, Message]) -> Callable[[Sequence[Request]], Iterable[Reply]]:
    """Answer every request with its site's body; a site without one is silent."""
    return lambda requests: [reply_to(r, by_site[r.site]) for r in requests if r.site in by_site]


def refusal(step_name: str = "engine_parts.add_up") -> Failure:
    return Failure("refused", "the site's policy does not allow it", step_name)


def federation_over(
    engine: ScriptedEngine, sites: Sequence[str], *, seed: int = 0, round_: int = 1, **settings: Any
) -> SiteFederation:
    spec = task_of(
        {
            "task_type": "classification",
            "model": "logistic",
            "federation": {"strategy": "fedavg", "epochs": 2, **settings},
        }
    ).spec
    conversation = Conversation(engine, RUN, DIGEST)
    conversation.begin_round(round_, {})
    return SiteFederation(conversation, tuple(sorted(sites)), spec.federation, seed)
