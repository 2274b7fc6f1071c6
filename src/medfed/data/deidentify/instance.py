"""One DICOM file: from its bytes to the bytes of its clean copy, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from medfed.data.deidentify.attributes import Cleaner, Rules
from medfed.data.deidentify.bits import OddBits
from medfed.data.deidentify.burned_in import Suspicion, suspicion_of
from medfed.data.deidentify.frames import clean_pixels, is_film
from medfed.data.deidentify.leftovers import has_leftovers
from medfed.data.deidentify.patient import patient_of
from medfed.data.deidentify.reading import HEAD, Unreadable, is_dicom, read, silent
from medfed.data.deidentify.refusals import PIXELS, UTF8, Refusal, refusal_of
from medfed.data.deidentify.segments import Odd
from medfed.data.deidentify.tally import Tally
from medfed.version import __version__

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

IMPLEMENTATION = "2.25.205931648203981726450195871640288113977"
"""MedFed's implementation class UID, which every copy bears."""
_METHODS = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113111": "Retain Safe Private Option",
}


_LONGEST = 64
"""Letters of a value of VR LO (PS3.5, 6.2)."""


@dataclass(frozen=True)
class Copy:
    """A clean copy. name: its place below the copy's folder, of pseudonyms and new UIDs alone.

    suspicion: why a person has to look at its pixels first, if so. looked_at: a person did. tally: what was done.
    """

    name: str
    content: bytes
    suspicion: Suspicion | None
    looked_at: bool
    tally: Tally


def deidentify(content: bytes, rules: Rules, looked_at: Callable[[str], bool] = lambda _name: False) -> Copy | Refusal:
    """The clean copy of a file's bytes, or why there is none; it raises nothing for whatever the bytes are.

    looked_at: whether a person looked at the pixels of the copy of that name, and found no identifier in them.
    """
    if not is_dicom(content[:HEAD]):
        return Refusal.NOT_DICOM
    with silent():
        try:
            source = read(content)
            return _copied(source, content, rules, looked_at)
        except (Unreadable, RecursionError):
            return Refusal.UNREADABLE
        except Exception:  # one odd file must not stop a hospital's export; what it says may quote a patient's value
            return Refusal.FAULT


def _copied(source: FileDataset, content: bytes, rules: Rules, looked_at: Callable[[str], bool]) -> Copy | Refusal:
    from pydicom.uid import UID

    syntax = UID(str(source.file_meta.get("TransferSyntaxUID", "")))
    refused = refusal_of(source, syntax, str(source.file_meta.get("MediaStorageSOPClassUID", "")))
    if refused is None and not _is_whole(source, is_encapsulated=syntax in _known() and syntax.is_encapsulated):
        refused = Refusal.WRONG_SIZE
    if refused is not None:
        return refused
    tally = Tally()
    patient = patient_of(source, rules.secret)
    target = Cleaner(rules, patient, tally).cleaned(source)
    target.PatientName = target.PatientID = patient.pseudonym
    frames = list[bytes]()
    if "PixelData" in source and not is_film(syntax):
        try:
            target.PixelData, frames = clean_pixels(source, syntax, content)
        except Odd:
            return Refusal.HIDDEN
        except OddBits:
            return Refusal.HIDDEN_BITS
    if has_leftovers(source, target, patient, frames):
        return Refusal.LEFT_OVER
    names = (str(target.get(keyword) or "none") for keyword in ("StudyInstanceUID", "SeriesInstanceUID"))
    name = "/".join((patient.pseudonym, *names, f"{target.SOPInstanceUID}.dcm"))
    is_accepted = looked_at(name)
    suspicion = None if is_accepted else suspicion_of(source, content)
    _flag(target, rules, looked_at=is_accepted)
    return Copy(name, _written(target, syntax), suspicion, is_accepted, tally)


def _known() -> frozenset[str]:
    from pydicom.uid import AllTransferSyntaxes

    return frozenset(AllTransferSyntaxes)


def _is_whole(source: Dataset, *, is_encapsulated: bool) -> bool:
    """Whether native pixel data are exactly the image: nothing can hide behind it, nothing is missing."""
    present = [keyword for keyword in PIXELS if keyword in source]
    if len(present) > 1:
        return False
    if not present or (is_encapsulated and present == [PIXELS[0]]):
        return True
    from pydicom.pixels.utils import get_expected_length

    try:
        expected = get_expected_length(source)
        return len(source[present[0]].value) in (expected, expected + expected % 2)
    except Exception:  # an image without rows, or with a word for their number
        return False


def _flag(target: Dataset, rules: Rules, *, looked_at: bool) -> None:
    """Say in the copy itself what was done to it (PS3.15, E.1.1)."""
    from pydicom.dataset import Dataset as Item

    kept = rules.kept
    options = {"113108": kept.has_characteristics, "113111": bool(kept.blocks)}
    items = []
    for code in ("113100", "113107", *(code for code, is_taken in options.items() if is_taken)):
        item = Item()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", _METHODS[code]
        items.append(item)
    target.SpecificCharacterSet = UTF8
    target.PatientIdentityRemoved = "YES"
    target.DeidentificationMethod = [
        f"MedFed {__version__}: PS3.15 basic profile, stricter on text",
        "dates shifted",
        *(f"kept: {name}"[:_LONGEST] for name in kept.names),
    ]
    target.DeidentificationMethodCodeSequence = items
    target.LongitudinalTemporalInformationModified = "MODIFIED"
    if looked_at:
        target.BurnedInAnnotation = "NO"


def _written(target: Dataset, syntax: str) -> bytes:
    from pydicom import dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = target.SOPClassUID
    meta.MediaStorageSOPInstanceUID = target.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    meta.ImplementationVersionName = "MEDFED"
    target.file_meta = meta
    target.preamble = b"\0" * 128
    buffer = BytesIO()
    dcmwrite(buffer, target, enforce_file_format=True)
    return buffer.getvalue()
