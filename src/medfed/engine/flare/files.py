"""Large messages as files, which the receiver fetches in chunks, going on after a cut where it was.

FLARE's download service carries the chunks. Nobody holds a message in memory for it: the sender reads chunks from its
file, the receiver appends them to its own.
"""

from __future__ import annotations

import gc
import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.streaming.download_service import Consumer, Downloadable, ProduceRC, download_object
from nvflare.fuel.f3.streaming.obj_downloader import ObjectDownloader

from medfed.core.codec import Buffer
from medfed.core.errors import CodecError

LARGE = 2**20
"""The bytes from which on a message goes as a file."""

_CHUNK = 8 * 2**20
_REQUEST_SECONDS = 30.0
_OFFER_SECONDS = 3600.0
_RETRIES = 6
_AT = "at"


@dataclass(frozen=True)
class Offer:
    """A file that another party may fetch. source, reference: FLARE's names of the sender and of the file."""

    source: str
    reference: str
    size: int
    sha256: str

    def fields(self) -> dict[str, Any]:
        """The offer as FLARE carries it."""
        return asdict(self)

    @classmethod
    def read(cls, fields: Any, party: str, largest: int) -> Offer:
        """The offer of its own file in what a party sent. Raises CodecError for anything else, or too large a file."""
        kinds = {"source": str, "reference": str, "size": int, "sha256": str}
        if not isinstance(fields, dict) or {name: type(value) for name, value in fields.items()} != kinds:
            raise CodecError("a file was offered in a form that is none")
        if not 0 < fields["size"] <= largest:
            raise CodecError(f"a file of {fields['size']} bytes was offered, more than there is reason for")
        if fields["source"].split(".")[0] != party:
            raise CodecError("a file of another party was offered")
        return cls(**fields)


def store(pieces: Sequence[Buffer], path: Path) -> tuple[int, str]:
    """Write the pieces of a message to a file, which only its owner reads; its size and SHA-256."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    hashed, size = hashlib.sha256(), 0
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        path.chmod(0o600)
        for piece in pieces:
            hashed.update(piece)
            size += file.write(piece)
    return size, hashed.hexdigest()


def offer(cell: Cell, pieces: Sequence[Buffer], path: Path) -> Offer:
    """Write a message to a file and offer that to one receiver, for an hour."""
    _spare_collector()
    size, digest = store(pieces, path)
    downloader = ObjectDownloader(cell=cell, timeout=_OFFER_SECONDS, num_receivers=1)
    reference = downloader.add_object(_FilePart(path))
    return Offer(cell.get_fqcn(), reference, size, digest)


def fetch(cell: Cell, offered: Offer, path: Path) -> memoryview:
    """What is offered, as a view of the file that it was written to, whose name is gone.

    A chunk that does not come is asked for again, for some minutes. Raises CodecError where that does not help, or
    where other bytes came than were offered.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sink = _Appending(path, offered.size)
    try:
        download_object(
            offered.source, offered.reference, _REQUEST_SECONDS, cell, sink, max_retries=_RETRIES, secure=False
        )
        gc.collect()  # chunks stay in cycles of FLARE's messages
        if sink.missing:
            raise CodecError(f"a file did not arrive: {sink.missing} of its {offered.size} bytes are missing")
        with path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    finally:
        sink.close()
        path.unlink(missing_ok=True)
    if hashlib.sha256(view).hexdigest() != offered.sha256:
        raise CodecError("a file did not arrive as it was offered")
    return view


@cache
def _spare_collector() -> None:
    """Keep Python's collector from looking through all that there is by now, mostly modules, again and again."""
    gc.collect()
    gc.freeze()


class _FilePart(Downloadable):  # type: ignore[misc]
    """A file in chunks; it is removed once it was fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def produce(self, state: dict[str, int] | None, requester: str) -> tuple[str, Any, dict[str, int]]:
        """The chunk at a position."""
        at = (state or {}).get(_AT, 0)
        with self._path.open("rb") as file:
            file.seek(at)
            data = file.read(_CHUNK)
        return (ProduceRC.OK, data, {_AT: at + len(data)}) if data else (ProduceRC.EOF, None, {})

    def downloaded_to_all(self) -> None:
        """Nobody will ask for it again."""
        self._path.unlink(missing_ok=True)
        gc.collect()


class _Appending(Consumer):  # type: ignore[misc]
    """Appends what comes to a file, up to its announced size."""

    supports_pipelining = True

    def __init__(self, path: Path, size: int) -> None:
        super().__init__()
        self._file = path.open("xb", buffering=0)
        path.chmod(0o600)
        self.missing = size

    def consume(self, ref_id: str, state: dict[str, int], data: bytes) -> dict[str, int]:
        """Write a chunk."""
        self.missing -= len(data)
        if self.missing < 0:
            raise CodecError("more bytes came than were offered")
        self._file.write(data)
        return state

    def download_completed(self, ref_id: str) -> None:
        """All came that was sent."""

    def download_failed(self, ref_id: str, reason: str) -> None:
        """It was cut off for longer than is waited for."""

    def close(self) -> None:
        """Give the file back."""
        self._file.close()
