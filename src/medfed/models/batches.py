"""The order in which a site's rows are visited, and where in it the site is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.messages import Message


@dataclass(frozen=True)
class Position(Message, wire="training.position"):
    """A place in the stream of shuffled epochs: the epoch, and the rows of it already visited."""

    epoch: int = 0
    offset: int = 0


@dataclass(frozen=True, eq=False)
class BatchTable:
    """Several batches of one site at once.

    index: row indices, shape (updates, size); beyond the rows of a smaller batch they are 0. counts: the rows of each
    batch, shape (updates,). after: the position after the last batch.
    """

    index: NDArray[np.int64]
    counts: NDArray[np.int64]
    after: Position


def batches(
    rows: int, size: int, start: Position, generator: Callable[[int], np.random.Generator]
) -> Iterator[tuple[NDArray[np.int64], Position]]:
    """Endless batches of row indices from ``start`` on, each with the position after it.

    Every epoch visits each row once, in the order drawn by ``generator(epoch)``; its last batch may be smaller.
    A batch of all rows is in their own order, since nothing depends on it.
    """
    epoch, offset = start.epoch, start.offset
    while True:
        order = _order(rows, size, generator, epoch)
        while offset < rows:
            batch = order[offset : offset + size]
            offset += len(batch)
            yield batch, Position(epoch, offset) if offset < rows else Position(epoch + 1, 0)
        epoch, offset = epoch + 1, 0


def batch_table(
    rows: int, size: int, start: Position, generator: Callable[[int], np.random.Generator], updates: int
) -> BatchTable:
    """The first ``updates`` of :func:`batches` in one table."""
    index = np.zeros((updates, size), np.int64)
    counts = np.empty(updates, np.int64)
    counts.fill(size)
    epoch, offset, filled = start.epoch, start.offset, 0
    while filled < updates:
        visited = _order(rows, size, generator, epoch)[offset : offset + (updates - filled) * size]
        whole, rest = divmod(len(visited), size)
        index[filled : filled + whole] = visited[: whole * size].reshape(whole, size)
        filled += whole
        if rest:
            index[filled, :rest] = visited[whole * size :]
            counts[filled] = rest
            filled += 1
        offset += len(visited)
        if offset >= rows:
            epoch, offset = epoch + 1, 0
    return BatchTable(index, counts, Position(epoch, offset))


def updates_per_epoch(rows: int, size: int) -> int:
    """The number of batches that visit every row once."""
    return -(-rows // size)


def _order(rows: int, size: int, generator: Callable[[int], np.random.Generator], epoch: int) -> NDArray[np.int64]:
    return np.arange(rows) if size >= rows else generator(epoch).permutation(rows)
