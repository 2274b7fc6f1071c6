"""A site's line to its coordinator: when that last answered, and whether a client that runs has lost it.

FLARE's client dials again when a connection breaks. Where it hangs, or a connection stands but carries nothing, it
would wait for ever: the site's service then begins it anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from medfed.engine.flare.health import Sign

_SILENT = 15.0
"""Seconds without an answer after which the service asks itself whether the coordinator can be reached."""

_EVERY = 10.0
"""Seconds from one look at the coordinator to the next."""

_PATIENCE = 60.0
"""Seconds that a client has to be answered by a coordinator that can be reached: FLARE's dials every ten seconds, and
takes ten for each job that it ends."""


class Contact(FLComponent):  # type: ignore[misc]
    """The component of a site's FLARE client that notes each answer of the coordinator's; noted: where."""

    def __init__(self, noted: str) -> None:
        super().__init__()
        self._answer = Sign(Path(noted))

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Note that a sign of life was answered."""
        if event_type == EventType.AFTER_CLIENT_HEARTBEAT:
            self._answer.give()


class Line:
    """Whether a client has lost its coordinator. reached: whether that answers at all, by a connection of its own."""

    def __init__(self, answer: Sign, reached: Callable[[], bool], patience: float = _PATIENCE) -> None:
        self._answer, self._reached, self._patience = answer, reached, patience
        self._next_look = 0.0
        self._reached_since: float | None = None

    def is_lost(self) -> bool:
        """Whether the coordinator could be reached for so long (patience), and did not answer the client once."""
        now = time.monotonic()
        silent = self._answer.age()
        if silent is not None and silent < _SILENT:
            self._reached_since = None
            return False
        if now >= self._next_look:
            self._next_look = now + _EVERY
            if not self._reached():
                self._reached_since = None
            elif self._reached_since is None:
                self._reached_since = now
        return self._reached_since is not None and now - self._reached_since >= self._patience
