"""Contents too large for a database, each in a file of its own; the database says which of them count."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from medfed.core.codec import Buffer
from medfed.core.errors import RunFolderError
from medfed.core.files import sync_folder
from medfed.engine.database import damaged, unwritable, written_twice

_LARGE = 2**18
"""From this many bytes on, a file is several times as fast as a database's pages, and copies nothing."""


class LargeFiles:
    """The large contents of many sites, in a folder that only its owner may read.

    A file is written before the database names it, and removed after the database forgot it. What a kill left over
    in between is removed by :meth:`keep_only`.
    """

    def __init__(self, folder: Path | None, *, durable: bool) -> None:
        """None: nothing is large enough."""
        self._folder = folder
        self._durable = durable

    def takes(self, size: int) -> bool:
        """Whether a content of that many bytes belongs into a file."""
        return self._folder is not None and size >= _LARGE

    def write(self, site: str, name: str, pieces: Sequence[Buffer]) -> None:
        """Write a new file. Raises RunFolderError; then there is none, or another process wrote it."""
        path = self._path(site, name)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise written_twice(str(path)) from error
        except OSError as error:
            raise unwritable(error, path) from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                if self._durable:
                    file.flush()
                    os.fsync(descriptor)
            if self._durable:
                sync_folder(path.parent)
        except BaseException as error:
            self.remove(site, [name])
            if isinstance(error, OSError):
                raise unwritable(error, path) from error
            raise

    def read(self, site: str, name: str) -> mmap:
        """A file's content, mapped rather than copied. Raises RunFolderError where it is gone or empty."""
        path = self._path(site, name)
        try:
            with path.open("rb") as file:
                return mmap(file.fileno(), 0, access=ACCESS_READ)
        except (OSError, ValueError) as error:
            raise damaged(str(path)) from error

    def remove(self, site: str, names: Iterable[str]) -> None:
        """Remove files; one that cannot be removed is left for :meth:`keep_only`."""
        for name in names:
            with contextlib.suppress(OSError):
                self._path(site, name).unlink()

    def keep_only(self, site: str, names: set[str]) -> None:
        """Remove all other files of a site."""
        if self._folder is not None and (folder := self._path(site)).is_dir():
            self.remove(site, {file.name for file in folder.iterdir()} - names)

    def _path(self, site: str, *name: str) -> Path:
        if self._folder is None:
            raise RunFolderError("a private store has no files")
        return self._folder.joinpath(hashlib.sha256(site.encode()).hexdigest()[:32], *name)
