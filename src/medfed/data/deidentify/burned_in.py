"""Whether a person has to look at the pixels before a file is copied: identifiers can be burned into them."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medfed.data.deidentify.glyphs import has_text
from medfed.data.deidentify.refusals import PIXELS
from medfed.data.images.guard import Guard
from medfed.data.images.wire import Order
from medfed.data.raw import Unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class Suspicion(enum.StrEnum):
    """Why a file waits for a person's look."""

    SAYS_SO = "the file says that identifiers are burned into its pixels"
    FACE = "the file says that a person could be recognised, or it is a photograph"
    SCREEN = "ultrasound, a captured screen or a scanned page, which often show identifiers"
    TEXT = "its pixels seem to have text drawn into them"
    OVERLAY = "it has an overlay in unused bits of its pixels, which the profile does not remove"
    UNSEEN = "its pixels could not be decoded, so nothing looked at them"


_STORAGE = "1.2.840.10008.5.1.4.1.1."
_PHOTOGRAPHS = ("77.1.1", "77.1.4")
_SCREENS = ("6.", "3.", "7")
_SCREEN_MODALITIES = frozenset(["US", "IVUS", "BDUS", "OT", "SC", "ES", "DOC", "HC", "SMR"])
_SCREEN_WORDS = ("SCREEN", "SECONDARY CAPTURE", "DOSE_INFO", "REPORT", "LABEL", "OVERVIEW")
_OVERLAYS, _BIT = 0x60, 0x0102
"""The repeating group of overlays, and the element that says in which bit of the pixels one is (PS3.3, C.9.2)."""
_CAPTURED = frozenset(["DI", "DF", "DRW", "SD", "SI", "WSD", "DV"])


def suspicion_of(source: Dataset, content: bytes) -> Suspicion | None:
    """Why a person has to look at a file's pixels; None, where nothing speaks for it, does not prove them clean.

    content: the bytes that the data set was read from.
    """
    if _says(source, "BurnedInAnnotation", "YES"):
        return Suspicion.SAYS_SO
    if _says(source, "RecognizableVisualFeatures", "YES") or _is_class(source, _PHOTOGRAPHS):
        return Suspicion.FACE
    if _is_screen(source) and not _says(source, "BurnedInAnnotation", "NO"):
        return Suspicion.SCREEN
    if not any(keyword in source for keyword in PIXELS):
        return None
    if any(tag.group >> 8 == _OVERLAYS and tag.element == _BIT and source[tag].value for tag in list(source.keys())):
        return Suspicion.OVERLAY
    return _seen(source, content)


def _seen(source: Dataset, content: bytes) -> Suspicion | None:
    """What the pixels show. They are decoded in a guarded process: a decoder that a file ends ends nothing else."""
    try:
        with _as_file(content) as path:
            for frame in range(int(source.get("NumberOfFrames") or 1)):
                image = _guard().pixels(Order(str(path), pixels=True, frame=frame, raw=True))
                if has_text(np.moveaxis(image, 0, -1)):
                    return Suspicion.TEXT
    except (Unreadable, OSError, ValueError, TypeError):
        return Suspicion.UNSEEN
    return None


@cache
def _guard() -> Guard:
    """One process for all files; it begins anew where a file ended it, and ends with this one."""
    return Guard()


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """The bytes as a file in memory, which no disk ever holds, and which the processes of this user alone can open."""
    descriptor = os.memfd_create("image", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _says(source: Dataset, keyword: str, word: str) -> bool:
    return str(source.get(keyword) or "").strip().upper() == word


def _is_class(source: Dataset, ends: tuple[str, ...]) -> bool:
    sop_class = str(source.get("SOPClassUID"))
    return any(sop_class == _STORAGE + end or sop_class.startswith(_STORAGE + end.rstrip(".") + ".") for end in ends)


def _is_screen(source: Dataset) -> bool:
    kind = str(source.get("ImageType") or "").upper()
    return (
        _is_class(source, _SCREENS)
        or str(source.get("Modality") or "").upper() in _SCREEN_MODALITIES
        or str(source.get("ConversionType") or "").upper() in _CAPTURED
        or any(word in kind for word in _SCREEN_WORDS)
    )
