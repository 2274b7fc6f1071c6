"""JPEG and JPEG-LS frames of nothing but what decoding needs.

ISO/IEC 10918-1, annex B, and 14495-1, annex C. Segments that no list here names are odd, tables that no scan uses are
left out, and what is said twice is written once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from medfed.data.deidentify.segments import Odd, segment, written

SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_END, _SCAN, _COMMENT = 0xD9, 0xDA, 0xFE
_HUFFMAN, _QUANTISERS, _RESTARTS, _PARAMETERS = 0xC4, 0xDB, 0xDD, 0xF8
_TABLES = frozenset({_HUFFMAN, _QUANTISERS, _RESTARTS, _PARAMETERS})
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_PROGRESSIVE, _LOSSLESS, _LS = 0xC2, 0xC3, 0xF7
_FRAMES = _SEQUENTIAL | {_PROGRESSIVE, _LOSSLESS, _LS}
"""The processes with Huffman codes, and JPEG-LS."""
_UNNEEDED = frozenset({_COMMENT, *range(0xE0, 0xF0)})
"""Comments and applications' segments."""
_HARMLESS = {
    0xE0: re.compile(rb"JFIF\0\x01[\0-\x02][\0-\x02].{4}\0\0", re.DOTALL),
    0xE8: re.compile(rb"SPIFF\0.{24}", re.DOTALL),
    0xEE: re.compile(rb"Adobe.{6}[\0-\x02]", re.DOTALL),
}
"""What says how colours are meant: numbers of fixed length."""
_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Coded data of a scan hold no such pair but for restarts: zeros are stuffed between."""
_AFTER_SCAN_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""In JPEG-LS, bits are."""

_Key = tuple[int, int]
"""(marker, which of its tables)."""


@dataclass(frozen=True)
class _Frame:
    """What the header of a frame says: its process, bits of a sample, and the quantiser of each component."""

    marker: int
    precision: int
    quantisers: dict[int, int]


def bare(frame: bytes) -> bytes:
    """The frame without comments, applications' segments, tables of no use, and bytes behind its end. Raises Odd."""
    copy, at = _Copy(), 2
    while True:
        marker, body, at = segment(frame, at)
        if marker == _END:
            return b"".join((*copy.parts, _EOI))
        copy.take(marker, body)
        if marker == _SCAN:
            found = copy.end_of_scan.search(frame, at)
            if found is None:  # some encoders leave the end out
                return b"".join((*copy.parts, frame[at:]))
            copy.parts.append(frame[at : found.start()])
            at = found.start()


@dataclass
class _Copy:
    """A copy in the making. waiting: tables that no scan used yet; only the last of each kind and number is one."""

    parts: list[bytes] = field(default_factory=lambda: [SOI])
    header: _Frame | None = None
    waiting: dict[_Key, bytes] = field(default_factory=dict)
    quantisers: dict[_Key, bytes] = field(default_factory=dict)
    said: set[int] = field(default_factory=set)

    @property
    def end_of_scan(self) -> re.Pattern[bytes]:
        return _AFTER_SCAN_LS if self.header is not None and self.header.marker == _LS else _AFTER_SCAN

    def take(self, marker: int, body: bytes) -> None:
        """Keep what the next segment is needed for. Raises Odd."""
        if marker in _FRAMES and self.header is None:
            self.header = _frame(marker, body)
            self.parts.append(written(marker, body))
        elif marker in _TABLES:
            self.waiting |= _tables(marker, body)
        elif marker == _SCAN and self.header is not None:
            self._take_tables(_used(self.header, body))
            self.parts.append(written(marker, body))
        elif marker in _HARMLESS and marker not in self.said and _HARMLESS[marker].fullmatch(body):
            self.said.add(marker)
            self.parts.append(written(marker, body))
        elif marker not in _UNNEEDED:
            raise Odd

    def _take_tables(self, keys: list[_Key]) -> None:
        """Keep the tables of a scan. Raises Odd where a quantiser is not as before: decoders stay with the first."""
        for key in keys:
            table = self.waiting.pop(key, None)
            if table is None or table == self.quantisers.get(key):
                continue
            if key in self.quantisers:
                raise Odd
            if key[0] == _QUANTISERS:
                self.quantisers[key] = table
            self.parts.append(written(key[0], table))


def precision(frame: bytes) -> int:
    """Bits of each sample, by the header of a bare frame. Raises Odd."""
    at = 2
    while True:
        marker, body, at = segment(frame, at)
        if marker in _FRAMES:
            return _frame(marker, body).precision


def _frame(marker: int, body: bytes) -> _Frame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise Odd
    return _Frame(marker, body[0], {body[at]: body[at + 2] for at in range(6, len(body), 3)})


def _used(header: _Frame, body: bytes) -> list[_Key]:
    """The tables that a scan is decoded with, by its header (10918-1, B.2.3)."""
    if not body or len(body) != 4 + 2 * body[0]:
        raise Odd
    *components, first, last, approximation = body[1:]
    if header.marker == _LS:
        return [(_PARAMETERS, 0), (_RESTARTS, 0)]
    keys = [(_RESTARTS, 0)]
    begins = header.marker != _PROGRESSIVE or (first == 0 and approximation < 16)
    goes_on = header.marker in _SEQUENTIAL or (header.marker == _PROGRESSIVE and last > 0)
    for name, codes in zip(components[::2], components[1::2], strict=True):
        if name not in header.quantisers:
            raise Odd
        keys += [(_QUANTISERS, header.quantisers[name])] * (header.marker != _LOSSLESS)
        keys += [(_HUFFMAN, codes >> 4)] * begins + [(_HUFFMAN, 16 + codes % 16)] * goes_on
    return list(dict.fromkeys(keys))


def _tables(marker: int, body: bytes) -> dict[_Key, bytes]:
    """The tables of a segment, each as the body of a segment of its own."""
    if marker == _HUFFMAN:
        return {(marker, table[0]): table for table in _cut(body, lambda rest: 17 + sum(rest[1:17]))}
    if marker == _QUANTISERS:
        return {(marker, table[0] % 16): table for table in _cut(body, lambda rest: 65 if rest[0] < 16 else 129)}
    if marker == _PARAMETERS and (len(body), body[:1]) != (11, b"\1"):  # others are maps of colours, and long sides
        raise Odd
    if marker == _RESTARTS and not 2 <= len(body) <= 4:
        raise Odd
    return {(marker, 0): body}


def _cut(body: bytes, length: Callable[[bytes], int]) -> Iterator[bytes]:
    """The tables that stand one behind the other. length: of the first, by what it begins with. Raises Odd."""
    while body:
        end = length(body)
        if end > len(body):
            raise Odd
        yield body[:end]
        body = body[end:]
