"""What every algorithm is run on here: three small hospitals, and engines that watch, shuffle or encode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medfed.algorithms import ALGORITHMS
from medfed.api import simulation_key
from medfed.core.codec import decode, encode
from medfed.core.errors import MissingExtra
from medfed.core.protocols import Algorithm, Engine
from medfed.core.wire import Reply, Request
from medfed.engine.assembly import Assembly, assemble
from medfed.engine.hospitals import load_hospitals
from medfed.engine.process import Process, RunState
from medfed.engine.simulation import attached
from medfed.spec.loading import task_of
from medfed.spec.policy import Policy

ROUNDS = 3
Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def hospitals(**rows: int) -> dict[str, Rows]:
    """Site → (features (n, 3), labels of two classes), unlike in size and case mix."""
    sites = {}
    for number, (site, n) in enumerate((rows or {"ashford": 57, "birch": 42, "cedar": 50}).items()):
        rng = np.random.default_rng([3, number])
        features = rng.normal(0.3 * number, 1.0, size=(n, 3)).astype(np.float32)
        labels = (features @ [1.5, -1.0, 0.5] + rng.normal(0.0, 0.5, n) > 0.2).astype(np.int64)
        sites[site] = features, labels
    return sites


def task(strategy: str, **federation: Any) -> dict[str, Any]:
    """Three rounds of four updates on shuffled batches, with the strategy's own defaults."""
    settings = {"rounds": ROUNDS, "local_updates": 4, "batch_size": 8, "lr": 0.1, **federation}
    return {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": strategy, **settings},
        "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.8, "validation": 0, "test": 0.2}},
        "seed": 11,
    }


def algorithm_kind(name: str) -> type[Algorithm[Any]]:
    """The algorithm's class; the test is skipped where its extra is not installed."""
    try:
        return ALGORITHMS.get(name)
    except MissingExtra as missing:
        pytest.skip(missing.cause)


def run_to_end(process: Process, state: RunState | None = None) -> RunState:
    """The last state of a run, from its beginning or from a state."""
    state = process.initialize() if state is None else state
    while not process.done(state):
        state, _ = process.next(state)
    return state


@contextmanager
def assembled(strategy: str, folder: Path, policies: Mapping[str, Policy] | None = None) -> Iterator[Assembly]:
    """A simulation in a folder, or a new process that goes on with what is there."""
    checked = task_of(task(strategy))
    sites = load_hospitals(checked, folder, hospitals())
    for site, policy in (policies or {}).items():
        sites.sites[site] = replace(sites.sites[site], policy=policy, policy_source="policy.yaml")
    assembly = assemble(checked, sites, folder, "the-run", simulation_key())
    with attached(assembly.simulation):
        yield assembly


@dataclass
class Watched:
    """Passes everything on, and remembers it."""

    engine: Engine
    requests: list[Request] = field(default_factory=list)
    replies: list[tuple[Request, Reply]] = field(default_factory=list)

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        self.requests += requests
        by_site = {request.site: request for request in requests}
        for reply in self.engine.exchange(requests):
            self.replies.append((by_site[reply.site], reply))
            yield reply


@dataclass
class Shuffled:
    """Lets replies arrive in an order of its own."""

    engine: Engine
    orders: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    turned: int = 0

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        replies = list(self.engine.exchange(requests))
        order = self.orders.permutation(len(replies)).tolist()
        self.turned += order != sorted(order)
        return iter([replies[i] for i in order])


@dataclass
class OverTheWire:
    """Carries every request and reply as bytes."""

    engine: Engine

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        for reply in self.engine.exchange([decode(encode(request), Request) for request in requests]):
            yield decode(encode(reply), Reply)
