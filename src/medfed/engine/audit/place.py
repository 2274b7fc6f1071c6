"""The folder ``audit/`` of a run, where one audit works at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medfed.core.errors import RunFolderError


@contextmanager
def held(run_folder: Path) -> Iterator[None]:
    """Make the folder, which the owner alone may read, and hold it.

    Raises RunFolderError where it cannot be written, or another audit holds it.
    """
    folder = run_folder / "audit"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        raise RunFolderError(
            f"cannot write ({error.strerror})", where=str(folder), remedy="mend the folder's permissions"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                "another audit of this run is at work", where=str(run_folder), remedy="wait until it is done"
            ) from None
        yield
