"""The codec: a message to bytes and back, without pickle.

Layout: ``MEDFED1\\0`` · header length (uint64, little endian) · header (JSON) · padding to 64 · raw buffers,
each aligned to 64 bytes. Decoded arrays are read-only views into the received bytes. Every size is checked
before anything is allocated, and unknown types, unknown fields and wrong types are refused.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import struct
import types
import typing
from typing import Any, TypeVar

import numpy as np

from medfed.core.errors import CodecError
from medfed.core.messages import Message, message_type

M = TypeVar("M", bound=Message)

_MAGIC = b"MEDFED1\0"
_ALIGNMENT = 64
_MAX_HEADER = 64 * 2**20
_MAX_DEPTH = 32
_MAX_DIMENSIONS = 8
_DTYPES = {name: np.dtype(name) for name in ("<f4", "<f8", "<i8", "<i4", "<u8", "<u4", "|u1", "|i1", "|b1")}
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises CodecError for a field of an unsupported type, or text that is not Unicode."""
    header, buffers = _header(message)
    parts: list[bytes | memoryview] = [_MAGIC, struct.pack("<Q", len(header)), header]
    position = len(_MAGIC) + 8 + len(header)
    for buffer in buffers:
        padding = -position % _ALIGNMENT
        parts += [bytes(padding), buffer.data.cast("B") if buffer.size else b""]
        position += padding + buffer.nbytes
    return b"".join(parts)


def _header(message: Message) -> tuple[bytes, list[np.ndarray[Any, Any]]]:
    """The header of a message, in the one form that is accepted, and the arrays that follow it."""
    buffers: list[np.ndarray[Any, Any]] = []
    packed = _pack(message, buffers)
    content = {"message": packed, "buffers": [[b.dtype.str, list(b.shape)] for b in buffers]}
    try:
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode(), buffers
    except ValueError as error:
        raise CodecError(f"the message cannot be written ({type(error).__name__})") from None


def decode(data: bytes, kind: type[M]) -> M:
    """The message in ``data``, which has to be a ``kind``. Raises CodecError for anything else."""
    if len(data) < len(_MAGIC) + 8 or data[: len(_MAGIC)] != _MAGIC:
        raise CodecError("these bytes are not a MedFed message")
    (length,) = struct.unpack_from("<Q", data, len(_MAGIC))
    start = len(_MAGIC) + 8
    if length > min(_MAX_HEADER, len(data) - start):
        raise CodecError("the message's header is longer than the message")
    try:
        written = data[start : start + length]
        header = json.loads(written)
        message: M = _unpack(header["message"], kind, _views(data, start + length, header["buffers"]), 0)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CodecError(f"the message's header is malformed ({type(error).__name__})") from None
    if _header(message)[0] != written:
        raise CodecError("the message's header has more in it than its message, or another form")
    return message


def _views(data: bytes, position: int, described: list[list[Any]]) -> list[np.ndarray[Any, Any]]:
    views = []
    for name, shape in described:
        dtype = _DTYPES.get(name)
        if dtype is None:
            raise CodecError(f"arrays of type {name!r} are not accepted")
        if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > _MAX_DIMENSIONS:
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


def _pack(value: Any, buffers: list[np.ndarray[Any, Any]]) -> Any:
    match value:
        case Message():
            fields = dataclasses.fields(value)  # type: ignore[arg-type]
            return {
                "type": value.WIRE,
                "fields": {f.name: _pack(getattr(value, f.name), buffers) for f in fields},
            }
        case np.ndarray():
            array = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(value.shape)
            if array.dtype.str not in _DTYPES or array.ndim > _MAX_DIMENSIONS:
                raise CodecError(f"arrays of type {value.dtype} with {array.ndim} dimensions are not sent")
            buffers.append(array)
            return {"array": len(buffers) - 1}
        case bytes():
            buffers.append(np.frombuffer(value, np.uint8))
            return {"bytes": len(buffers) - 1}
        case enum.StrEnum():
            return value.value
        case np.generic() if not isinstance(value.item(), np.generic):
            return _pack(value.item(), buffers)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case tuple():
            return [_pack(item, buffers) for item in value]
        case _:
            raise CodecError(f"values of type {type(value).__name__} are not sent")


_HINTS: dict[type[Message], dict[str, Any]] = {}


def _hints(kind: type[Message]) -> dict[str, Any]:
    """The type of each field, in order."""
    if kind not in _HINTS:
        hints = typing.get_type_hints(kind)
        _HINTS[kind] = {field.name: hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return _HINTS[kind]


def _unpack(value: Any, hint: Any, buffers: list[np.ndarray[Any, Any]], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise CodecError("the message is nested too deeply")
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _unpack_optional(value, hint, buffers, depth)
    if origin is tuple:
        (item_hint, *_ellipsis) = typing.get_args(hint)
        if not isinstance(value, list):
            raise CodecError("a list was expected")
        return tuple(_unpack(item, item_hint, buffers, depth + 1) for item in value)
    if origin is np.ndarray or hint is np.ndarray:
        return _unpack_array(value, hint, buffers)
    if issubclass(hint, Message):
        return _unpack_message(value, hint, buffers, depth)
    if hint is bytes:
        return _buffer(value["bytes"], buffers).tobytes()
    if issubclass(hint, enum.StrEnum):
        return hint(value)
    if hint is float:
        if isinstance(value, str):
            return _NON_FINITE[value]
        value = float(value) if type(value) is int else value
    if type(value) is not hint:
        raise CodecError(f"a value of type {hint.__name__} was expected")
    if hint is str:
        value.encode()  # raises ValueError for a lone surrogate, which no message could carry on
    return value


def _unpack_optional(value: Any, hint: Any, buffers: list[np.ndarray[Any, Any]], depth: int) -> Any:
    members = typing.get_args(hint)
    if value is None and types.NoneType in members:
        return None
    (member,) = (m for m in members if m is not types.NoneType)
    return _unpack(value, member, buffers, depth)


def _buffer(index: Any, buffers: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    if type(index) is not int or not 0 <= index < len(buffers):
        raise CodecError("an array that did not come is referred to")
    return buffers[index]


def _unpack_array(value: Any, hint: Any, buffers: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    array = _buffer(value["array"], buffers)
    arguments = typing.get_args(hint)
    if arguments:
        (wanted,) = typing.get_args(arguments[1])
        if array.dtype != np.dtype(wanted):
            raise CodecError(f"an array of {np.dtype(wanted)} was expected")
    return array


def _unpack_message(value: Any, hint: type[Message], buffers: list[np.ndarray[Any, Any]], depth: int) -> Message:
    kind = message_type(value["type"])
    if not issubclass(kind, hint):
        raise CodecError(f"a {hint.__name__} was expected, not a {kind.__name__}")
    hints = _hints(kind)
    fields = value["fields"]
    if set(fields) != set(hints):
        raise CodecError(f"the fields of {kind.__name__} are {sorted(hints)}, but others came")
    return kind(**{name: _unpack(fields[name], hint, buffers, depth + 1) for name, hint in hints.items()})
