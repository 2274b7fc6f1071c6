"""Where a run's time went, as a table."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medfed.engine.outcome import RunTimings

_IMPORTED = time.monotonic()


def seconds_since_start() -> float:
    """Seconds since this process began; where the system does not tell, since this module was imported."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


def print_timings(timings: RunTimings) -> None:
    """A row for each phase: seconds over all processes, and their share."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("phase", "seconds", "share", title="time, all processes")
    for each in timings.phases:
        shown.add_row(each.phase, f"{each.seconds:.3f}", f"{each.share:.0%}")
    Console().print(shown)
