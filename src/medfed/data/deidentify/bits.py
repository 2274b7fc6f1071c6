"""The bits of pixels: where a pixel has room for more bits than it has, the others can hold what no viewer shows.

PS3.5, 8.1.1: of Bits Allocated, Bits Stored are the pixel, the highest of which is High Bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfed.data.deidentify.decoded import any_frame
from medfed.data.deidentify.streams import precision
from medfed.data.raw import Unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

_ALLOCATED = frozenset({1, 8, 16, 32, 64})


class OddBits(Exception):
    """Something can hide in bits that are no part of the image."""


@dataclass(frozen=True)
class Bits:
    """Of a pixel: how many have room, how many are it, which of them is the highest, and whether it is signed."""

    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def unused(self) -> int:
        """How many bits are no part of the pixel."""
        return self.allocated - self.stored

    def hold(self, pixels: NDArray[Any]) -> bool:
        """Whether pixels have no more bits than these; a sign does not have to be extended."""
        low = -(2 ** (self.stored - 1)) if self.signed else 0
        return bool(pixels.min() >= low and pixels.max() < 2**self.stored)


def without_unused_bits(source: Dataset, syntax: UID) -> bytes:
    """Native pixel data whose unused bits are zeros, or the sign's: as PS3.5 reads them, it is the same image.

    Raises OddBits where the header does not say which they are, or has them below the pixel, as old editions could.
    """
    bits, pixels = _bits(source), bytes(source.PixelData)
    if bits.high != bits.stored - 1:
        raise OddBits
    if not bits.unused:
        return pixels
    kind = f"{'<' if syntax.is_little_endian else '>'}{'i' if bits.signed else 'u'}{bits.allocated // 8}"
    changed = np.frombuffer(pixels, kind).copy()
    changed <<= bits.unused
    changed >>= bits.unused
    return changed.tobytes()


def check_unused_bits(source: Dataset, syntax: UID, frames: list[bytes], content: bytes) -> None:
    """Raise OddBits where something stands in unused bits of compressed pixels, or could, where they cannot be decoded.

    frames: bare ones. content: the bytes that the data set was read from.
    """
    from pydicom.uid import RLELossless

    bits = _bits(source)
    if not bits.unused:
        return
    try:
        found = any_frame(content, len(frames), lambda frame: not bits.hold(frame), raw=True, unused_bits=True)
    except Unreadable:
        found = syntax == RLELossless or max(map(precision, frames)) > bits.stored
    if found:
        raise OddBits


def _bits(source: Dataset) -> Bits:
    try:
        stored = int(source.BitsStored)
        high, signed = int(source.get("HighBit", stored - 1)), source.get("PixelRepresentation") == 1
        bits = Bits(int(source.BitsAllocated), stored, high, signed)
    except (AttributeError, TypeError, ValueError):
        raise OddBits from None
    if bits.allocated not in _ALLOCATED or not 1 <= bits.stored <= bits.allocated:
        raise OddBits
    return bits
