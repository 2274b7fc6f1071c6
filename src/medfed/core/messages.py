"""Messages: the only things that cross between a coordinator and a site.

A message is a frozen dataclass of scalars, strings, arrays, tuples of these and other messages. The fields
of a message that is released as a sum say that they add, within which bound and to which resolution::

    @dataclass(frozen=True, eq=False)
    class WeightedDelta(Message, wire="fedavg.weighted_delta"):
        delta: Vector = adds(bound=2.0**20, resolution=2.0**-24)
        rows: int = adds(bound=2**31)
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import CodecError
from medfed.core.halves import in_halves
from medfed.core.mapped import pieces
from medfed.core.sensitivity import Moves

Vector: TypeAlias = NDArray[np.float32]
"""A flat float32 vector: all of a network's parameters, then its floating-point buffers, in library order."""

Moments: TypeAlias = NDArray[np.float64]
"""Float64 sums of a statistic."""

Counts: TypeAlias = NDArray[np.int64]
"""Int64 counts."""

M = TypeVar("M", bound="Message")

_BY_WIRE_NAME: dict[str, type[Message]] = {}


class Message:
    """Base of all messages; a subclass names itself on the wire: ``class Weights(Message, wire="weights")``."""

    WIRE: ClassVar[str]

    def __init_subclass__(cls, *, wire: str) -> None:
        super().__init_subclass__()
        known = _BY_WIRE_NAME.get(wire)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"two messages share the wire name {wire!r}: {known} and {cls}")
        cls.WIRE = wire
        _BY_WIRE_NAME[wire] = cls

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what was derived from them is not passed on to another process."""
        return {name: self.__dict__[name] for name in field_names(type(self))}


def message_type(wire: str) -> type[Message]:
    """The message class of that wire name. Raises CodecError where no installed code defines it."""
    try:
        return _BY_WIRE_NAME[wire]
    except KeyError:
        raise CodecError(f"no installed message is called {wire!r}") from None


_FIELDS: dict[type[Message], tuple[str, ...]] = {}


def field_names(kind: type[Message]) -> tuple[str, ...]:
    """The names of a message's fields, in order."""
    names = _FIELDS.get(kind)
    if names is None:
        names = _FIELDS[kind] = tuple(field.name for field in dataclasses.fields(kind))  # type: ignore[arg-type]
    return names


@dataclass(frozen=True)
class Adds:
    """How a field adds over sites.

    bound: the largest absolute value one site may contribute to any element. resolution: the step to which a
    fixed-point sum may round one site's contribution (0: an integer count). sensitivity: how much one patient can move
    one site's contribution, under the task's bounds; None: that is not known, and no noise can be calibrated to it.
    update: it is a change of weights, which a task may have sent compressed.
    """

    bound: float
    resolution: float
    sensitivity: Moves | None = None
    update: bool = False


_ADDS = "medfed.adds"


def adds(*, bound: float, resolution: float = 0.0, sensitivity: Moves | None = None, update: bool = False) -> Any:
    """Declare a dataclass field that adds over sites (see :class:`Adds`)."""
    return dataclasses.field(metadata={_ADDS: Adds(bound, resolution, sensitivity, update)})


_DECLARED: dict[type[Message], dict[str, Adds]] = {}


def additive_fields(kind: type[Message]) -> dict[str, Adds]:
    """Field name → declaration, of a message that is summed. Raises TypeError where a field declares nothing."""
    if kind in _DECLARED:
        return _DECLARED[kind]
    declared: dict[str, Adds] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        declaration = field.metadata.get(_ADDS)
        if declaration is None:
            raise TypeError(f"{kind.__name__}.{field.name} is summed but does not declare adds(...)")
        declared[field.name] = declaration
    _DECLARED[kind] = declared
    return declared


def add(total: M | None, contribution: M) -> M:
    """``total + contribution`` field by field, in each field's own type; the arrays of ``total`` change in place.

    The first contribution, whose total is None, is copied: the total's arrays are never a contribution's.
    Raises CodecError where the two have arrays of different shapes or types: the site's data or model differ.
    """
    kind = type(contribution)
    names = additive_fields(kind)
    values = [getattr(contribution, name) for name in names]
    if total is None:
        return kind(*[_copied(value) if isinstance(value, np.ndarray) else value for value in values])
    totals = [getattr(total, name) for name in names]
    for name, left, right in zip(names, totals, values, strict=True):
        arrays = isinstance(left, np.ndarray), isinstance(right, np.ndarray)
        if any(arrays) and not (all(arrays) and left.shape == right.shape and left.dtype == right.dtype):
            raise CodecError(f"{kind.__name__}.{name} has another shape or type than at the other sites")
    return kind(
        *[
            _increased(left, right) if isinstance(left, np.ndarray) else left + right
            for left, right in zip(totals, values, strict=True)
        ]
    )


def _copied(array: NDArray[Any]) -> NDArray[Any]:
    copy = np.empty(array.shape, array.dtype)
    _by_parts(np.copyto, copy, array)
    return copy


def _increased(total: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    _by_parts(lambda into, values: np.add(into, values, out=into), total, array)
    return total


def _by_parts(
    change: Callable[[NDArray[Any], NDArray[Any]], object], target: NDArray[Any], array: NDArray[Any]
) -> None:
    """Change each part of ``target``, whose memory is in one piece, by that of ``array``."""
    into, values = target.reshape(-1), array.reshape(-1)

    def work(half: slice) -> None:
        for part in pieces(values[half], _ADDED_AT_A_TIME):
            change(into[half][part], values[half][part])

    in_halves(work, values.size)


_ADDED_AT_A_TIME = 2**20
"""Elements: few enough that a contribution in a file is never in memory as a whole."""


def shapes_of(message: Message) -> tuple[Any, ...]:
    """The shape and type of each array of a summed message, in the order of its fields; None for a number."""
    values = [getattr(message, name) for name in additive_fields(type(message))]
    return tuple([(value.shape, value.dtype) if isinstance(value, np.ndarray) else None for value in values])


def out_of_bounds(message: Message) -> str | None:
    """The name of the first summed field that is not finite or exceeds its declared bound, or None."""
    for name, declaration in additive_fields(type(message)).items():
        if not _within(getattr(message, name), min(declaration.bound, sys.float_info.max)):
            return name
    return None


_AT_A_TIME = 2**16
"""Elements whose extremes are sought at a time, so that the second search finds them in the processor's cache."""


def _within(value: Any, bound: float) -> bool:
    """Whether all of a value is within ±bound, which is finite; NaN, which a minimum passes on, never is."""
    if isinstance(value, int | float):
        return -bound <= value <= bound
    flat = np.asarray(value).reshape(-1)
    for part in pieces(flat, _AT_A_TIME):
        few = flat[part]
        if not (-bound <= float(np.minimum.reduce(few)) and float(np.maximum.reduce(few)) <= bound):
            return False
    return True
