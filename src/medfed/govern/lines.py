"""Thousands of files to which whole lines are appended, through a few descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from medfed.core.files import sync_folder

_DESCRIPTORS = 2048
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


class AppendFolder:
    """A folder's files open for appending, the least recently used of them closed.

    It keeps at most 2,048 descriptors, and at most half of what the process may have, which it raises to 4,096 where
    the system lets it.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self.durable = durable
        self._limit = min(_DESCRIPTORS, _descriptors_allowed() // 2)
        self._open: OrderedDict[str, int] | None = OrderedDict()

    def descriptor(self, name: str, *, new: bool) -> int:
        """A descriptor of the file, valid until the next call. Raises OSError; only a new file may be absent."""
        if self._open is None:
            raise OSError(errno.EBADF, "it is closed")
        found = self._open.get(name)
        if found is not None:
            self._open.move_to_end(name)
            return found
        if len(self._open) >= self._limit:
            os.close(self._open.popitem(last=False)[1])
        found = os.open(f"{self.path}/{name}", _FLAGS | (os.O_CREAT if new else 0), 0o644)
        try:
            if new and self.durable:
                sync_folder(self.path)
        except OSError:
            os.close(found)
            raise
        self._open[name] = found
        return found

    def close(self) -> None:
        """Close all files, for good; a second call does nothing."""
        for descriptor in (self._open or {}).values():
            os.close(descriptor)
        self._open = None


def _descriptors_allowed() -> int:
    """The descriptors that this process may have, after asking for twice as many as a folder needs."""
    wanted = 2 * _DESCRIPTORS
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return wanted
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most)
        )
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@dataclass(slots=True)
class LineFile:
    """A file of whole lines, ``end`` bytes of them; a line that fails leaves it as it was."""

    folder: AppendFolder
    name: str
    end: int = 0

    @classmethod
    def existing(cls, folder: AppendFolder, name: str) -> LineFile:
        """The file as it is on the disk, which may be absent or end with a torn line."""
        try:
            return cls(folder, name, (folder.path / name).stat().st_size)
        except FileNotFoundError:
            return cls(folder, name)

    def append(self, *lines: bytes) -> None:
        """Write lines and their newlines, at once and whole. Raises OSError; then nothing was added."""
        descriptor = self.folder.descriptor(self.name, new=self.end == 0)
        rest = b"\n".join((*lines, b""))
        end = self.end + len(rest)
        try:
            self._cut_remains(descriptor)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if self.folder.durable:
                os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                self._cut_remains(descriptor)
            raise
        self.end = end

    def cut_torn_line(self) -> int:
        """Cut off an unfinished last line; returns its bytes."""
        torn = 0
        if self.end:
            with (self.folder.path / self.name).open("rb") as file:
                for line in file:
                    torn = 0 if line.endswith(b"\n") else len(line)
        if torn:
            self.end -= torn
            self._cut_remains(self.folder.descriptor(self.name, new=False))
        return torn

    def _cut_remains(self, descriptor: int) -> None:
        """Cut off what a failed line left behind."""
        found = os.fstat(descriptor)
        if found.st_size < self.end or not found.st_nlink:
            raise OSError(errno.EIO, "lines that were written are gone")
        if found.st_size > self.end:
            os.ftruncate(descriptor, self.end)
