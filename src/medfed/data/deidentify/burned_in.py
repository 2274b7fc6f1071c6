"""Whether a person has to look at the pixels before a file is copied: identifiers can be burned into them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from medfed.data.deidentify.decoded import any_frame
from medfed.data.deidentify.glyphs import has_text
from medfed.data.deidentify.refusals import PIXELS
from medfed.data.raw import Unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class Suspicion(enum.StrEnum):
    """Why a file waits for a person's look."""

    SAYS_SO = "the file says that identifiers are burned into its pixels"
    FACE = "the file says that a person could be recognised, or it is a photograph"
    SCREEN = "ultrasound, a captured screen or a scanned page, which often show identifiers"
    TEXT = "its pixels seem to have text drawn into them"
    UNSEEN = "its pixels could not be decoded, or are too many frames, so nothing looked at them"


_STORAGE = "1.2.840.10008.5.1.4.1.1."
_PHOTOGRAPHS = ("77.1.1", "77.1.4")
_SCREENS = ("6.", "3.", "7")
_SCREEN_MODALITIES = frozenset(["US", "IVUS", "BDUS", "OT", "SC", "ES", "DOC", "HC", "SMR"])
_SCREEN_WORDS = ("SCREEN", "SECONDARY CAPTURE", "DOSE_INFO", "REPORT", "LABEL", "OVERVIEW")
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
    return _seen(source, content)


def _seen(source: Dataset, content: bytes) -> Suspicion | None:
    """What the pixels show: grey values as they are stored, colours as they are seen, and of palettes both."""
    is_palette = _says(source, "PhotometricInterpretation", "PALETTE COLOR")
    try:
        frames = int(source.get("NumberOfFrames") or 1)
        ways = (True, False) if is_palette else (int(source.get("SamplesPerPixel") or 1) == 1,)
        found = any(any_frame(content, frames, has_text, raw=raw) for raw in ways)
    except (Unreadable, ValueError, TypeError):
        return Suspicion.UNSEEN
    return Suspicion.TEXT if found else None


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
