"""A message as FLARE's tasks and results carry it: its bytes where it is small, else the offer of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable
from nvflare.fuel.f3.cellnet.cell import Cell

from medfed.core.codec import Buffer
from medfed.core.errors import CodecError
from medfed.engine.flare.files import LARGE, Offer, fetch, offer

_CONTENT = "content"


def loaded(pieces: Sequence[Buffer], cell: Cell, spool: Path) -> Shareable:
    """The pieces of an encoded message, to be sent. spool: the file that a large one goes through."""
    shareable = Shareable()
    if sum(map(len, pieces)) < LARGE:
        shareable[_CONTENT] = b"".join(pieces)
    else:
        shareable[_CONTENT] = offer(cell, pieces, spool).fields()
    return shareable


def carried(shareable: Shareable | None) -> Any:
    """What came; None where FLARE itself could not get anything."""
    if shareable is None or shareable.get_return_code() != ReturnCode.OK:
        return None
    return shareable.get(_CONTENT)


def unloaded(content: Any, party: str, cell: Cell, spool: Path, largest: int) -> Buffer:
    """The encoded message that a party sent. Raises CodecError for a larger one, and for what is no message."""
    if isinstance(content, bytes):
        if len(content) > largest:
            raise CodecError("a message is larger than there is reason for")
        return content
    return fetch(cell, Offer.read(content, party, largest), spool)
