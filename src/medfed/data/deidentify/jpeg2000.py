"""JPEG 2000 frames of nothing but what decoding needs.

ISO/IEC 15444-1, annexes A (codestream) and I (boxes), and 15444-15 for high throughput. Of the headers those segments
stay that no list here calls needless, each once and exactly as long as the image makes it; others are odd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from medfed.data.deidentify.segments import Odd, segment, written

SOC = b"\xff\x4f"
BOXED = b"\0\0\0\x0cjP  "
_EOC = b"\xff\xd9"
_END, _TILE, _DATA = 0xD9, 0x90, 0x93
_SIZE, _CAPABILITIES, _REGION = 0x51, 0x50, 0x5E
_CODING, _CODING_OF_ONE, _QUANTISER, _QUANTISER_OF_ONE = 0x52, 0x53, 0x5C, 0x5D
_ONCE = frozenset({_CAPABILITIES, _CODING, _QUANTISER})
_OF_ONE = frozenset({_CODING_OF_ONE, _QUANTISER_OF_ONE, _REGION})
_HIGH_THROUGHPUT = b"\0\2\0\0"
"""The capability that 15444-15 gives a number to: bit 15."""
_USUAL_LEVELS = 6
_NEEDLESS = frozenset({0x55, 0x57, 0x58, 0x63, 0x64})
"""Lengths of tiles and packets (TLM, PLM, PLT), registration (CRG), and comments."""
_AFTER_TILE = re.compile(rb"\xff[\x90-\xff]")
_PALETTE = b"pclr"

_Header = dict[tuple[int, int], bytes]
"""Bodies of segments by (marker, component); component 0 where it is of all."""


def bare(frame: bytes) -> bytes:
    """The codestream of a frame without comments, pointers, boxes and bytes behind its end. Raises Odd."""
    stream = _unboxed(frame) if frame.startswith(BOXED) else frame
    if not stream.startswith(SOC):
        raise Odd
    marker, size, at = segment(stream, len(SOC))
    if marker != _SIZE or len(size) < 39 or len(size) != 36 + 3 * _components(size):
        raise Odd
    header, at = _header(stream, at, {(_SIZE, 0): size})
    if not {(_CODING, 0), (_QUANTISER, 0)} <= header.keys():
        raise Odd
    kept = [SOC, *_checked(header, header)]
    while at < len(stream):  # some encoders leave the end out
        if segment(stream, at)[0] == _END:
            return b"".join((*kept, _EOC))
        part, at = _part_of_tile(stream, at, header)
        kept.append(part)
    return b"".join(kept)


def precision(frame: bytes) -> int:
    """Most bits of a sample, by the size segment of a bare frame. Raises Odd."""
    _, body, _ = segment(frame, 2)
    return max(bits % 128 + 1 for bits in body[36::3])


def _header(stream: bytes, at: int, header: _Header) -> tuple[_Header, int]:
    """A header with the segments that follow and are needed, and where data or a tile begin. Raises Odd."""
    found = dict(header)
    while True:
        marker, body, end = segment(stream, at)
        if marker in (_TILE, _DATA):
            return found, at
        at = end
        if marker in _NEEDLESS:
            continue
        component = int.from_bytes(body[: _width(header)], "big") if marker in _OF_ONE else 0
        if marker not in _ONCE | _OF_ONE or (marker, component) in found or component >= _components(found[_SIZE, 0]):
            raise Odd
        found[marker, component] = body


def _components(size: bytes) -> int:
    return int.from_bytes(size[34:36], "big")


def _width(header: _Header) -> int:
    """Bytes of a component's number."""
    return 1 if _components(header[_SIZE, 0]) < 257 else 2


def _checked(part: _Header, header: _Header) -> Iterator[bytes]:
    """The segments of a part of the header. Raises Odd where one is not as long as the header makes it."""
    for (marker, component), body in part.items():
        try:
            if len(body) != _length(header, marker, component, body):
                raise Odd
        except IndexError:
            raise Odd from None
        yield written(marker, body)


def _length(header: _Header, marker: int, component: int, body: bytes) -> int:
    """How long the body of a segment has to be (annex A.5 and A.6)."""
    width = _width(header)
    if marker == _CAPABILITIES:
        return len(_HIGH_THROUGHPUT) + 2 if body.startswith(_HIGH_THROUGHPUT) else -1
    if marker == _CODING:
        return 10 + (body[0] % 2) * (_levels(body[5], header) + 1)
    if marker == _CODING_OF_ONE:
        return width + 6 + (body[width] % 2) * (_levels(body[width + 1], header) + 1)
    if marker == _QUANTISER:
        return _quantiser_length(body, header[_CODING, 0][5])
    if marker == _QUANTISER_OF_ONE:
        own = header.get((_CODING_OF_ONE, component))
        levels = header[_CODING, 0][5] if own is None else own[width + 1]
        return width + _quantiser_length(body[width:], levels)
    return width + 2 if marker == _REGION else len(body)


def _levels(levels: int, header: _Header) -> int:
    """The levels of decomposition. Raises Odd where the image has no pixels for so many: their numbers have no use."""
    size = header[_SIZE, 0]
    if levels > max(_USUAL_LEVELS, int.from_bytes(max(size[2:6], size[6:10]), "big").bit_length()):
        raise Odd
    return levels


def _quantiser_length(body: bytes, levels: int) -> int:
    bands, style = 3 * levels + 1, body[0] % 32
    return 1 + {0: bands, 1: 2, 2: 2 * bands}.get(style, -1)


def _part_of_tile(stream: bytes, begin: int, header: _Header) -> tuple[bytes, int]:
    """A part of a tile with nothing in its header but what it is and how it is coded, and its end. Raises Odd."""
    marker, body, at = segment(stream, begin)
    if marker != _TILE or len(body) != 8:
        raise Odd
    length = int.from_bytes(body[2:6], "big")
    whole, at = _header(stream, at, header)
    own = {key: each for key, each in whole.items() if key not in header}
    if segment(stream, at)[0] != _DATA:
        raise Odd
    data = at + 2
    if length:
        end = begin + length
    else:  # the last one may say 0, and ends where no data can be
        found = _AFTER_TILE.search(stream, data)
        end = len(stream) if found is None else found.start()
    if not data <= end <= len(stream):
        raise Odd
    head = b"".join(_checked(own, whole))
    size = (14 + len(head) + end - data if length else 0).to_bytes(4, "big")
    return written(_TILE, body[:2] + size + body[6:]) + head + bytes((0xFF, _DATA)) + stream[data:end], end


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
