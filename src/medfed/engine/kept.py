"""Messages that sites keep, decoded once for all sites that keep the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap

from medfed.core.codec import decode
from medfed.core.messages import Message

_BOUND = 64 * 2**20
_LARGEST = _BOUND // 16
"""A larger message is decoded anew each time, rather than pushing the small ones out."""


@dataclass(slots=True)
class _Item:
    encoded: bytes
    message: Message | None = None


class KeptMessages:
    """The messages used most recently, by the SHA-256 of their encoding, up to ``bound`` bytes of encodings.

    While it is here, a message is one object for all who kept an equal one, and its arrays are read-only.
    """

    def __init__(self, bound: int = _BOUND, largest: int = _LARGEST) -> None:
        self._bound = bound
        self._largest = largest
        self._items: OrderedDict[bytes, _Item] = OrderedDict()
        self._bytes = 0

    def add(self, digest: bytes, encoded: bytes) -> None:
        """Remember a message that was just written; it is decoded when it is asked for."""
        if digest not in self._items and len(encoded) <= self._largest:
            self._items[digest] = _Item(encoded)
            self._bytes += len(encoded)
            while self._bytes > self._bound:
                self._bytes -= len(self._items.popitem(last=False)[1].encoded)

    def get(self, digest: bytes, read: Callable[[], bytes | mmap]) -> Message:
        """The message of that digest; ``read`` fetches its encoding where it is not remembered."""
        if digest not in self._items:
            encoded = read()
            if len(encoded) > self._largest:
                return decode(encoded, Message)
            self.add(digest, bytes(encoded))
        item = self._items[digest]
        self._items.move_to_end(digest)
        if item.message is None:
            item.message = decode(item.encoded, Message)
        return item.message
