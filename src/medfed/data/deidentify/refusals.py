"""Files that are not copied at all, and why."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from medfed.data.deidentify.uids import is_standard

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag


class Refusal(enum.StrEnum):
    """Why a file is not copied."""

    NOT_DICOM = "no DICOM file: it does not begin with a preamble and DICM"
    UNREADABLE = "damaged, cut short or nested too deeply: it cannot be read as DICOM"
    NO_FILE = "it cannot be read, or is no regular file"
    TOO_LARGE = "larger than 4 GiB, or than a sixth of the memory"
    DIRECTORY = "a DICOMDIR: it lists files that have other names in the copy; make a new one for the copy"
    DOCUMENT = "an encapsulated document (PDF, CDA, model): what it says cannot be de-identified"
    REPORT = "a structured report or key object: its text cannot be de-identified"
    SOUND = "a waveform or sound: a voice is an identifier, and the profile covers no waveforms"
    RAW = "raw or private data: how they are written is not known"
    NO_CLASS = "it names no SOP class and instance, or two that differ"
    MANY_UIDS = "its study, series or instance is named by several UIDs, or by what is no UID"
    NO_IMAGE = "it holds no image that can be looked at, nor a plan or structure set"
    WRONG_SIZE = "its pixel data are not as long as rows, columns and frames say"
    HIDDEN = "its compressed pixels do not follow their own grammar, so that text could hide in them"
    HIDDEN_BITS = "bits of its pixels that are no part of the image hold something, or it does not say which they are"
    SAME_NAME = "another file of the source has the same SOP instance UID, and is not the same"
    SYNTAX = "its transfer syntax is not known"
    LEFT_OVER = "an identifier of the patient would still be in the copy"
    FAULT = "it could not be de-identified, by a fault of MedFed's own"


_STORAGE = "1.2.840.10008.5.1.4.1.1."
_REFUSED = {
    _STORAGE + "104.": Refusal.DOCUMENT,
    _STORAGE + "88.": Refusal.REPORT,
    _STORAGE + "9.": Refusal.SOUND,
}
_DIRECTORY = "1.2.840.10008.1.3.10"
_SOUND = 0x200C
"""The element of audio samples in the repeating group of curves."""
_RAW = _STORAGE + "66"
UTF8 = "ISO_IR 192"
"""The character set of every copy."""
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PLACE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_WITHOUT_PIXELS = frozenset(
    {
        _STORAGE + "481.3",  # RT structure set
        _STORAGE + "481.5",  # RT plan
        _STORAGE + "481.8",  # RT ion plan
        _STORAGE + "66.1",  # spatial registration
    }
)


def refusal_of(source: Dataset, syntax: str, media_class: str) -> Refusal | None:
    """Why a file that was read is not copied; None where it may be.

    source: its data set. syntax, media_class: transfer syntax and SOP class of its file meta information.
    """
    sop_class, instance = str(source.get("SOPClassUID") or ""), str(source.get("SOPInstanceUID") or "")
    if _DIRECTORY in (media_class, sop_class) or "DirectoryRecordSequence" in source:
        return Refusal.DIRECTORY
    if not sop_class or not instance or (media_class and media_class != sop_class):
        return Refusal.NO_CLASS
    if not all(_is_one_uid(source, keyword) for keyword in _PLACE):
        return Refusal.MANY_UIDS
    if not is_standard(syntax):
        return Refusal.SYNTAX
    if not is_standard(sop_class) or sop_class == _RAW:
        return Refusal.RAW
    if "EncapsulatedDocument" in source:
        return Refusal.DOCUMENT
    if "WaveformSequence" in source or any(tag.group >> 8 == 0x50 and tag.element == _SOUND for tag in _tags(source)):
        return Refusal.SOUND
    if "ContentSequence" in source and "PixelData" not in source:
        return Refusal.REPORT
    if sop_class in _WITHOUT_PIXELS:
        return None
    found = next((reason for prefix, reason in _REFUSED.items() if sop_class.startswith(prefix)), None)
    return found or (None if any(keyword in source for keyword in PIXELS) else Refusal.NO_IMAGE)


def _is_one_uid(source: Dataset, keyword: str) -> bool:
    """Whether an attribute holds one UID or none: the copy's name is made of it."""
    return keyword not in source or (source[keyword].VR == "UI" and source[keyword].VM <= 1)


def _tags(source: Dataset) -> list[BaseTag]:
    return list(source.keys())
