"""Updates as they travel: what each method makes of a flat vector, and the vector that comes out of it again.

A packed update is untrusted where it arrives: ``unpacked`` checks every size before anything is allocated, and raises
CodecError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import CodecError
from medfed.core.messages import Message, Vector

CHUNK = 2048
"""Elements of an update that share one scale under int8."""

_LEVELS = 127


@runtime_checkable
class Packed(Protocol):
    """A packed update."""

    def size(self) -> int:
        """The elements of the update. Raises CodecError where the parts do not fit together."""
        ...

    def unpacked(self) -> Vector:
        """The update again, shape (d,), in memory of its own."""
        ...


@dataclass(frozen=True, eq=False)
class Exact(Message, wire="compression.exact"):
    """The update as it is, shape (d,)."""

    values: Vector

    def size(self) -> int:
        """The elements."""
        return _flat(self.values)

    def unpacked(self) -> Vector:
        """A copy."""
        return self.values.copy()


@dataclass(frozen=True, eq=False)
class HalfPrecision(Message, wire="compression.bfloat16"):
    """The upper 16 bits of each float32 after rounding to nearest, ties to even (bfloat16), shape (d,)."""

    values: NDArray[np.uint16]

    @classmethod
    def pack(cls, update: Vector) -> HalfPrecision:
        """Round a finite vector."""
        bits = update.view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return cls(((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16))

    def size(self) -> int:
        """The elements."""
        return _flat(self.values)

    def unpacked(self) -> Vector:
        """Zeros in the lower bits."""
        found: Vector = (self.values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return found


@dataclass(frozen=True, eq=False)
class Int8(Message, wire="compression.int8"):
    """x ≈ scale · q with q in -127…127, shape (d,), and one scale for each 2,048 elements: their largest |x| / 127."""

    scales: Vector
    values: NDArray[np.int8]

    @classmethod
    def pack(cls, update: Vector) -> Int8:
        """Round a finite vector to the nearest steps."""
        values = np.empty(update.size, np.int8)
        scales = np.empty(math.ceil(update.size / CHUNK), np.float32)
        for number, part in _chunks(update.size):
            x = update[part]
            scales[number] = scale = np.abs(x).max() / np.float32(_LEVELS)
            np.rint(x / scale if scale > 0 else 0 * x, out=values[part], casting="unsafe")
        return cls(scales, values)

    def size(self) -> int:
        """The elements."""
        if _flat(self.scales) != math.ceil(_flat(self.values) / CHUNK):
            raise CodecError("a compressed update has another number of scales than of chunks")
        return len(self.values)

    def unpacked(self) -> Vector:
        """scale · q."""
        update = self.values.astype(np.float32)
        for number, part in _chunks(update.size):
            update[part] *= self.scales[number]
        return update


@dataclass(frozen=True, eq=False)
class Sparse(Message, wire="compression.sparse"):
    """The elements of an update of ``length`` that are sent, by their ascending places; the others are zero."""

    length: int
    places: NDArray[np.uint32]
    values: Vector

    @classmethod
    def pack(cls, update: Vector, fraction: float) -> Sparse:
        """The share of the elements that are largest in absolute value, one at least."""
        kept = min(update.size, max(1, math.ceil(fraction * update.size)))
        places = np.sort(np.argpartition(np.abs(update), update.size - kept)[update.size - kept :])
        return cls(update.size, places.astype(np.uint32), update[places])

    def size(self) -> int:
        """The elements, sent or not."""
        places = self.places
        if _flat(places) != _flat(self.values) or not 0 <= self.length < 2**32:
            raise CodecError("a sparse update has another number of places than of values")
        if len(places) and (int(places[-1]) >= self.length or not np.all(places[1:] > places[:-1])):
            raise CodecError("the places of a sparse update are not ascending, or beyond its end")
        return self.length

    def unpacked(self) -> Vector:
        """The values at their places among zeros."""
        update = np.zeros(self.length, np.float32)
        update[self.places] = self.values
        return update


def _chunks(size: int) -> list[tuple[int, slice]]:
    return [(number, slice(start, start + CHUNK)) for number, start in enumerate(range(0, size, CHUNK))]


def _flat(array: NDArray[np.generic]) -> int:
    if array.ndim != 1:
        raise CodecError("a compressed update is not a flat vector")
    return len(array)
