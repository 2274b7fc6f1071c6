"""Comments in compressed images: text that a JPEG or JPEG 2000 stream can carry beside its pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_JPEG, _JPEG2000 = b"\xff\xd8", b"\xff\x4f"
_END = b"\xff\xd9"
_SCAN, _TILE = 0xDA, 0x90
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_COMMENT, _COMMENT_2000 = 0xFE, 0x64
_APPLICATION = range(0xE0, 0xF0)
_HARMLESS = {0xE0: b"JFIF\0", 0xEE: b"Adobe", 0xE8: b"SPIFF\0"}
_LONGEST_HARMLESS = 32
_PROGRAM = re.compile(
    rb"(?:Creat(?:ed by|or):? ?)?(?:GDCM/)?(?:OpenJPEG|JasPer|Kakadu|LEAD Technologies Inc\.|Lavc|Aware)"
    rb"[ -]?(?:[Vv]ersion |[Vv])?[0-9.]*\0?"
)
"""What encoders say of themselves."""


def carries_text(source: Dataset, syntax_is_encapsulated: bool) -> bool:
    """Whether a stream of compressed pixels has a comment, an application's own segment, or bytes after its end."""
    if not syntax_is_encapsulated or "PixelData" not in source:
        return False
    from pydicom.encaps import generate_frames

    frames = generate_frames(source.PixelData, number_of_frames=int(source.get("NumberOfFrames") or 1))
    return any(map(_has_text, frames))


def _has_text(frame: bytes) -> bool:
    if frame[:2] not in (_JPEG, _JPEG2000):
        return False
    end = frame.rfind(_END)
    if end >= 0 and frame[end + 2 :].strip(b"\0\xff"):
        return True
    return any(_is_text(marker, body) for marker, body in _segments(frame))


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of the segments before the first coded data."""
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in (_SCAN, _TILE):
            return
        if marker in _BARE or marker == 0xFF:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        yield marker, frame[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)


def _is_text(marker: int, body: bytes) -> bool:
    if marker == _COMMENT:
        return not _PROGRAM.fullmatch(body)
    if marker == _COMMENT_2000:
        return not _PROGRAM.fullmatch(body[2:])
    if marker in _APPLICATION:
        harmless = _HARMLESS.get(marker)
        return harmless is None or not body.startswith(harmless) or len(body) > _LONGEST_HARMLESS
    return False
