"""Zstandard (RFC 8878) over packed updates: fewer bytes still, and none of it lost."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError, MissingExtra
from medfed.core.messages import Message
from medfed.engine.compression.packed import Packed

_LEVEL = 1
"""Zstandard's fastest: weights hardly shrink any more at higher ones."""

_WINDOW = 2**27
"""The most bytes that opening keeps in view."""

_BESIDE = 4096
"""Bytes that the encoding of a packed update has beside its elements, at most."""


@dataclass(frozen=True, eq=False)
class Squeezed(Message, wire="compression.zstd"):
    """An encoded packed update of ``length`` bytes, squeezed."""

    length: int
    content: NDArray[np.uint8]

    @classmethod
    def pack(cls, packed: Message) -> Squeezed:
        """Squeeze a packed update."""
        encoded = encode(packed)
        return cls(len(encoded), np.frombuffer(_zstandard().ZstdCompressor(_LEVEL).compress(encoded), np.uint8))

    def opened(self, most: int) -> Message:
        """The packed update, whose update has ``most`` elements at most. Raises CodecError for anything else."""
        zstandard = _zstandard()
        if not 0 < self.length <= 8 * most + _BESIDE:
            raise CodecError("a squeezed update is larger than there is reason for")
        try:  # by a reader, since a frame can announce any size, which would be allocated at once
            reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(self.content.tobytes())
            content = reader.read(self.length + 1)
        except zstandard.ZstdError as error:
            raise CodecError("a squeezed update is damaged") from error
        if len(content) != self.length:
            raise CodecError("a squeezed update has another length than it says")
        packed = decode(content, Message)
        if not isinstance(packed, Packed):
            raise CodecError("what was squeezed is no packed update")
        return packed


def require_zstd() -> None:
    """Raise MissingExtra where the package is not installed."""
    _zstandard()


def _zstandard() -> ModuleType:
    try:
        return import_module("zstandard")
    except ImportError as error:
        raise MissingExtra(
            "federation.compression.zstd needs the extra 'zstd' (zstandard is not installed)",
            remedy="pip install 'medfed[zstd]'",
        ) from error
