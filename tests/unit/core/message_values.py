"""Values of every type that a message's field may have, and equality to the bit."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import math
import pkgutil
import struct
import types
import typing
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import medfed
from medfed.core.messages import Message
from medfed.core.wire import Failure

ACCEPTED_DTYPES = ("<f4", "<f8", "<i8", "<i4", "<u8", "<u4", "|u1", "|i1", "|b1")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
SCALARS = {
    str: TEXT,
    int: st.integers(-(2**70), 2**70),
    float: FLOATS,
    bool: st.booleans(),
    bytes: st.binary(max_size=80),
}


def arrays(dtype: Any) -> st.SearchStrategy[np.ndarray]:
    """Arrays from 0-d on, empty ones among them."""
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values for a field of this type; raises TypeError for a type that no message should have."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(st.none() if member is types.NoneType else values(member) for member in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is np.ndarray:
        return arrays(np.dtype(typing.get_args(arguments[1])[0]))
    if hint is Message:
        return st.builds(Failure, TEXT, TEXT, TEXT)
    if isinstance(hint, type) and issubclass(hint, Message):
        return messages(hint)
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return st.sampled_from(hint)
    if hint in SCALARS:
        return SCALARS[hint]
    raise TypeError(f"no message field should have the type {hint}")


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of one class, each field drawn by its type hint."""
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in dataclasses.fields(kind)})


def installed_messages() -> list[type[Message]]:
    """Every message class of the installed package, abstract bases aside."""
    for module in pkgutil.walk_packages(medfed.__path__, "medfed."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, waiting = [], [Message]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found += [kind for kind in subclasses if kind.__module__.startswith("medfed.")]
    return sorted(found, key=lambda kind: kind.WIRE)


def same(left: Any, right: Any) -> bool:
    """Equality of type and bits, through messages and tuples; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Message):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in dataclasses.fields(left))
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or struct.pack("<d", left) == struct.pack("<d", right)
    return bool(left == right)
