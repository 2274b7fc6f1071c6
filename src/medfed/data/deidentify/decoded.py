"""The frames of a file, decoded in a guarded process: a decoder that a file ends ends nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.data.images.guard import Guard
from medfed.data.images.wire import Order
from medfed.data.raw import Unreadable

MOST_FRAMES = 2000
"""Of one file: each takes a millisecond, however small it is, and files of many small ones are soon made."""
_counted = count()


def any_frame(
    content: bytes, frames: int, test: Callable[[NDArray[Any]], bool], *, raw: bool, unused_bits: bool = False
) -> bool:
    """Whether a test holds for one of the frames, each of shape (rows, columns, samples). Raises Unreadable.

    raw: the numbers as they are stored, not as colours. unused_bits: with whatever stands in bits beyond Bits Stored.
    """
    if not 1 <= frames <= MOST_FRAMES:
        raise Unreadable("it has more frames than are looked at, or none")
    try:
        with _as_file(content) as path:
            orders = (Order(str(path), True, frame, raw=raw, unused_bits=unused_bits) for frame in range(frames))
            return any(test(np.moveaxis(_guard().pixels(order), 0, -1)) for order in orders)
    except OSError as error:
        raise Unreadable("it cannot be handed to a decoder") from error


@cache
def _guard() -> Guard:
    """One process for all files; it begins anew where a file ended it, and ends with this one."""
    return Guard()


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """The bytes as a file in memory, which no disk ever holds, and which the processes of this user alone can open.

    The next file has the same path, by which the other process knows what it read. What tells them apart is a time of
    change that is counted: clocks can stand still between two small files.
    """
    descriptor = os.memfd_create("image", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        tick = next(_counted)
        os.utime(descriptor, ns=(tick, tick))
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
