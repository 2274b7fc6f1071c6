"""Processes that a benchmark starts, and ends with all their descendants. Linux alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

_LOOK_SECONDS = 0.01
"""Between two looks at what is awaited."""

_PARTING_SECONDS = 5.0
"""What a process has to end by itself, once it was told."""


class Failed(Exception):
    """What was measured did not come about; the text says why, with the end of what was logged."""


class Processes(ExitStack):
    """The processes of one measurement: what each says goes to a file in ``folder``; all end with the block."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> int:
        """Start a process under a name; its id."""
        with self.said(name).open("wb") as output:
            process = subprocess.Popen(
                command,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that what a terminal interrupts is this process alone
            )
        self._started[name] = process
        self.callback(_end, process)
        return process.pid

    def said(self, name: str) -> Path:
        """The file of all that the process of this name said."""
        return self._folder / f"{name}.said"

    def wait(self, name: str, seconds: float) -> None:
        """Wait for the process to end well. Raises Failed."""
        process = self._started[name]
        self.await_that(lambda: process.poll() is not None, f"{name} to end", seconds)
        if process.returncode != 0:
            raise Failed(f"{name} ended with {process.returncode}: {self._tail(name)}")

    def await_that(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Look until it holds. Raises Failed where it takes too long or a process ended badly in the meantime."""
        deadline = time.monotonic() + seconds
        while not holds():
            for name, process in self._started.items():
                if process.poll():
                    raise Failed(f"{name} ended with {process.returncode} before {what}: {self._tail(name)}")
            if time.monotonic() > deadline:
                ends = "\n".join(f"{name}: {self._tail(name)}" for name in self._started)
                raise Failed(f"waited {seconds:.0f} s for {what}\n{ends}")
            time.sleep(_LOOK_SECONDS)

    def _tail(self, name: str) -> str:
        return self.said(name).read_text(errors="replace")[-1500:].strip()


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nothing listens."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def tree_memory(root: int) -> int:
    """Bytes of the proportional set sizes of a process and its descendants."""
    return sum(map(_pss, _tree(root)))


def _tree(root: int) -> list[int]:
    """The process and its descendants, of whatever session: FLARE's jobs lead their own."""
    found = [root]
    with suppress(OSError):  # it has ended
        for children in Path(f"/proc/{root}/task").glob("*/children"):
            for child in _read(children).split():
                found += _tree(int(child))
    return found


def _pss(process: int) -> int:
    lines = _read(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Tell a process to end, then end whatever is left of it and of its descendants."""
    tree = _tree(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PARTING_SECONDS)
    for each in tree:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    process.wait()
