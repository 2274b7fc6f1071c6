"""The codec: a message to bytes and back, without pickle.

Layout: ``MEDFED1\\0`` · header length (uint64, little endian) · header (JSON) · padding to 64 · raw buffers,
each aligned to 64 bytes. Decoded arrays are read-only views into the received bytes. Every size is checked
before anything is allocated, and unknown types, unknown fields and wrong types are refused.

The header says what the message and its buffers are: ``{"message":…,"buffers":[["<f4",[14]],…]}``. It has one
accepted form, so that one message has one encoding (see :mod:`medfed.core.fields`).
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Sequence
from mmap import mmap
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from medfed.core.errors import CodecError
from medfed.core.fields import MAX_DIMENSIONS, NAMES, Arrays, read, written
from medfed.core.messages import Message

M = TypeVar("M", bound=Message)

Buffer: TypeAlias = bytes | memoryview

_MAGIC = b"MEDFED1\0"
_START = len(_MAGIC) + 8
_ALIGNMENT = 64
_FINGERPRINT = "_fingerprint"
_PARTS = "_parts"
_MAX_HEADER = 64 * 2**20
_DTYPES = {name: dtype for dtype, name in NAMES.items()}


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises CodecError for a field of an unsupported type, or text that is not Unicode."""
    return b"".join(parts(message))


def parts(message: Message) -> Sequence[Buffer]:
    """The bytes of a message in pieces, its arrays as views that copy nothing; formed once, for messages are frozen.

    Raises CodecError as :func:`encode`.
    """
    known: Sequence[Buffer] | None = message.__dict__.get(_PARTS)
    if known is None:
        known = message.__dict__[_PARTS] = _pieces(message)
    return known


def _pieces(message: Message) -> list[Buffer]:
    header, arrays = _header(message)
    pieces: list[Buffer] = [_MAGIC + struct.pack("<Q", len(header)) + header]
    position = len(pieces[0])
    for array in arrays:
        if padding := -position % _ALIGNMENT:
            pieces.append(bytes(padding))
        if array.size:
            pieces.append(array.data.cast("B"))
        position += padding + array.nbytes
    return pieces


class Fingerprint(NamedTuple):
    """Size and SHA-256 (hex) of a message's encoding."""

    bytes: int
    sha256: str


def fingerprint(message: Message) -> Fingerprint:
    """The fingerprint of a message, formed once: messages are frozen, and so are their arrays once they are sent."""
    known: Fingerprint | None = message.__dict__.get(_FINGERPRINT)
    if known is None:
        pieces, hashed = parts(message), hashlib.sha256()
        for piece in pieces:
            hashed.update(piece)
        known = message.__dict__[_FINGERPRINT] = Fingerprint(sum(map(len, pieces)), hashed.hexdigest())
    return known


def decode(data: bytes | bytearray | memoryview | mmap, kind: type[M]) -> M:
    """The message in ``data``, which has to be a ``kind``. Raises CodecError for anything else."""
    view = memoryview(data).cast("B").toreadonly()
    if len(view) < _START or view[: len(_MAGIC)] != _MAGIC:
        raise CodecError("these bytes are not a MedFed message")
    (length,) = struct.unpack_from("<Q", view, len(_MAGIC))
    if length > min(_MAX_HEADER, len(view) - _START):
        raise CodecError("the message's header is longer than the message")
    try:
        received = bytes(view[_START : _START + length])
        header = json.loads(str(received, "utf-8"))
        arrays = _views(view, _START + length, header["buffers"])
        message: M = read(header["message"], kind, arrays)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CodecError(f"the message's header is malformed ({type(error).__name__})") from None
    if _header(message)[0] != received:
        raise CodecError("the message's header has more in it than its message, or another form")
    return message


def _header(message: Message) -> tuple[bytes, Arrays]:
    """The header of a message, in the one form that is accepted, and the arrays that follow it."""
    arrays: Arrays = []
    try:
        text = written(message, arrays)
        described = ",".join([f'["{NAMES[a.dtype]}",[{",".join(map(str, a.shape))}]]' for a in arrays])
        return f'{{"message":{text},"buffers":[{described}]}}'.encode(), arrays
    except ValueError as error:
        raise CodecError(f"the message cannot be written ({type(error).__name__})") from None


def _views(data: memoryview, position: int, described: list[list[Any]]) -> Arrays:
    views = []
    for name, shape in described:
        dtype = _DTYPES.get(name)
        if dtype is None:
            raise CodecError(f"arrays of type {name!r} are not accepted")
        if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > MAX_DIMENSIONS:
            raise CodecError("an array's shape is malformed")
        position += -position % _ALIGNMENT
        count = math.prod(shape)
        if count * dtype.itemsize > len(data) - position:
            raise CodecError("an array is larger than the bytes that came")
        views.append(np.frombuffer(data, dtype, count, position if count else 0).reshape(shape))
        position += count * dtype.itemsize
    if position != len(data):
        raise CodecError("bytes are left over after the last array")
    return views
