"""The post between the processes of one job: letters that may get lost, and large messages that are fetched.

They go straight from FLARE's cell to cell, in MedFed's own encoding. FLARE's server lets a letter of a client pass only
under that client's name (its token is bound to where it comes from), and clients reach each other through it alone: the
origin that FLARE states is therefore the sender's.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.message import Message as Cargo
from nvflare.fuel.f3.streaming.stream_types import Stream, StreamError, StreamFuture

from medfed.core.codec import Buffer, decode, encode
from medfed.core.errors import CodecError
from medfed.core.messages import Message
from medfed.engine.flare.letters import Letter, Wanted
from medfed.engine.flare.streams import Download, Pieces
from medfed.engine.flare.turns import Turns

LARGE = 2**20
"""The bytes from which on a message is fetched rather than sent."""

_CHANNEL = "medfed"
_LETTER, _WANTED, _STREAM = "letter", "wanted", "stream"
_REFERENCE, _ATTEMPT = "medfed_reference", "medfed_attempt"


class Post:
    """The post office of one cell. received: called with the sender's cell and each letter, by FLARE's threads: it
    must not take long."""

    def __init__(self, cell: Cell, received: Callable[[str, Letter], None]) -> None:
        self._cell = cell
        self._received = received
        self._offered: dict[str, _Offered] = {}
        self._downloads: dict[tuple[str, str], Download] = {}
        self._turns = Turns()
        self._lock = threading.Lock()
        cell.core_cell.register_request_cb(_CHANNEL, _LETTER, self._letter_came)
        cell.core_cell.register_request_cb(_CHANNEL, _WANTED, self._wanted_came)
        cell.register_stream_cb(_CHANNEL, _STREAM, self._stream_came)

    def letter(self, number: str, pieces: Sequence[Buffer], to: str) -> Letter:
        """A letter with an encoded message. A large one is kept for the cell ``to`` until it is withdrawn."""
        size = sum(map(len, pieces))
        if size < LARGE:
            return Letter(number, b"".join(pieces))
        reference = secrets.token_hex(16)
        self._offered[reference] = _Offered(to, pieces)
        return Letter(number, b"", reference, size)

    def withdraw(self, letter: Letter) -> None:
        """Let go of what was kept for a letter."""
        offered = self._offered.pop(letter.reference, None)
        if offered is not None:
            offered.news.set()

    def send(self, to: str, letter: Letter) -> None:
        """Send a letter. It may get lost, as any: who awaits an answer sends it again."""
        self._tell(to, _LETTER, letter)

    def opened(self, source: str, letter: Letter, folder: Path, largest: int, awaited: Callable[[], bool]) -> Buffer:
        """The encoded message of a letter; a large one is fetched into a file without a name in the folder.

        Raises CodecError for a larger one, or where it does not arrive while it is ``awaited``; RunFolderError.
        """
        if max(len(letter.content), letter.size) > largest:
            raise CodecError("a message is larger than there is reason for")
        if not letter.reference or letter.size <= 0:
            return letter.content
        download = Download(letter, folder)
        self._downloads[source, letter.reference] = download
        try:
            return download.whole(lambda wanted: self._tell(source, _WANTED, wanted), awaited)
        finally:
            del self._downloads[source, letter.reference]
            download.close()

    def _tell(self, to: str, topic: str, message: Message) -> None:
        self._cell.core_cell.fire_and_forget(_CHANNEL, topic, to, Cargo(payload=encode(message)), optional=True)

    def _serve(self, offered: _Offered) -> None:
        """Send what was last asked for, one stream at a time, until nothing is.

        What FLARE cannot send is asked for again; a stream that is stuck is left to itself then.
        """
        while self._is_wanted(offered):
            with self._turns.turn():
                with self._lock:
                    wanted, offered.wanted = offered.wanted, None
                    offered.news.clear()
                if wanted is None:
                    continue
                self._stream(offered.to, wanted, offered.pieces).add_done_callback(offered.news.set)
                offered.news.wait()

    def _stream(self, to: str, wanted: Wanted, pieces: Sequence[Buffer]) -> StreamFuture:
        cargo = Cargo({_REFERENCE: wanted.reference, _ATTEMPT: wanted.attempt}, Pieces(pieces, wanted.position))
        return self._cell.send_stream(_CHANNEL, _STREAM, to, cargo, optional=True)

    def _is_wanted(self, offered: _Offered) -> bool:
        with self._lock:
            offered.served = offered.wanted is not None
            return offered.served

    # ------------------------------------------------------------------------------------- called by FLARE's threads

    def _letter_came(self, cargo: Cargo) -> None:
        with contextlib.suppress(CodecError):
            self._received(_origin(cargo.headers), decode(_bytes(cargo), Letter))

    def _wanted_came(self, cargo: Cargo) -> None:
        with contextlib.suppress(CodecError):
            wanted, origin = decode(_bytes(cargo), Wanted), _origin(cargo.headers)
            offered = self._offered.get(wanted.reference)
            if offered is None or offered.to != origin or not 0 <= wanted.position < offered.size:
                return
            with self._lock:
                offered.wanted, served, offered.served = wanted, offered.served, True
                offered.news.set()
            if not served:
                threading.Thread(target=self._serve, args=(offered,), daemon=True).start()

    def _stream_came(self, future: StreamFuture, stream: Stream, resume: bool) -> None:
        headers = stream.get_headers() or {}
        download = self._downloads.get((_origin(headers), str(headers.get(_REFERENCE))))
        if download is None:
            raise StreamError("nothing is awaited by this name")
        download.append(int(headers.get(_ATTEMPT, 0)), stream)


@dataclass
class _Offered:
    """A large message that is kept for a cell. wanted: what was last asked of it; served: whether a thread looks after
    it; news: set when that is to look up."""

    to: str
    pieces: Sequence[Buffer]
    wanted: Wanted | None = None
    served: bool = False
    news: threading.Event = field(default_factory=threading.Event)

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


def _origin(headers: dict[str, object]) -> str:
    return str(headers.get(MessageHeaderKey.ORIGIN))


def _bytes(cargo: Cargo) -> bytes | bytearray | memoryview:
    """What came. Raises CodecError for anything but bytes."""
    if not isinstance(cargo.payload, bytes | bytearray | memoryview):
        raise CodecError("these are no bytes")
    return cargo.payload
