"""The fields of a message as JSON, and back: the part of the codec that knows Python's types.

Arrays and bytes stay outside: the JSON refers to them by number, in order. How the fields of a class are written and
read is worked out once per class. A value is written by its own type, and read as its field declares.
"""

from __future__ import annotations

import enum
import functools
import math
import types
import typing
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, TypeAlias

import numpy as np

from medfed.core.errors import CodecError
from medfed.core.messages import Message, field_names, message_type

Arrays: TypeAlias = list[np.ndarray[Any, Any]]
Write: TypeAlias = Callable[[Any, Arrays], str]
Read: TypeAlias = Callable[[Any, Arrays, int], Any]

NAMES = {np.dtype(name): name for name in ("<f4", "<f8", "<i8", "<i4", "<u8", "<u4", "<u2", "|u1", "|i1", "|b1")}
"""The types of arrays that are sent."""

MAX_DIMENSIONS = 8
_MAX_DEPTH = 32
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def written(value: Any, arrays: Arrays) -> str:
    """The JSON of a value; its arrays are appended to ``arrays``."""
    kind: Any = type(value)
    return _writer(kind)(value, arrays)


@functools.cache
def _writer(kind: Any) -> Write:
    """How values of this type are written. Raises CodecError for a type that is not sent."""
    if issubclass(kind, Message):
        return _message_writer(kind)
    if issubclass(kind, enum.StrEnum):
        return lambda value, _: encode_basestring(value.value)
    if kind is types.NoneType:
        return lambda _value, _: "null"
    for family, write in _WRITERS.items():
        if issubclass(kind, family):
            return write
    raise CodecError(f"values of type {kind.__name__} are not sent")


def _message_writer(kind: type[Message]) -> Write:
    opening = f'{{"type":{encode_basestring(kind.WIRE)},"fields":{{'
    keys = [(name, f"{encode_basestring(name)}:") for name in field_names(kind)]

    def write(message: Any, arrays: Arrays) -> str:
        fields = [key + written(getattr(message, name), arrays) for name, key in keys]
        return f"{opening}{','.join(fields)}}}}}"

    return write


def _write_array(value: np.ndarray[Any, Any], arrays: Arrays) -> str:
    dtype = value.dtype if value.dtype in NAMES else value.dtype.newbyteorder("<")
    if dtype not in NAMES or value.ndim > MAX_DIMENSIONS:
        raise CodecError(f"arrays of type {value.dtype} with {value.ndim} dimensions are not sent")
    arrays.append(np.asarray(value, dtype, order="C"))
    return f'{{"array":{len(arrays) - 1}}}'


def _write_bytes(value: bytes, arrays: Arrays) -> str:
    arrays.append(np.frombuffer(value, np.uint8))
    return f'{{"bytes":{len(arrays) - 1}}}'


def _write_numpy_scalar(value: np.generic, arrays: Arrays) -> str:
    item = value.item()
    if isinstance(item, np.generic):
        raise CodecError(f"values of type {type(value).__name__} are not sent")
    return written(item, arrays)


def _write_float(value: float, _: Arrays) -> str:
    return float.__repr__(value) if math.isfinite(value) else f'"{float.__repr__(value)}"'


def _write_tuple(value: tuple[Any, ...], arrays: Arrays) -> str:
    return f"[{','.join([written(item, arrays) for item in value])}]"


_WRITERS: dict[type, Write] = {
    np.ndarray: _write_array,
    bytes: _write_bytes,
    np.generic: _write_numpy_scalar,
    bool: lambda value, _: "true" if value else "false",
    int: lambda value, _: int.__repr__(value),
    str: lambda value, _: encode_basestring(value),
    float: _write_float,
    tuple: _write_tuple,
}
"""By family, the first that fits: NumPy's scalars are partly Python's too, and a bool is an int."""


# ------------------------------------------------------------------------------------------------------ reading


def read(value: Any, hint: Any, arrays: Arrays) -> Any:
    """The value of type ``hint`` that its JSON and ``arrays`` stand for.

    Raises CodecError, or another error that a malformed document gives rise to: ValueError, LookupError, TypeError,
    AttributeError, OverflowError or RecursionError.
    """
    return _reader(hint)(value, arrays, 0)


@functools.cache
def _reader(hint: Any) -> Read:
    """How a field of this type is read. Raises TypeError for a type that no field may have."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if (alias := getattr(origin, "__value__", None)) is not None:  # NumPy from 2.5 on declares NDArray by `type`
        return _reader(alias[arguments])
    if origin in (types.UnionType, typing.Union):
        (member,) = (m for m in arguments if m is not types.NoneType)
        return _optional_reader(_reader(member))
    if origin is tuple:
        return _tuple_reader(_reader(arguments[0]))
    if origin is np.ndarray or hint is np.ndarray:
        return _array_reader(np.dtype(typing.get_args(arguments[1])[0]) if arguments else None)
    if issubclass(hint, Message):
        return _message_reader(hint)
    if hint is bytes:
        return lambda value, arrays, _: _referred(value["bytes"], arrays).tobytes()
    if issubclass(hint, enum.StrEnum):
        return lambda value, _arrays, _: hint(value)
    return _read_float if hint is float else _exact_reader(hint)


def _message_reader(hint: type[Message]) -> Read:
    def read_message(value: Any, arrays: Arrays, depth: int) -> Message:
        kind = message_type(value["type"])
        if not issubclass(kind, hint):
            raise CodecError(f"a {hint.__name__} was expected, not a {kind.__name__}")
        fields, readers = value["fields"], _field_readers(kind)
        if fields.keys() != readers.keys():
            raise CodecError(f"the fields of {kind.__name__} are {sorted(readers)}, but others came")
        inner = _deeper(depth)
        return kind(**{name: reader(fields[name], arrays, inner) for name, reader in readers.items()})

    return read_message


_FIELD_READERS: dict[type[Message], dict[str, Read]] = {}


def _field_readers(kind: type[Message]) -> dict[str, Read]:
    if kind not in _FIELD_READERS:
        hints = typing.get_type_hints(kind)
        _FIELD_READERS[kind] = {name: _reader(hints[name]) for name in field_names(kind)}
    return _FIELD_READERS[kind]


def _deeper(depth: int) -> int:
    if depth >= _MAX_DEPTH:
        raise CodecError("the message is nested too deeply")
    return depth + 1


def _optional_reader(member: Read) -> Read:
    return lambda value, arrays, depth: None if value is None else member(value, arrays, depth)


def _tuple_reader(item_reader: Read) -> Read:
    def read_tuple(value: Any, arrays: Arrays, depth: int) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise CodecError("a list was expected")
        inner = _deeper(depth)
        return tuple([item_reader(item, arrays, inner) for item in value])

    return read_tuple


def _array_reader(wanted: np.dtype[Any] | None) -> Read:
    def read_array(value: Any, arrays: Arrays, _: int) -> np.ndarray[Any, Any]:
        array = _referred(value["array"], arrays)
        if wanted is not None and array.dtype != wanted:
            raise CodecError(f"an array of {wanted} was expected")
        return array

    return read_array


def _referred(index: Any, arrays: Arrays) -> np.ndarray[Any, Any]:
    if type(index) is not int or not 0 <= index < len(arrays):
        raise CodecError("an array that did not come is referred to")
    return arrays[index]


def _exact_reader(hint: type) -> Read:
    def read_exactly(value: Any, _arrays: Arrays, _: int) -> Any:
        if type(value) is not hint:
            raise CodecError(f"a value of type {hint.__name__} was expected")
        return value

    return read_exactly


def _read_float(value: Any, _arrays: Arrays, _: int) -> float:
    if type(value) is float:
        return value
    if isinstance(value, str):
        return _NON_FINITE[value]
    raise CodecError("a value of type float was expected")
