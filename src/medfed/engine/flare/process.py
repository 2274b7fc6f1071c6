"""A FLARE process in the foreground: its lines as JSON, and its end with ours, however we end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medfed.engine.flare import bound

_STOP_SECONDS = 10.0

_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""How glibc gives FLARE's processes memory, unless the environment says otherwise: models each by itself, in large
pages, and back to the system when they are freed; what streams keep at a time from one heap for all threads."""


def log(event: str, **fields: Any) -> None:
    """One JSON line on standard output."""
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
    print(json.dumps(line, ensure_ascii=False), flush=True)  # noqa: T201 - the log of a service


class FlareProcess:
    """A running FLARE server or client; to be started from the main thread, with which the kernel ends it.

    The processes that it starts for jobs have sessions of their own, and watch it themselves.
    """

    def __init__(self, command: Sequence[str], workspace: Path, environment: Mapping[str, str]) -> None:
        for name in ("pid.fl", "shutdown.fl", "restart.fl", "daemon_pid.fl"):
            (workspace / name).unlink(missing_ok=True)
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-I", "-S", bound.__file__, str(os.getpid()), *command],
            cwd=workspace,
            env={**_ALLOCATOR, **os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="backslashreplace",
        )
        threading.Thread(target=self._relay, name="flare-log", daemon=True).start()

    @property
    def status(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End it: politely, then for good."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _relay(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            if line.strip():
                log("flare", message=line.rstrip())
