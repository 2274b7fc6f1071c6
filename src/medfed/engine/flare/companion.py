"""A service that ends with the process that began it.

``python -m medfed.engine.flare.companion coordinator|site FOLDER PARENT`` is ``medfed coordinator start`` or
``medfed site start``, with its log in the folder. One of a folder at a time works: where another is still ending, it
waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from medfed.core.files import alone
from medfed.engine.flare.service import serve_coordinator, serve_site

_EVERY = 0.3
_STOP_SECONDS = 25.0
_SERVICES = {"coordinator": serve_coordinator, "site": serve_site}


class Companion:
    """A service in a process of its own, begun anew where it ends by itself."""

    def __init__(self, service: str, folder: Path, every: float = 5.0) -> None:
        """every: seconds from the end of one process to the beginning of the next."""
        self._service, self._folder, self._every = service, folder, every
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0

    @property
    def log(self) -> Path:
        """Its JSON lines."""
        return self._folder / "service.log"

    def watch(self) -> None:
        """Begin it, the first time or again."""
        if self._process is not None and self._process.poll() is not None:
            self._process, self._not_before = None, time.monotonic() + self._every
        if self._process is None and time.monotonic() >= self._not_before:
            command = [sys.executable, "-m", __name__, self._service, str(self._folder), str(os.getpid())]
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )

    def ask_to_stop(self) -> None:
        """Let it begin to end."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End it and all that it started."""
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def together(companions: Sequence[Companion]) -> Iterator[None]:
    """Companions that begin at once and end at once."""
    try:
        for companion in companions:
            companion.watch()
        yield
    finally:
        for companion in companions:
            companion.ask_to_stop()
        for companion in companions:
            companion.stop()


def _end_with(parent: int) -> None:
    """Stop this process, politely, within a second of its parent."""
    while os.getppid() == parent:
        time.sleep(_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)


def _main() -> int:
    service, folder, parent = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with alone(folder / ".service.lock"):
        return _SERVICES[service](folder)


if __name__ == "__main__":
    sys.exit(_main())
