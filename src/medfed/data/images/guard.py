"""The keeper of the guarded process that decodes files: whatever a file does to it is a reason, not a crash."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medfed.data.images import reasons
from medfed.data.images.limits import MEMORY, SECONDS
from medfed.data.images.wire import Broken, Header, Order, header_of, receive_array, receive_line, send
from medfed.data.raw import Unreadable

_ROOT = str(Path(__file__).resolve().parents[3])
"""The folder that this package is in."""

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


T = TypeVar("T")

COMMAND = ("-P", "-m", "medfed.data.images.child")
"""What the process runs, by this interpreter."""


class NotAnImage(Unreadable):
    """The file is none by its nature: a report, a directory, a presentation state."""


class Guard:
    """One process for one file after another; begun when it is needed, and begun anew where a file ended it."""

    def __init__(self, memory: int = MEMORY, seconds: float = SECONDS) -> None:
        self._limits = (str(memory), str(seconds))
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., Guard] | None = None
        self._lock = threading.Lock()

    def header(self, path: Path) -> Header:
        """What a file says of its image. Raises Unreadable; NotAnImage where it has none."""
        return self._answer(Order(str(path), pixels=False), lambda line: header_of(line.get("header")))

    def pixels(self, order: Order) -> NDArray[np.float32]:
        """The numbers of an image, (channels, …). Raises Unreadable."""

        def received(line: dict[str, Any]) -> NDArray[np.float32]:
            return receive_array(self._running().stdout, line.get("shape"))  # type: ignore[arg-type]

        return self._answer(order, received)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def _answer(self, order: Order, taken: Callable[[dict[str, Any]], T]) -> T:
        """What is made of the answer to an order.

        A process that ended is no proof against the file: others end processes too, when memory is short. Only what
        ends a fresh one again is called damaged.
        """
        with self._lock:
            try:
                return taken(self._asked(order))
            except (Broken, OSError):
                if (overdue := self._ended()) is not None:
                    raise Unreadable(overdue) from None
            try:
                return taken(self._asked(order))
            except (Broken, OSError):
                raise Unreadable(self._ended() or reasons.FATAL) from None

    def _asked(self, order: Order) -> dict[str, Any]:
        """The line of an answer. Raises Broken, OSError where the process is no more, and Unreadable."""
        process = self._running()
        send(process.stdin, asdict(order))  # type: ignore[arg-type]
        line = receive_line(process.stdout)  # type: ignore[arg-type]
        if "reason" in line:
            raise (NotAnImage if line.get("ignored") is True else Unreadable)(reasons.known(line["reason"]))
        return line

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and numbers
                [sys.executable, *COMMAND, *self._limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
            self._end = weakref.finalize(self, _end_process, self._process)
        return self._process

    def _ended(self) -> str | None:
        """End the process; the reason, where the clock did before."""
        process = self._running()
        if process.poll() is None:
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                process.kill()  # it lives, and said what cannot be
        code = process.wait()
        self.close()
        if code == -signal.SIGALRM:
            return f"takes longer than {self._seconds:g} seconds"
        return None


def _environment() -> dict[str, str]:
    """What the process may know of this one's environment, in which secrets may stand: where programs are."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    return {**kept, **_ONE_THREAD, "PYTHONPATH": path}


def _end_process(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
