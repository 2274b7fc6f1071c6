"""A site's settings while it runs: ``site.yaml`` is read again when it changes, and a broken edit changes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from medfed.core.errors import TaskError
from medfed.spec.site import SiteFile, load_site

_GRAIN = 2.0
"""Seconds within which two edits may leave the same time at a file; that of the coarsest file systems."""

_Mark: TypeAlias = tuple[int, ...] | None


class LiveSettings:
    """What ``site.yaml`` says now. Threads may share one.

    problem: why the file as it stands does not hold, with file, line, cause and remedy, so that the settings read
    before it hold on; None where it does. on_change: called once with each new settings, before any caller of
    :meth:`current` sees them; where it raises, they do not hold, and the next call tries again.
    """

    def __init__(self, path: Path, on_change: Callable[[SiteFile], None] | None = None) -> None:
        """Raises TaskError, which lists every fault of the file."""
        self.path = path
        self.problem: str | None = None
        self._on_change = on_change
        self._lock = threading.RLock()
        self._mark, self._since, self._settled = _mark(path), time.monotonic(), False
        self._settings = load_site(path)

    def current(self) -> SiteFile:
        """The settings that hold now; a look at the file's times where nothing has changed.

        Raises what ``on_change`` raises.
        """
        with self._lock:
            mark = _mark(self.path)
            if mark != self._mark:
                self._mark, self._since, self._settled = mark, time.monotonic(), False
            if self.problem is not None or not self._settled:
                self._settled = time.monotonic() - self._since > _GRAIN
                self._read()
            return self._settings

    def _read(self) -> None:
        try:
            found = load_site(self.path)
        except TaskError as error:
            self.problem = str(error)
            return
        self.problem = None
        if found != self._settings:
            self._adopt(found)

    def _adopt(self, found: SiteFile) -> None:
        before, self._settings = self._settings, found
        try:
            if self._on_change is not None:
                self._on_change(found)
        except BaseException:
            self._settings, self._settled = before, False
            raise


def _mark(path: Path) -> _Mark:
    """What differs after an edit in place and after a rename over the file; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
