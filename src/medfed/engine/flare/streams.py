"""Large messages on their way: read from where they are, written to a file, going on after a cut where it was.

FLARE's streams carry them. Nobody holds a second copy in memory: the sender's stream looks into the message itself, and
the receiver's file is mapped.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryFile

from nvflare.fuel.f3.streaming.stream_types import Stream, StreamError

from medfed.core.codec import Buffer
from medfed.core.errors import CodecError, RunFolderError
from medfed.engine.flare.letters import Letter, Wanted

_PIECE = 4 * 2**20
"""The most bytes that are taken from a stream at once."""

_STALLED = 10.0
"""Seconds without a byte after which the rest is asked for again."""

_STALLS = 12
"""So many times in a row."""

_LOOK_UP = 0.5
"""Seconds after which a wait looks whether it is still worth while."""


class Pieces(Stream):  # type: ignore[misc]
    """The bytes of a message from a position on, without a copy. At its end it lets go of them, for FLARE does not."""

    def __init__(self, pieces: Sequence[Buffer], position: int) -> None:
        ends = list(accumulate(map(len, pieces)))
        super().__init__(ends[-1] - position)
        self._views = [memoryview(piece) for piece in pieces]
        self._ends = ends
        self._position = position

    def read(self, size: int) -> memoryview | bytes:
        """Up to so many bytes of one piece; none at the end."""
        index = bisect_right(self._ends, self._position)
        if index == len(self._views):
            self._views, self._ends = [], []
            return b""
        start = len(self._views[index]) - (self._ends[index] - self._position)
        data = self._views[index][start : start + size]
        self._position += len(data)
        return data


class Download:
    """A large message that is being fetched into a file. Several streams may bring parts of it, one after the other."""

    def __init__(self, letter: Letter, folder: Path) -> None:
        """The file is made in a folder; it has no name, and only its owner reads it. Raises RunFolderError."""
        self._reference, self._size, self._folder = letter.reference, letter.size, folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see close
        except OSError as error:
            raise self._unwritable(error) from error
        self._changed = threading.Condition()
        self._attempt = self._position = 0
        self._fault: Exception | None = None

    def append(self, attempt: int, stream: Stream) -> None:
        """Take what a stream brings, unless a later attempt has begun. Raises StreamError, which ends the stream."""
        while data := memoryview(stream.read(_PIECE)).cast("B"):
            with self._changed:
                if attempt != self._attempt:
                    raise StreamError("another attempt has begun")
                self._write(data)
                self._changed.notify_all()

    def whole(self, ask: Callable[[Wanted], None], awaited: Callable[[], bool]) -> memoryview:
        """All of it, as a view of the file.

        What stops coming is asked for again, some minutes long, as long as it is ``awaited``. Raises CodecError where
        that does not help, or where too much came; RunFolderError where it cannot be written.
        """
        stalls = 0
        while not self._complete() and stalls < _STALLS and awaited():
            before = self._position
            ask(self._next())
            self._wait(awaited)
            stalls = stalls + 1 if self._position == before else 0
        if self._position < self._size:
            raise CodecError(f"a message did not arrive: {self._size - self._position} of its bytes are missing")
        return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))

    def close(self) -> None:
        """Let go of the file, of which a view stays; later streams bring nothing."""
        with self._changed:
            self._attempt = -1
            self._file.close()

    def _next(self) -> Wanted:
        with self._changed:
            self._attempt += 1
            return Wanted(self._reference, self._position, self._attempt)

    def _wait(self, awaited: Callable[[], bool]) -> None:
        """Until it is complete, or nothing came for too long."""
        with self._changed:
            idle, before = 0.0, self._position
            while not self._complete() and idle < _STALLED and awaited():
                idle = 0.0 if self._changed.wait(_LOOK_UP) or self._position > before else idle + _LOOK_UP
                before = self._position

    def _complete(self) -> bool:
        if self._fault is not None:
            raise self._fault
        return self._position == self._size

    def _write(self, data: memoryview) -> None:
        if len(data) > self._size - self._position:
            self._fault = CodecError("more bytes came than were announced")
            raise StreamError("more bytes came than were announced")
        try:
            while data:
                written = self._file.write(data)
                self._position += written
                data = data[written:]
        except OSError as error:
            self._fault = self._unwritable(error)
            raise StreamError("it cannot be written") from error

    def _unwritable(self, error: OSError) -> RunFolderError:
        remedy = "free disk space or mend the folder's permissions"
        return RunFolderError(f"cannot write ({error.strerror or error})", where=str(self._folder), remedy=remedy)
