"""Memory that a process shares with those it forks.

Objects go through it by pickle, whose arrays are written aside: sender and receiver are two halves of one program.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

_ALIGNMENT = 64
_LEAST = 2**20


@dataclass(frozen=True)
class Packed:
    """An object without its arrays, and the offset and length of each array in the shared memory."""

    content: bytes
    places: tuple[tuple[int, int], ...]


class SharedBuffer:
    """A growing region that one process writes and forked ones read, without a copy between them."""

    def __init__(self) -> None:
        self._file = os.memfd_create("medfed") if hasattr(os, "memfd_create") else _unlinked_file()
        os.ftruncate(self._file, _LEAST)
        self._map: mmap.mmap | None = None
        self._end = 0
        self._written: dict[tuple[int, int], tuple[int, int]] = {}

    def clear(self) -> None:
        """Write from the beginning again; nobody may still read what was there."""
        self._end = 0
        self._written.clear()

    def pack(self, content: Any) -> Packed:
        """Write an object's arrays after those there; an array that is there since the last clearing, not again.

        What was packed has to stay alive and as it is until then.
        """
        buffers: list[pickle.PickleBuffer] = []
        rest = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
        return Packed(rest, tuple(self._place(buffer.raw()) for buffer in buffers))

    def unpack(self, packed: Packed, *, copied_below: float) -> Any:
        """The object that another process packed; its arrays are read-only.

        Those of fewer bytes than ``copied_below`` are its own, the others are read where they stand, and hold until
        the writer clears the memory.
        """
        if not packed.places:
            return pickle.loads(packed.content)  # noqa: S301 - from a process forked from this program
        start = min(offset for offset, _ in packed.places)
        end = max(offset + length for offset, length in packed.places)
        shared = memoryview(self._mapped(end, grow=False)).toreadonly()
        own = memoryview(bytes(shared[start:end])) if end - start < copied_below else None
        buffers: list[bytes | memoryview] = []
        for offset, length in packed.places:
            if own is not None:
                buffers.append(own[offset - start : offset - start + length])
            else:
                view = shared[offset : offset + length]
                buffers.append(bytes(view) if length < copied_below else view)
        return pickle.loads(packed.content, buffers=buffers)  # noqa: S301

    def close(self) -> None:
        """Give the memory back to the system, once no view of it is left."""
        self._map = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _place(self, raw: memoryview) -> tuple[int, int]:
        key = np.frombuffer(raw, np.uint8).__array_interface__["data"][0], raw.nbytes
        place = self._written.get(key)
        if place is None:
            start = self._end + -self._end % _ALIGNMENT
            self._end = start + raw.nbytes
            self._mapped(self._end, grow=True)[start : self._end] = raw
            place = self._written[key] = start, raw.nbytes
        return place

    def _mapped(self, size: int, *, grow: bool) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            if grow and os.fstat(self._file).st_size < size:
                os.ftruncate(self._file, 1 << (size - 1).bit_length())
            self._map = mmap.mmap(self._file, os.fstat(self._file).st_size)
        return self._map


def _unlinked_file() -> int:
    with tempfile.TemporaryFile(prefix="medfed-") as file:
        return os.dup(file.fileno())
