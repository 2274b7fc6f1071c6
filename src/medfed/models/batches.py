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


def batches(
    rows: int, size: int, start: Position, generator: Callable[[int], np.random.Generator]
) -> Iterator[tuple[NDArray[np.int64], Position]]:
    """Endless batches of row indices from ``start`` on, each with the position after it.

    Every epoch visits each row once, in the order drawn by ``generator(epoch)``; its last batch may be smaller.
    A batch of all rows is in their own order, since nothing depends on it.
    """
    epoch, offset = start.epoch, start.offset
    while True:
        order = np.arange(rows) if size >= rows else generator(epoch).permutation(rows)
        while offset < rows:
            batch = order[offset : offset + size]
            offset += len(batch)
            yield batch, Position(epoch, offset) if offset < rows else Position(epoch + 1, 0)
        epoch, offset = epoch + 1, 0


def updates_per_epoch(rows: int, size: int) -> int:
    """The number of batches that visit every row once."""
    return -(-rows // size)
