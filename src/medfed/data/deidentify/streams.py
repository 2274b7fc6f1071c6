"""Compressed frames without what is no image: comments, applications' segments, boxes, and bytes behind the end.

A frame's parts are walked through by its own grammar and written anew; coded data stay bit by bit. JPEG and JPEG-LS:
ISO/IEC 10918-1, annex B, and 14495-1, annex C. JPEG 2000: 15444-1, annexes A (codestream) and I (boxes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOC, _EOC = b"\xff\x4f", b"\xff\xd9"
_END, _SCAN, _TILE, _DATA = 0xD9, 0xDA, 0x90, 0x93
_BARE = frozenset({0x01, *range(0x30, 0x40), *range(0xD0, 0xD9)})
_COMMENT, _COMMENT_2000 = 0xFE, 0x64
_APPLICATION = range(0xE0, 0xF0)
_HARMLESS = {0xE0: b"JFIF\0", 0xEE: b"Adobe", 0xE8: b"SPIFF\0"}
_LONGEST_HARMLESS = 32
_PROGRAM = re.compile(
    rb"(?:Creat(?:ed by|or):? ?)?(?:GDCM/)?(?:OpenJPEG|JasPer|Kakadu|LEAD Technologies Inc\.|Lavc|Aware)"
    rb"[ -]?(?:[Vv]ersion |[Vv])?[0-9.]*\0?"
)
"""What encoders say of themselves."""
_AFTER_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""Coded data of a scan hold no such pair but for restarts: zeros (JPEG) or bits (JPEG-LS) are stuffed between."""
_AFTER_TILE = re.compile(rb"\xff[\x90-\xff]")
_BOXED = b"\0\0\0\x0cjP  "
_PALETTE = b"pclr"


class Odd(Exception):
    """The bytes do not follow the grammar, so nobody can say what in them is image."""


def without_text(frame: bytes) -> bytes:
    """A frame of a JPEG, JPEG-LS or JPEG 2000 stream with nothing but its image. Raises Odd."""
    if frame.startswith(_SOI):
        return _jpeg(frame)
    if frame.startswith(_SOC):
        return _codestream(frame)
    if frame.startswith(_BOXED):
        return _codestream(_unboxed(frame))
    raise Odd


def _jpeg(frame: bytes) -> bytes:
    kept, at = [_SOI], 2
    while True:
        marker, end = _segment(frame, at)
        if marker == _END:
            return b"".join((*kept, _EOI))
        if not _is_text(marker, frame[at + 4 : end]):
            kept.append(frame[at:end])
        at = end
        if marker == _SCAN:
            found = _AFTER_SCAN.search(frame, at)
            if found is None:
                return b"".join((*kept, frame[at:]))  # some encoders leave the end out
            kept.append(frame[at : found.start()])
            at = found.start()


def _codestream(frame: bytes) -> bytes:
    if not frame.startswith(_SOC):
        raise Odd
    kept, at = [_SOC], 2
    while True:
        marker, end = _segment(frame, at)
        if marker == _END:
            return b"".join((*kept, _EOC))
        if marker == _TILE:
            end = _tile_end(frame, at)
            _check_tile_header(frame, at, end)
        if marker == _TILE or not _is_text(marker, frame[at + 4 : end]):
            kept.append(frame[at:end])
        at = end
        if at == len(frame):  # some encoders leave the end out
            return b"".join(kept)


def _tile_end(frame: bytes, at: int) -> int:
    """Where a part of a tile ends: as its header says, or, for the last one that says 0, where no data can be."""
    length = int.from_bytes(frame[at + 6 : at + 10], "big")
    if length:
        if not 14 <= length <= len(frame) - at:
            raise Odd
        return at + length
    data = next(end for marker, _, end in _headers(frame, at) if marker == _DATA)
    found = _AFTER_TILE.search(frame, data)
    return len(frame) if found is None else found.start()


def _check_tile_header(frame: bytes, at: int, end: int) -> None:
    """Raise Odd for text in the header of a part of a tile: its length counts the text, and would have to change."""
    for marker, begin, stop in _headers(frame, at):
        if stop > end or _is_text(marker, frame[begin + 4 : stop]):
            raise Odd


def _headers(frame: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """(marker, begin, end) of the segments up to where data begin."""
    while True:
        marker = frame[at + 1] if at + 2 <= len(frame) else None
        if marker == _DATA:
            yield marker, at, at + 2
            return
        found, end = _segment(frame, at)
        yield found, at, end
        at = end


def _segment(frame: bytes, at: int) -> tuple[int, int]:
    """(marker, end) of the segment at a place; bytes that only fill are part of it. Raises Odd."""
    while frame[at : at + 2] == b"\xff\xff":
        at += 1
    if at + 2 > len(frame) or frame[at] != 0xFF:
        raise Odd
    marker = frame[at + 1]
    if marker in _BARE or marker == _END:
        return marker, at + 2
    length = int.from_bytes(frame[at + 2 : at + 4], "big")
    if length < 2 or at + 2 + length > len(frame):
        raise Odd
    return marker, at + 2 + length


def _is_text(marker: int, body: bytes) -> bool:
    if marker == _COMMENT:
        return not _PROGRAM.fullmatch(body)
    if marker == _COMMENT_2000:
        return not _PROGRAM.fullmatch(body[2:])
    if marker in _APPLICATION:
        harmless = _HARMLESS.get(marker)
        return harmless is None or not body.startswith(harmless) or len(body) > _LONGEST_HARMLESS
    return False


def _unboxed(frame: bytes) -> bytes:
    """The codestream of a JP2 file. Raises Odd where there is not exactly one, or where a palette belongs to it."""
    boxes = list(_boxes(frame))
    streams = [body for kind, body in boxes if kind == b"jp2c"]
    if len(streams) != 1 or any(kind == b"jp2h" and _PALETTE in body for kind, body in boxes):
        raise Odd
    return streams[0]


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each box; what follows the last whole one is none."""
    at = 0
    while at + 8 <= len(content):
        length, head = int.from_bytes(content[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        length = length or len(content) - at
        if length < head or at + length > len(content):
            return
        yield content[at + 4 : at + 8], content[at + head : at + length]
        at += length
