"""Two warm processes that train their share of the sites, over shared memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from medfed.core.messages import Vector
from medfed.core.protocols import GradientTransform, Trained

if TYPE_CHECKING:
    from benchmarks.simulation_parts.ours import Site, TrainSites


class Forked:
    """Worker k of n trains the sites k, k + n, …; the weights go and come in one shared block, a row a vector."""

    def __init__(self, train: TrainSites, sites: Sequence[Site], size: int, workers: int) -> None:
        shared = np.frombuffer(mmap.mmap(-1, 4 * size * (len(sites) + 1)), np.float32).reshape(-1, size)
        self._weights, self._trained = shared[0], shared[1:]
        self._pipes: list[Connection] = []
        context = get_context("fork")
        for k in range(workers):
            here, there = context.Pipe()
            rows = self._trained[k::workers]
            arguments = (there, train, sites[k::workers], self._weights, rows)
            context.Process(target=_serve, args=arguments, daemon=True).start()
            self._pipes.append(here)

    def train(
        self, sites: Sequence[Site], weights: Vector, round_number: int, transform: GradientTransform | None
    ) -> list[Trained]:
        """Training at all the sites that the workers were given; there are no transforms."""
        assert transform is None
        np.copyto(self._weights, weights)
        for pipe in self._pipes:
            pipe.send(round_number)
        facts: list[Any] = [None] * len(sites)
        for k, pipe in enumerate(self._pipes):
            facts[k :: len(self._pipes)] = pipe.recv()
        return [Trained(row, *fact) for row, fact in zip(self._trained, facts, strict=True)]


def _serve(pipe: Connection, train: TrainSites, sites: Sequence[Site], weights: Vector, rows: Vector) -> None:
    while True:
        round_number = pipe.recv()
        found = train(sites, weights, round_number, None)
        for row, trained in zip(rows, found, strict=True):
            np.copyto(row, trained.weights)
        pipe.send([(trained.updates, trained.rows, trained.lr) for trained in found])
