"""The administrator's session with the FLARE server: to give it jobs, and to ask who is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from medfed.core.errors import MedFedError
from medfed.engine.flare.authority import ADMINISTRATOR

if TYPE_CHECKING:
    from nvflare.fuel.flare_api.flare_api import Session

T = TypeVar("T")

_ENDED = ("FINISHED", "FAILED", "ABANDONED")

_FRESH = 6.0
"""Seconds since its last sign of life after which a client is not here, though FLARE lists it: three heartbeats."""


class Admin:
    """A session that is opened when it is needed, and opened anew when the server was away."""

    def __init__(self, kit: Path, timeout: float = 10.0) -> None:
        self._kit = kit
        self._timeout = timeout
        self._session: Session | None = None

    def submit(self, job: Path) -> str:
        """Give the server a job; its id. Raises MedFedError where the server does not take it."""
        return self._asked(lambda session: str(session.submit_job(str(job))))

    def ended(self, job: str) -> bool:
        """Whether a job is over, or not known."""
        status = self._asked(lambda session: session.get_job_status(job))
        return status is None or str(status).startswith(_ENDED)

    def abort(self, job: str) -> None:
        """End a job; its run can go on as another one."""
        self._asked(lambda session: session.abort_job(job))

    def connected(self) -> frozenset[str]:
        """The clients that are connected, and not only listed."""
        clients = self._asked(lambda session: list(session.get_connected_client_list()))
        return frozenset(each.name for each in clients if time.time() - each.last_connect_time < _FRESH)

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            with contextlib.suppress(Exception):
                self._session.close()
            self._session = None

    def _asked(self, question: Callable[[Session], T]) -> T:
        from nvflare.fuel.flare_api.flare_api import new_secure_session

        try:
            if self._session is None:
                self._session = new_secure_session(ADMINISTRATOR, str(self._kit), timeout=self._timeout)
            return question(self._session)
        except Exception as error:  # its errors share no base
            self.close()
            raise MedFedError(f"the FLARE server does not answer ({type(error).__name__}: {error})") from error
