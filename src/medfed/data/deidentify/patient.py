"""Whose file it is: the pseudonym, the shift of dates, and the words by which the person can be known."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medfed.data.deidentify.dates import Shift, shift_of
from medfed.data.deidentify.folding import NO_WORD, foldings, is_unspaced
from medfed.data.deidentify.reading import check_depth
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
_SHORTEST = 3
"""Letters of a word that is looked for inside of others; shorter ones have to stand alone."""
_IDENTITY = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class Patient:
    """A patient as the copy knows them."""

    pseudonym: str
    shift: Shift
    words: frozenset[str] = field(repr=False)
    """Words of names, ids and addresses in the file, in all their forms (:func:`foldings`)."""
    short: frozenset[str] = field(repr=False, default=frozenset())
    """Words of names that have one or two letters."""
    signs: frozenset[str] = field(repr=False, default=frozenset())
    """Names without spaces in Chinese, Japanese or Korean, and the first sign of each, which is of the family's."""

    def is_named_in(self, text: str) -> bool:
        """Whether a text holds one of the words: a short one as a word of its own, any other also inside of words."""
        for form in foldings(text):
            parts = NO_WORD.split(form)
            unspaced = "".join(parts)
            if any(word in form for word in self.words) or any(sign in unspaced for sign in self.signs):
                return True
            if not self.short.isdisjoint(parts):
                return True
        return False


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
    words, short, signs = set[str](), set[str](), set[str]()
    for text, is_name in _texts(source):
        for word in (word for form in foldings(text) for word in NO_WORD.split(form) if word):
            if is_unspaced(word):
                signs |= {word, word[0]} if is_name else {word}
            elif len(word) >= _SHORTEST:
                words.add(word)
            elif is_name:
                short.add(word)
    who, days = pseudonym(secret, identity), shift_of(secret, identity)
    return Patient(who, days, frozenset(words), frozenset(short), frozenset(signs))


def _texts(source: Dataset, depth: int = 0) -> Iterator[tuple[str, bool]]:
    """The values that name somebody or something, at every depth, and whether each is a person's name."""
    check_depth(depth)
    for tag in list(source.keys()):
        try:
            element = source[tag]
        except Exception:  # noqa: S112 (what cannot be read is not copied either)
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item, depth + 1)
        elif element.VR == "PN" or element.keyword in _NAMING:
            value = element.value
            yield from ((str(each), element.VR == "PN") for each in (value if element.VM > 1 else [value]))
