"""Whether a site's FLARE client has lost its coordinator without knowing.

FLARE's client dials again when a connection breaks. Where it hangs, or its connection stands but carries nothing, it
would wait for ever: the site's service then ends it, and itself with status 1, to be begun anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from medfed.engine.flare.health import Sign

_EVERY = 5.0
"""Seconds from one look to the next."""

_SILENT = 15.0
"""Seconds without an answer after which a look is taken at the coordinator, too."""

_PATIENCE = 120.0
"""Seconds that a client has to be answered by a coordinator that can be reached: FLARE's dials every ten seconds, takes
ten for each job that it ends, and may wait a minute and more for the system to send again what a dead line lost."""


class Watchdog:
    """Looks after a client. answered: its sign that the server takes its own; reached: whether the coordinator answers
    at all, by another connection."""

    def __init__(self, answered: Sign, reached: Callable[[], bool]) -> None:
        self._answered, self._reached = answered, reached
        self._mark, self._heard_at = answered.mark(), time.monotonic()
        self._reached_since: float | None = None
        self.client_is_lost = False
        """Whether the coordinator could be reached for two minutes, and did not answer the client once."""

    def start(self) -> None:
        """Look from now on, in a thread, since a look may take long."""
        threading.Thread(target=self._watch, name="medfed-watchdog", daemon=True).start()

    def look(self) -> None:
        """Look once."""
        if self._is_answered() or not self._reached() or self._is_answered():
            self._reached_since = None
            return
        now = time.monotonic()
        if self._reached_since is None:
            self._reached_since = now
        self.client_is_lost = now - self._reached_since >= _PATIENCE

    def _is_answered(self) -> bool:
        """Whether there was an answer of late, by this machine's clock: the disk may have another."""
        mark, now = self._answered.mark(), time.monotonic()
        if mark != self._mark:
            self._mark, self._heard_at = mark, now
        return now - self._heard_at < _SILENT

    def _watch(self) -> None:
        while True:
            time.sleep(_EVERY)
            self.look()
