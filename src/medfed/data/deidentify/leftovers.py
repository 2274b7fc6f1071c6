"""A second look, which knows nothing of the profile: is a word that names the patient in the bytes of the copy?"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from medfed.data.deidentify.patient import Patient
from medfed.data.deidentify.refusals import PIXELS
from medfed.data.deidentify.terms import is_term
from medfed.data.deidentify.uids import is_standard

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SHORTEST, _SHORTEST_NUMBER = 5, 8
"""Letters, digits; shorter ones stand in many headers by chance: six digits are a time of day."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


def has_leftovers(source: Dataset, target: Dataset, patient: Patient) -> bool:
    """Whether the target, written without pixels, holds a word of the patient's or one of the file's own old UIDs."""
    uids = [uid for keyword in _UIDS if (uid := str(source.get(keyword) or "")) and not is_standard(uid)]
    words = [word for word in patient.words if len(word) >= _least(word) and not is_term(word)]
    written = _header(target).lower()
    return any(each.encode(errors="replace") in written for each in (*uids, *words))


def _least(word: str) -> int:
    return _SHORTEST_NUMBER if word.isdigit() else _SHORTEST


def _header(target: Dataset) -> bytes:
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset as New

    header = New({element.tag: element for element in target if element.keyword not in PIXELS})
    buffer = BytesIO()
    dcmwrite(buffer, header, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()
