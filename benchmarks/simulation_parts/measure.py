"""One body in a fresh process: when its rounds ended, and what it took of the machine. Linux alone.

Each body gets a process of its own, so that none warms or bloats another. Clocks: a body writes ``time.monotonic()``,
which is the machine's, not the process's, so that the parent may subtract its own reading from before the start.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_SECONDS = 0.02
"""Between two looks at the process."""

_PATIENCE_SECONDS = 600.0
"""A body that takes longer has failed."""

_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Peers report to nobody."""


class BodyFailed(Exception):
    """A body ended in an error; the text is the end of what it said."""


@dataclass(frozen=True)
class Sample:
    """One run of a body, in seconds, and its memory.

    first: from before the start of the process to the end of round 1. each: the mean of the later rounds, NaN where
    there are none. wall, cpu: of the whole process, with its children. memory: the largest sum, in bytes, of the
    proportional set sizes of the process and its descendants; 0 where it was not watched, as no timed run is, since
    each look at a process costs milliseconds.
    """

    first: float
    each: float
    wall: float
    cpu: float
    memory: int


def run_body(arguments: Sequence[str], python: str = sys.executable, *, watched: bool = False) -> Sample:
    """Run ``python -m benchmarks.simulation_parts.body`` to its end; watched: for its memory. Raises BodyFailed."""
    folder = tempfile.mkdtemp(dir=_scratch())
    stamps, said = Path(folder) / "stamps.json", Path(folder) / "said"
    command = [python, "-m", "benchmarks.simulation_parts.body", *arguments, "--stamps", str(stamps)]
    environment = os.environ | _QUIET | {"MEDFED_HOME": folder, "TMPDIR": folder}
    with said.open("wb") as output:
        before, cpu = time.monotonic(), _children_seconds()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            memory = _wait(process, watched)
        finally:
            _end(process)
        wall, cpu = time.monotonic() - before, _children_seconds() - cpu
    if process.returncode != 0 or not stamps.exists():
        raise BodyFailed(said.read_text(errors="replace")[-2000:].strip() or f"exit status {process.returncode}")
    ends = json.loads(stamps.read_text())
    later = len(ends) - 1
    each = (ends[-1] - ends[0]) / later if later else float("nan")
    return Sample(ends[0] - before, each, wall, cpu, memory)


@functools.cache
def _scratch() -> str:
    """The folder of all bodies' files, removed at the end of all.

    What one body left is not removed before the next begins: for minutes after thousands of files were deleted, ext4
    takes twenty times as long to make new ones, and that would fall on the next body.
    """
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    atexit.register(folder.cleanup)
    return folder.name


def _wait(process: subprocess.Popen[bytes], watched: bool) -> int:
    """Wait for a process; the peak of its tree's memory. Raises BodyFailed for one that takes too long."""
    peak, deadline = 0, time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise BodyFailed(f"not done after {_PATIENCE_SECONDS:.0f} s")
        if watched:
            peak = max(peak, sum(map(_pss, _tree(process.pid))))
        time.sleep(_LOOK_SECONDS)
    return peak


def _children_seconds() -> float:
    """CPU seconds of this process's ended children, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever the body's session still holds, if this process is interrupted or a child was left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _tree(pid: int) -> Iterator[int]:
    """The process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(children).split():
            yield from _tree(int(child))


def _pss(pid: int) -> int:
    """Bytes of a process's proportional set size; 0 once it has ended."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
