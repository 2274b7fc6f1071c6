"""Folders that only their owner may enter, and how one that cannot be written is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medfed.core.errors import UserError


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Raise UserError where what is done to a folder fails at the disk."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the folder cannot be read or written ({error.strerror or error})",
            where=str(error.filename or folder),
            remedy="mend its permissions or free disk space, and do it again",
        ) from error


def private_folder(path: Path) -> Path:
    """The folder, made where it is not there, which only its owner may read or enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
