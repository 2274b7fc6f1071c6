"""Whose file it is: the pseudonym, the shift of dates, and the words by which the person can be known."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medfed.data.deidentify.dates import Shift, shift_of
from medfed.data.deidentify.secret import Secret

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NAMING = frozenset(
    {
        "AccessionNumber",
        "AdmissionID",
        "InstitutionAddress",
        "InstitutionName",
        "OtherPatientIDs",
        "PatientAddress",
        "PatientID",
        "PatientTelephoneNumbers",
    }
)
_NO_WORD = re.compile(r"[\s^=,;:\\/|()\[\]\"'._-]+")
_SHORTEST = 3
_IDENTITY = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class Patient:
    """A patient as the copy knows them."""

    pseudonym: str
    shift: Shift
    words: frozenset[str] = field(repr=False)
    """Words of names, ids and addresses in the file, case folded."""

    def is_named_in(self, text: str) -> bool:
        """Whether a text holds one of the words."""
        folded = text.casefold()
        return any(word in folded for word in self.words)


def pseudonym(secret: Secret, patient_id: str) -> str:
    """``P-`` and 16 letters and digits: 80 bits of a keyed hash over the id."""
    return "P-" + base64.b32encode(secret.mac("patient", patient_id)[:10]).decode()


def patient_of(source: Dataset, secret: Secret) -> Patient:
    """The patient of a file, by Patient ID; where it has none, by study, series or instance.

    Without an id, files of one patient in several studies are several patients.
    """
    found = ((keyword, str(source.get(keyword) or "").strip(" \0")) for keyword in _IDENTITY)
    keyword, value = next(((k, v) for k, v in found if v), ("", ""))
    identity = value if keyword == "PatientID" else f"{keyword}\0{value}"
    words = {word for text in _texts(source) for word in _NO_WORD.split(text.casefold()) if len(word) >= _SHORTEST}
    return Patient(pseudonym(secret, identity), shift_of(secret, identity), frozenset(words))


def _texts(source: Dataset) -> Iterator[str]:
    """The values that name somebody or something, at every depth."""
    for tag in list(source.keys()):
        try:
            element = source[tag]
        except Exception:  # noqa: S112 (what cannot be read is not copied either)
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR == "PN" or element.keyword in _NAMING:
            value = element.value
            yield from (str(each) for each in (value if element.VM > 1 else [value]))
