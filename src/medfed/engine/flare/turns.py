"""Few large messages on their way at a time, so that few are in memory; a slow one keeps nobody waiting for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_AT_A_TIME = 2
_PATIENCE = 30.0
"""Seconds that one waits at most for its turn."""


class Turns:
    """The turns of one direction."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(_AT_A_TIME)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One's turn, or the end of one's patience."""
        mine = self._free.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if mine:
                self._free.release()
