"""What reading one image may take. Whatever a file claims is held against these before memory is given to it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from medfed.data.raw import Unreadable

LARGEST_SIDE = 65_536
"""Rows or columns: as many as DICOM can write."""

LARGEST_IMAGE = 2**28
"""Numbers of one image or volume, 1 GiB as float32: a CT of 1,000 slices of 512×512."""

LARGEST_FILE = 4 * 2**30
"""Bytes of one file."""

MEMORY = 6 * 2**30
"""Bytes of address space of the process that decodes, beyond what it has when it begins."""

SECONDS = 60.0
"""The longest that one file may take."""

WITHOUT_PIXELS = "an image without pixels"
TOO_LARGE = f"larger than {LARGEST_IMAGE:,} numbers, the limit of one image"


def available_memory() -> int:
    """Bytes that this machine, or the container that this process is in, can still give; unbounded where unknown."""
    free = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    bound, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if bound and used and bound[0].isdecimal():
        free.append(max(int(bound[0]) - int(used[0]), 0))
    return min(free, default=sys.maxsize)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def check_shape(shape: Sequence[int]) -> None:
    """Raise Unreadable for a shape that is empty or beyond the limits."""
    if not shape or min(shape) < 1:
        raise Unreadable(WITHOUT_PIXELS)
    if max(shape) > LARGEST_SIDE or math.prod(shape) > LARGEST_IMAGE:
        raise Unreadable(TOO_LARGE)
