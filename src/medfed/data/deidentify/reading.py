"""Reading a file's bytes as DICOM, without a word on the terminal: pydicom's warnings can quote values."""

from __future__ import annotations

import contextlib
import logging
import warnings
import zlib
from collections.abc import Iterator
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
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_GROWTH = 64
"""How many times its size a deflated data set may have; headers and images deflate less."""


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


def read(content: bytes) -> FileDataset:
    """The data set of a file. Raises Unreadable for whatever the bytes do to the reader."""
    from pydicom import dcmread

    if _DEFLATED in content[: HEAD + _LONGEST_META]:
        _check_growth(content)
    try:
        source = dcmread(BytesIO(content))
        list(source.file_meta)  # reads each element, all of which are needed whole
        return source
    except Exception as error:  # damaged bytes make a reader fail in any way; what it says may quote them
        raise Unreadable from error


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
