"""Contributions as whole numbers: fixed point, in the narrowest ring that the sum of all sites fits into.

A field that declares a bound B and a resolution ρ (a power of two; 1 for counts) becomes round(x / ρ), of which n sites
add up to n·⌈B/ρ⌉ at most: rings of 2^32, 2^64 or 2^256 elements hold that, with the sign. Rounding adds at most ρ/2
for each site to each element of a total.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import CodecError, DataError
from medfed.core.fields import MAX_DIMENSIONS
from medfed.core.messages import Adds, Message, additive_fields
from medfed.privacy import wide
from medfed.privacy.masks import Ring

R = TypeVar("R", bound=Message)

_NARROW, _MIDDLE, _WIDE = 32, 64, wide.BITS
_LARGEST_FACTOR = 2.0**126
"""Float32 numbers are multiplied by powers of two as such, if those are below this."""

_PIECE = 2**16
"""Elements that are rounded at a time, within the processor's cache."""


@dataclass(frozen=True)
class Fixed:
    """How a field becomes elements of a ring of 2^bits. bound, resolution: B and ρ. error: what a total may be off."""

    bits: int
    bound: float
    resolution: float
    error: float


def fixed(declared: Adds, sites: int, kind: np.dtype[Any] | type, largest: float | None = None) -> Fixed:
    """The fixed point of a field that so many sites add. kind: its array's type, or that of a number.

    largest: a tighter bound that the task sets for float32 arrays; they go into 32 bits then, at the finest resolution
    that n·B leaves room for. Raises ValueError where no ring is wide enough.
    """
    whole = declared.resolution == 0
    bound, resolution = declared.bound, 1.0 if whole else declared.resolution
    if largest is not None and kind == np.float32:
        bound = min(bound, largest)
        resolution = 2.0 ** (math.ceil(math.log2(sites * bound)) - (_NARROW - 2))
    steps = sites * math.ceil(bound / resolution)
    bits = next((bits for bits in (_NARROW, _MIDDLE, _WIDE) if steps < 2 ** (bits - 1)), None)
    if bits is None:
        raise ValueError(f"{sites} sites' contributions within ±{bound:g} in steps of {resolution:g} fit no ring")
    return Fixed(bits, bound, resolution, 0.0 if whole else sites * resolution / 2)


@dataclass(frozen=True, eq=False)
class Layout(Message, wire="secagg.layout"):
    """The shape and type of each field of a contribution, in order; an empty type is that of a number."""

    shapes: tuple[NDArray[np.int64], ...]
    types: tuple[str, ...]

    def same_as(self, other: Layout) -> bool:
        """Whether two layouts are equal."""
        mine, theirs = [s.tolist() for s in self.shapes], [s.tolist() for s in other.shapes]
        return self.types == other.types and mine == theirs

    @classmethod
    def of(cls, message: Message) -> Layout:
        """That of a contribution."""
        values = [getattr(message, name) for name in additive_fields(type(message))]
        arrays = [isinstance(value, np.ndarray) for value in values]
        return cls(
            tuple(np.array(v.shape if a else (), np.int64) for v, a in zip(values, arrays, strict=True)),
            tuple(v.dtype.str if a else "" for v, a in zip(values, arrays, strict=True)),
        )


@dataclass(frozen=True)
class Encoder:
    """Turns contributions of one kind, which so many sites add, into elements of rings, and totals back.

    largest: see :func:`fixed`.
    """

    kind: type[Message]
    sites: int
    largest: float | None = None

    def fields(self, layout: Layout) -> Iterator[tuple[str, Fixed, tuple[int, ...], np.dtype[Any] | None]]:
        """Each field's name, fixed point, shape, and array type (None: a number). Raises CodecError for a layout that
        is not the kind's."""
        declared = additive_fields(self.kind)
        if not len(declared) == len(layout.shapes) == len(layout.types):
            raise CodecError("a layout has other fields than its contribution")
        for (name, adds), shape, kind in zip(declared.items(), layout.shapes, layout.types, strict=True):
            if kind not in ("", "<f4", "<f8", "<i8") or shape.ndim != 1 or shape.size > MAX_DIMENSIONS:
                raise CodecError("a field of that type or shape is not summed")
            if (shape < 0).any():
                raise CodecError("a field of negative size is not summed")
            dtype = np.dtype(kind) if kind else None
            yield name, fixed(adds, self.sites, dtype or float, self.largest), tuple(shape.tolist()), dtype

    def error(self, layout: Layout) -> dict[str, float]:
        """By field, what any element of a total may be off the sum of contributions, beside its own type's rounding."""
        return {name: point.error for name, point, _, _ in self.fields(layout)}

    def sizes(self, layout: Layout) -> dict[int, tuple[int, ...]]:
        """The shape of the elements of each ring, by its bits. Raises CodecError as :meth:`fields` does."""
        sizes = dict.fromkeys((_NARROW, _MIDDLE, _WIDE), 0)
        for _, point, shape, _ in self.fields(layout):
            sizes[point.bits] += math.prod(shape)
        return {_NARROW: (sizes[_NARROW],), _MIDDLE: (sizes[_MIDDLE],), _WIDE: (sizes[_WIDE], wide.LIMBS)}

    def beyond(self, total: Message, sites: int) -> str | None:
        """The name of a field whose total is larger than so many sites' contributions can be, or None."""
        for name, point, _, _ in self.fields(Layout.of(total)):
            values = np.asarray(getattr(total, name))
            largest = max(-float(values.min(initial=0)), float(values.max(initial=0)))
            if not largest <= sites * (point.bound + point.resolution):
                return name
        return None

    def encode(self, contribution: Message) -> dict[int, Ring]:
        """The elements of a contribution. Raises DataError where a value is beyond its bound, or not finite."""
        layout = Layout.of(contribution)
        rings = {
            bits: np.zeros(shape, np.uint32 if bits == _NARROW else np.uint64)
            for bits, shape in self.sizes(layout).items()
        }
        position = dict.fromkeys((_NARROW, _MIDDLE, _WIDE), 0)
        for name, point, shape, _ in self.fields(layout):
            values, start = np.asarray(getattr(contribution, name)).reshape(-1), position[point.bits]
            into = rings[point.bits][start : start + math.prod(shape)]
            if not _rounded(values, point, into):
                raise DataError(
                    f"the field {name!r} is not finite, or beyond the {point.bound:g} within which it may be summed",
                    remedy="raise privacy.update_bound, lower the learning rate, or standardise the columns",
                )
            position[point.bits] += len(into)
        return rings

    def decode(self, rings: dict[int, Ring], layout: Layout) -> Message:
        """The total that elements stand for."""
        position, values = dict.fromkeys(rings, 0), {}
        for name, point, shape, dtype in self.fields(layout):
            start, size = position[point.bits], math.prod(shape)
            found = _unrounded(rings[point.bits][start : start + size], point, dtype)
            whole = point.error == 0.0
            values[name] = found.reshape(shape) if dtype is not None else (int if whole else float)(found[0])
            position[point.bits] += size
        return self.kind(**values)


def add_into(total: dict[int, Ring], part: dict[int, Ring]) -> None:
    """Add one's elements to a total, in place. Raises CodecError where they are not as many."""
    for bits, into in total.items():
        other = part[bits]
        if into.shape != other.shape or into.dtype != other.dtype:
            raise CodecError("a masked contribution has not the elements of its layout")
        if bits == _WIDE:
            wide.add_rows(into, other)
        else:
            np.add(into, other, out=into)


def _rounded(values: NDArray[Any], point: Fixed, into: Ring) -> bool:
    """Round to whole steps; whether all values are finite and within ±bound."""
    if point.bits == _WIDE:
        return _rounded_wide(values, point, into)
    signed = into.view(np.int32 if point.bits == _NARROW else np.int64)
    whole = values.dtype.kind in "iu"
    scaled = not (whole and point.resolution == 1)
    exact = values.dtype == np.float32 and 1 / point.resolution < _LARGEST_FACTOR
    scratch = np.empty(_PIECE, np.float32 if exact else np.float64)
    for start in range(0, values.size, _PIECE):
        few = values[start : start + _PIECE]
        least, most = (few.min(), few.max()) if few.dtype == np.float64 else (few.min().item(), few.max().item())
        if not (-point.bound <= least and most <= point.bound):
            return False
        if scaled:
            few = np.multiply(few, scratch.dtype.type(1 / point.resolution), out=scratch[: few.size])
            np.rint(few, out=few)
        signed[start : start + _PIECE] = few
    return True


def _rounded_wide(values: NDArray[Any], point: Fixed, into: Ring) -> bool:
    for row, value in zip(into, values.tolist(), strict=True):
        if not -point.bound <= value <= point.bound:
            return False
        steps = round(value / point.resolution) if point.error else round(value)
        row[:] = wide.row_of(steps)
    return True


def _unrounded(elements: Ring, point: Fixed, dtype: np.dtype[Any] | None) -> NDArray[Any]:
    """The values of elements; in the elements' own memory where they have its size."""
    if point.bits == _WIDE:
        steps = [wide.signed(row) for row in elements]
        return np.array([each * point.resolution if point.error else each for each in steps], dtype or object)
    signed: NDArray[Any] = elements.view(np.int32 if point.bits == _NARROW else np.int64)
    if dtype is None:
        dtype = np.dtype(np.float64 if point.error else np.int64)
    same_size = dtype.itemsize == elements.itemsize
    values: NDArray[Any] = elements.view(dtype) if same_size else np.empty(elements.shape, dtype)
    for start in range(0, elements.size, _PIECE):
        few = signed[start : start + _PIECE]
        values[start : start + _PIECE] = np.multiply(few, point.resolution) if point.error else few
    return values
