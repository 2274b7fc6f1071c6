"""Which of a job's sites are still there: each site's process for the job gives a sign of life every second.

FLARE alone would take minutes to find out that a site died. Nobody waits for the answer of a site that is silent for
too long; it counts as alive again with its next sign.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.wf_comm_server import WFCommServer

from medfed.engine.flare.job import HEARTBEAT

SILENT = 8 * HEARTBEAT
"""Seconds without a sign of life after which a site's process counts as dead."""

_STARTING = 60.0
"""Seconds that it has to give the first one."""


class Presence:
    """The sites of one job; told: called with those that are gone, whenever they change."""

    def __init__(
        self, sites: frozenset[str], communicator: WFCommServer, told: Callable[[frozenset[str]], None]
    ) -> None:
        self.gone: frozenset[str] = frozenset()
        self._communicator = communicator
        self._told = told
        self._due = dict.fromkeys(sites, time.monotonic() + _STARTING)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch over the sites, as long as the context lasts."""
        active, ended = self._communicator.client_is_active, threading.Event()

        def heard(client_name: str, reason: str, fl_ctx: FLContext) -> None:
            self._due[client_name] = time.monotonic() + SILENT
            active(client_name, reason, fl_ctx)

        def watch() -> None:
            while not ended.wait(HEARTBEAT / 2):
                self._look()

        self._communicator.client_is_active = heard
        watcher = threading.Thread(target=watch, name="medfed-presence", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _look(self) -> None:
        gone = frozenset(site for site, due in self._due.items() if due < time.monotonic())
        if gone != self.gone:
            self.gone = gone
            self._told(gone)
