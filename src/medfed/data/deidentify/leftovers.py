"""A second look, which knows nothing of the profile: is a word that names the patient, or a true day, in the copy?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from medfed.data.deidentify.folding import foldings
from medfed.data.deidentify.patient import Patient
from medfed.data.deidentify.refusals import PIXELS, UTF8
from medfed.data.deidentify.searching import Words
from medfed.data.deidentify.terms import is_term
from medfed.data.deidentify.uids import is_standard

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SHORTEST, _SHORTEST_NUMBER, _SHORTEST_SIGNS = 5, 8, 2
"""Letters, digits, Chinese signs; shorter ones stand in many headers by chance: six digits are a time of day."""
_DAY = re.compile(r"(?<![0-9.])[0-9]{8}")
"""What can be a day: neither a part of a longer number nor of a UID."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


def has_leftovers(source: Dataset, target: Dataset, patient: Patient, frames: Sequence[bytes] = ()) -> bool:
    """Whether the target, written without pixels, holds a word or day of the patient's, or one of the file's old UIDs.

    frames: its compressed pixels, among whose coded data a word of ASCII is looked for, too: decoders pass over what
    follows the last pixel.
    """
    uids = [uid for keyword in _UIDS if (uid := str(source.get(keyword) or "")) and not is_standard(uid)]
    words = [word for word in patient.words | patient.ids if len(word) >= _least(word) and not is_term(word)]
    words += [sign for sign in patient.signs if len(sign) >= _SHORTEST_SIGNS]
    header = _header(target).decode("utf-8", "replace")
    searched = Words([*uids, *words])
    if any(map(searched.stand_in, foldings(header))) or not _unshifted(patient).isdisjoint(_DAY.findall(header)):
        return True
    searched = Words([each for each in (*uids, *words) if each.isascii()])
    return any(searched.stand_in(frame.lower().decode("latin-1")) for frame in frames)


def _unshifted(patient: Patient) -> frozenset[str]:
    """The true days of a file that are not also shifted ones, which by chance can be the same."""
    return patient.days - {patient.shift.value("DA", day) for day in patient.days}


def _least(word: str) -> int:
    return _SHORTEST_NUMBER if word.isdigit() else _SHORTEST


def _header(target: Dataset) -> bytes:
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset as New

    header = New({element.tag: element for element in target if element.keyword not in PIXELS})
    header.SpecificCharacterSet = UTF8  # as the copy's own: in the default one, letters beyond ASCII are lost
    buffer = BytesIO()
    dcmwrite(buffer, header, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()
