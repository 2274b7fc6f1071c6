"""Compressed frames without what is no image: comments, applications' segments, boxes, and bytes behind the end.

A frame's parts are walked through by its own grammar and written anew; coded data stay bit by bit.
"""

from __future__ import annotations

from medfed.data.deidentify import jpeg, jpeg2000
from medfed.data.deidentify.segments import Odd


def without_text(frame: bytes) -> bytes:
    """A frame of a JPEG, JPEG-LS or JPEG 2000 stream with nothing but its image. Raises Odd."""
    if frame.startswith(jpeg.SOI):
        return jpeg.bare(frame)
    if frame.startswith((jpeg2000.SOC, jpeg2000.BOXED)):
        return jpeg2000.bare(frame)
    raise Odd


def precision(frame: bytes) -> int:
    """Bits of a sample, by the header of a frame that ``without_text`` gave. Raises Odd."""
    return jpeg.precision(frame) if frame.startswith(jpeg.SOI) else jpeg2000.precision(frame)
