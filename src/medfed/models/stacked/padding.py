"""From sites' rows to the padded batches of a stack."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.core.examples import Examples
from medfed.models.batches import BatchTable, Position, batch_table, updates_per_epoch
from medfed.models.loss import class_weights
from medfed.models.stacked.kernel import Batch, Kernel
from medfed.models.stacked.residual import coefficients
from medfed.spec.task import FederationSpec

_CHUNK = 1 << 20
"""Features that are gathered at once: 4 MiB of them, which a processor's caches hold."""


@dataclass(frozen=True, eq=False)
class Member:
    """One site's part in a stack: its training rows, the place in them, and the generator of each epoch's order."""

    examples: Examples
    position: Position
    generator: Callable[[int], np.random.Generator]


@dataclass(frozen=True, eq=False)
class Plan:
    """The batches of one site in one round. omega: the weight of each class, shape (C,), or None."""

    examples: Examples
    table: BatchTable
    omega: NDArray[np.float32] | None

    @property
    def updates(self) -> int:
        """The number of batches."""
        return len(self.table.counts)

    @property
    def size(self) -> int:
        """The rows of a whole batch."""
        return int(self.table.index.shape[1])


def plan(member: Member, federation: FederationSpec, classes: int) -> Plan:
    """Draw the batches of a site's round. Raises DataError where it has no rows."""
    examples, rows = member.examples, len(member.examples)
    if rows == 0:
        raise DataError("there are no training rows", remedy="give the site data, or leave it out of the task")
    size = rows if federation.batch_size == "full" else min(federation.batch_size, rows)
    updates = federation.local_updates or (federation.local_epochs or 1) * updates_per_epoch(rows, size)
    table = batch_table(rows, size, member.position, member.generator, updates)
    return Plan(examples, table, class_weights(federation, examples, classes) if classes else None)


def padded_size(plans: Sequence[Plan], kernel: Kernel) -> int:
    """The rows to which every batch is padded."""
    return kernel.padded_rows(max(p.size for p in plans))


def runs(
    plans: Sequence[Plan], kernel: Kernel, width: int, task_type: str, scale: float
) -> Iterator[tuple[int, Iterable[Batch]]]:
    """The batches of plans in the order of falling length, in runs of updates with the same sites active.

    Each run comes with the number of active sites, which are the first ones. Batches are padded to ``width`` rows;
    their coefficients are multiplied by ``scale``.
    """
    lengths = np.array([p.updates for p in plans])
    first, end = 0, plans[0].updates
    while first < end:
        going_on = plans[: int(np.count_nonzero(lengths > first))]
        sites, row = kernel.padded_sites(len(going_on)), going_on[0].examples.features[0].size + kernel.ones
        last = min(end, first + max(1, _CHUNK // (sites * width * row)))
        tensors = _gather(going_on, slice(first, last), (sites, width, row), task_type, scale)
        stops: list[int] = np.unique(lengths[: len(going_on)].clip(max=last)).tolist()
        for begin, stop in itertools.pairwise([first, *stops]):
            active = int(np.count_nonzero(lengths > begin))
            part = slice(begin - first, stop - first), slice(kernel.padded_sites(active))
            yield active, zip(*(tensor[part].unbind(0) for tensor in tensors), strict=True)
        first = last


def _gather(plans: Sequence[Plan], updates: slice, shape: tuple[int, int, int], task_type: str, scale: float) -> Batch:
    """Those updates of all sites: features (u, *shape), targets and coefficients (u, sites, width, 1).

    shape: sites, rows and columns; columns beyond a row's features are ones. Padding has the coefficient 0 and is a
    copy of something real: rows of their batch's first row, updates and sites of the first site's.
    """
    import torch

    u, d = updates.stop - updates.start, plans[0].examples.features[0].size
    x = np.ones((u, *shape), np.float32)
    t = np.empty((u, *shape[:2], 1), np.float32)
    omega = np.ones((u, *shape[:2]), np.float32)
    counts = np.zeros((u, shape[0], 1), np.int64)
    for k, p in enumerate(plans):
        index = p.table.index[updates]
        n, targets = len(index), p.examples.targets.take(index)
        x[:n, k, : p.size, :d] = p.examples.features.reshape(-1, d).take(index, 0)
        t[:n, k, : p.size, 0] = targets
        counts[:n, k, 0] = p.table.counts[updates]
        if p.omega is not None:
            omega[:n, k, : p.size] = p.omega[targets]
        if p.size < shape[1]:
            x[:n, k, p.size :], t[:n, k, p.size :] = x[:n, k, :1], t[:n, k, :1]
        if n < u:
            x[n:, k], t[n:, k] = x[n:, 0], t[n:, 0]
    x[:, len(plans) :], t[:, len(plans) :] = x[:, :1], t[:, :1]
    omega *= np.arange(shape[1]) < counts
    c = np.float32(scale) * coefficients(task_type, omega)[..., None]
    return torch.from_numpy(x), torch.from_numpy(t), torch.from_numpy(c)
