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

_PATIENCE = 60.0
"""Seconds that a client has to be answered by a coordinator that can be reached: FLARE's dials every ten seconds, and
takes ten for each job that it ends."""


class Watchdog:
    """Looks after a client. answered: its sign that the server takes its own; reached: whether the coordinator answers
    at all, by another connection."""

    def __init__(self, answered: Sign, reached: Callable[[], bool]) -> None:
        self._answered, self._reached = answered, reached
        self._reached_since: float | None = None
        self.client_is_lost = False
        """Whether the coordinator could be reached for a minute, and did not answer the client once."""

    def start(self) -> None:
        """Look from now on, in a thread, since a look may take long."""
        threading.Thread(target=self._watch, name="medfed-watchdog", daemon=True).start()

    def look(self) -> None:
        """Look once."""
        silent = self._answered.age()
        if (silent is not None and silent < _SILENT) or not self._reached():
            self._reached_since = None
            return
        now = time.monotonic()
        if self._reached_since is None:
            self._reached_since = now
        self.client_is_lost = now - self._reached_since >= _PATIENCE

    def _watch(self) -> None:
        while True:
            time.sleep(_EVERY)
            self.look()
