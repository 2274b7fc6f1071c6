"""Frames of DICOM's run-length coding (PS3.5, annex G), without bytes that no run needs."""

from __future__ import annotations

import struct
from itertools import pairwise

from medfed.data.deidentify.segments import Odd

_HEADER = struct.Struct("<16I")
_MOST = 15
_NOTHING = 128
"""A byte that codes no run (G.3.1)."""


def without_rest(frame: bytes, pixels: int, segments: int) -> bytes:
    """A frame of so many segments, each of as many bytes as pixels, with nothing behind or between. Raises Odd."""
    if len(frame) < _HEADER.size:
        raise Odd
    count, *offsets = _HEADER.unpack_from(frame)
    if count != segments or not 1 <= count <= _MOST:
        raise Odd
    begins = [*offsets[:count], len(frame)]
    if begins[0] < _HEADER.size or begins != sorted(begins):
        raise Odd
    bodies = [_runs(frame[begin:end], pixels) for begin, end in pairwise(begins)]
    places, at = [], _HEADER.size
    for body in bodies:
        places.append(at)
        at += len(body)
    return _HEADER.pack(count, *places, *[0] * (_MOST - count)) + b"".join(bodies)


def _runs(segment: bytes, pixels: int) -> bytes:
    """The runs of a segment that give its pixels, of an even number of bytes."""
    at = made = 0
    try:
        while made < pixels:
            head = segment[at]
            if head < _NOTHING:
                at, made = at + head + 2, made + head + 1
            elif head > _NOTHING:
                at, made = at + 2, made + 257 - head
            else:
                raise Odd  # it would be passed over, and is room for something else
    except IndexError:
        raise Odd from None
    if made != pixels or at > len(segment):
        raise Odd
    return segment[:at] + b"\0" * (at % 2)
