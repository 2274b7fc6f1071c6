"""medfed's commands in forked children of one warm process, each ended by SIGKILL at a chosen change of a file.

A change is a line that a ledger appends, a commit of the sites' memories, a file renamed into place, or one removed.
Run as a script it reads one JSON object a line, ``{"arguments", "folder", "kill", "torn", "trace", "output"}``, and
writes one with the child's ``status``: negative for a signal, as ``subprocess`` says it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Changes:
    """The changes below a folder so far; the ``kill``-th is not made, or only half of it where it may be torn."""

    folder: Path
    kill: int | None
    torn: bool
    trace: Path

    def install(self) -> None:
        """Stand before every change from here on."""
        write, replace, unlink, connect = os.write, Path.replace, Path.unlink, sqlite3.connect
        self.count = 0

        def watched_write(descriptor: int, line: bytes) -> int:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if self._is_mine(path) and self._now(f"append {path.name}"):
                if self.torn:
                    write(descriptor, line[: len(line) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return write(descriptor, line)

        def watched_replace(path: Path, target: Path) -> Path:
            if self._is_mine(path) and self._now(f"replace {target.parent.name}/{target.name}"):
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(path, target)

        def watched_unlink(path: Path, missing_ok: bool = False) -> None:
            if self._is_mine(path) and self._now(f"unlink {path.name}"):
                os.kill(os.getpid(), signal.SIGKILL)
            unlink(path, missing_ok=missing_ok)

        def watched_connect(database: str | Path, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(database, **options)
            if self._is_mine(Path(database)):
                connection.set_trace_callback(Commits(self._now).watch)
            return connection

        os.write = watched_write
        sqlite3.connect = watched_connect  # type: ignore[assignment]
        Path.replace = watched_replace  # type: ignore[method-assign, assignment]
        Path.unlink = watched_unlink  # type: ignore[method-assign]

    def _is_mine(self, path: Path) -> bool:
        return path.absolute().is_relative_to(self.folder)

    def _now(self, change: str) -> bool:
        self.count += 1
        with self.trace.open("a") as file:
            file.write(f"{change}\n")
        return self.count - 1 == self.kill


@dataclass
class Commits:
    """The commits of one connection, each named after its tables and sites: ``commit version Nord Ost``.

    A statement that changes something outside of a transaction is one too.
    """

    now: Callable[[str], bool]
    written: list[str] = field(default_factory=list)
    begun: bool = False

    def watch(self, statement: str) -> None:
        """Called before each statement."""
        verb = statement.split(maxsplit=1)[0]
        if verb == "BEGIN":
            self.written, self.begun = [], True
        elif verb == "ROLLBACK":
            self.begun = False
        elif verb == "COMMIT" or (not self.begun and verb in ("CREATE", "INSERT", "UPDATE", "DELETE")):
            self.begun = False
            if self.now(" ".join(["commit", *self.written])):
                os.kill(os.getpid(), signal.SIGKILL)
        elif found := re.match(r"INSERT (?:OR REPLACE )?INTO (\w+) VALUES \('?([^',]+)", statement):
            self.written += [word for word in found.groups() if word not in self.written]


def _child(job: dict[str, Any]) -> None:
    from medfed.cli.main import main

    with Path(job["output"]).open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    Changes(Path(job["folder"]), job["kill"], job["torn"], Path(job["trace"])).install()
    main(job["arguments"])


def _serve() -> None:
    import matplotlib.figure
    import safetensors.torch
    import torch

    import medfed.api
    import medfed.report.page

    _warm = (matplotlib.figure, safetensors.torch, torch, medfed.api, medfed.report.page)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(job)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


@dataclass
class Killable:
    """The warm process, from the side of a test."""

    process: subprocess.Popen[str]
    folder: Path
    jobs: int = 0

    def run(self, *arguments: str | Path, run: Path, kill: int | None = None, torn: bool = False) -> int:
        """One command over a run folder; returns its status. The changes it made are in :attr:`trace`."""
        self.jobs += 1
        self.trace_file = self.folder / f"trace-{self.jobs}"
        self.output = self.folder / f"output-{self.jobs}"
        job = {
            "arguments": [str(argument) for argument in arguments],
            "folder": str(run.absolute()),
            "kill": kill,
            "torn": torn,
            "trace": str(self.trace_file),
            "output": str(self.output),
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(json.loads(self.process.stdout.readline())["status"])

    @property
    def trace(self) -> list[str]:
        """The changes of the last command, in order."""
        return self.trace_file.read_text().splitlines()


@contextmanager
def killable(folder: Path) -> Iterator[Killable]:
    """The warm process, ended behind."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    try:
        yield Killable(process, folder)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


if __name__ == "__main__":
    _serve()
