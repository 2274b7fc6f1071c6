"""The segments that JPEG's family of streams is made of: a marker, and mostly a length and a body."""

from __future__ import annotations

_WITHOUT_BODY = frozenset({0x01, 0x93, *range(0x30, 0x40), *range(0xD0, 0xDA)})


class Odd(Exception):
    """The bytes do not follow the grammar, so nobody can say what in them is image."""


def segment(frame: bytes, at: int) -> tuple[int, bytes, int]:
    """(marker, body, end) of the segment at a place; bytes that only fill go before it. Raises Odd."""
    while frame[at : at + 2] == b"\xff\xff":
        at += 1
    if at + 2 > len(frame) or frame[at] != 0xFF:
        raise Odd
    marker, begin = frame[at + 1], at + 4
    if marker in _WITHOUT_BODY:
        return marker, b"", at + 2
    end = at + 2 + int.from_bytes(frame[at + 2 : begin], "big")
    if not begin <= end <= len(frame):
        raise Odd
    return marker, frame[begin:end], end


def written(marker: int, body: bytes) -> bytes:
    """The bytes of a segment with a body."""
    return bytes((0xFF, marker)) + (2 + len(body)).to_bytes(2, "big") + body
