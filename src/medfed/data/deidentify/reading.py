"""Reading a file's bytes as DICOM, without a word on the terminal: pydicom's warnings can quote values."""

from __future__ import annotations

import contextlib
import logging
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_PREAMBLE = 128
_PREFIX = b"DICM"
HEAD = _PREAMBLE + len(_PREFIX)
"""Bytes by which a DICOM file is known."""
_META = b"\x02\0\0\0UL\x04\0"
"""The head of the file meta information's group length, by which every file begins (PS3.10, 7.1)."""
_LONGEST_META = 4096
_DEFLATED = "1.2.840.10008.1.2.1.99"
_GROWTH = 64
"""How many times its size a deflated data set may have; headers and images deflate less."""
DEEPEST = 8
"""Sequences within sequences; pydicom's writer repeats, where it fails, what failed at each level inside."""
_UNDEFINED = 0xFFFFFFFF
_DELIMITERS = (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
"""The tag behind the last item of a sequence of undefined length (PS3.5, 7.5.2), in either order of bytes."""


class Unreadable(Exception):
    """The bytes are no DICOM file that can be read; it says nothing of them."""


def is_dicom(head: bytes) -> bool:
    """Whether a file's first 132 bytes are a preamble and DICM (PS3.10, 7.1)."""
    return head[_PREAMBLE:HEAD] == _PREFIX


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """No warning and no log line of pydicom, and no check of values that would stop it."""
    from pydicom import config

    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def check_depth(depth: int) -> None:
    """Raise Unreadable for an item of a sequence that lies deeper than DEEPEST."""
    if depth > DEEPEST:
        raise Unreadable


def read(content: bytes) -> FileDataset:
    """The data set of a file. Raises Unreadable for whatever the bytes do to the reader, and for a file cut short."""
    from pydicom import dcmread

    if _DEFLATED.encode() in content[: HEAD + _LONGEST_META]:
        _check_growth(content)
    try:
        source = dcmread(BytesIO(content))
        list(source.file_meta)  # reads each element, all of which are needed whole
        is_whole = _is_whole(source, content)
    except Exception as error:  # damaged bytes make a reader fail in any way; what it says may quote them
        raise Unreadable from error
    if not is_whole:
        raise Unreadable
    return source


def _is_whole(source: FileDataset, content: bytes) -> bool:
    """Whether the last element of a file ends where the file does: the reader takes a part of one without a word.

    A file that was cut between two elements cannot be told from a whole one.
    """
    elements = sorted((_Extent.of(source, tag) for tag in source.keys()), key=lambda each: each.begin)  # noqa: SIM118
    if not all(each.is_whole for each in elements):
        return False
    if not elements or source.file_meta.get("TransferSyntaxUID") == _DEFLATED:
        return True  # what is deflated has an end of its own
    end = elements[-1].end
    if end is None:
        return content.rstrip(b"\0").endswith(_DELIMITERS)
    return not content[end:].strip(b"\0")


@dataclass(frozen=True)
class _Extent:
    """Where an element of a file's own data set lies. end: None where its length is not said (PS3.5, 7.1.1)."""

    begin: int
    end: int | None
    is_whole: bool = True

    @classmethod
    def of(cls, source: FileDataset, tag: int) -> _Extent:
        from pydicom.dataelem import DataElement

        element = source.get_item(tag, keep_deferred=True)
        if isinstance(element, DataElement):  # read already, which only those are whose end the reader had to find
            return cls(element.file_tell or 0, None)
        if element.length == _UNDEFINED:
            return cls(element.value_tell, None)
        is_whole = len(element.value or b"") == element.length
        return cls(element.value_tell, element.value_tell + element.length, is_whole)


def _check_growth(content: bytes) -> None:
    """Raise Unreadable where a deflated data set is a bomb, or does not begin where its file meta information ends."""
    begin = HEAD + len(_META)
    if content[begin - len(_META) : begin] != _META:
        raise Unreadable
    meta_length = int.from_bytes(content[begin : begin + 4], "little")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflate.decompress(content[begin + 4 + meta_length :], _GROWTH * len(content))
    except zlib.error as error:
        raise Unreadable from error
    if inflate.unconsumed_tail:
        raise Unreadable
