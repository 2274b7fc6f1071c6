"""Messages that wait until all are here: the first few in memory, the others on disk."""

from __future__ import annotations

import tempfile
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medfed.core.codec import decode, parts
from medfed.core.mapped import is_mapped
from medfed.core.messages import Message

M = TypeVar("M", bound=Message)

IN_MEMORY = 64 * 2**20
"""The bytes that wait in memory."""


class Spool:
    """A folder that lives as long as the context, begun where it is needed."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._left = in_memory
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def kept(self, message: M) -> M:
        """The message as it is, if there is room for it or it looks into a file; or else as views into one."""
        if any(is_mapped(value) for value in vars(message).values() if isinstance(value, np.ndarray)):
            return message
        size = sum(map(len, parts(message)))
        if size <= self._left:
            self._left -= size
            return message
        path = self._file()
        with path.open("wb") as file:
            file.writelines(parts(message))
        with path.open("rb") as file:
            return decode(mmap(file.fileno(), 0, access=ACCESS_READ), type(message))

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of bytes to write to, in memory or in a file."""
        size = int(np.prod(shape))
        if size <= self._left:
            self._left -= size
            return np.empty(shape, np.uint8)
        return np.memmap(self._file(), np.uint8, "w+", shape=shape)

    def _file(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="medfed-")
        self._files += 1
        return Path(self._folder.name) / str(self._files)
