"""Whose file it is: the pseudonym, the shift of dates, and the words by which the person can be known."""

from __future__ import annotations

import base64
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from medfed.data.deidentify.dates import Shift, shift_of
from medfed.data.deidentify.folding import NO_WORD, foldings, is_unspaced
from medfed.data.deidentify.reading import check_depth
from medfed.data.deidentify.searching import Words
from medfed.data.deidentify.secret import Secret
from medfed.data.deidentify.spellings import bare, day_of, has_day, spellings

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

_NAMING = frozenset(
    {
        "AccessionNumber",
        "AdmissionID",
        "FillerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequestRetired",
        "InstitutionAddress",
        "InstitutionName",
        "MedicalRecordLocator",
        "OtherPatientIDs",
        "PatientAddress",
        "PatientID",
        "PatientTelephoneNumbers",
        "PlacerOrderNumberImagingServiceRequest",
        "PlacerOrderNumberImagingServiceRequestRetired",
        "RequestedProcedureID",
        "StudyID",
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

    ids: frozenset[str] = field(repr=False, default=frozenset())
    """Ids and addresses, each as a whole, without the signs between its letters and digits (:func:`bare`)."""
    days: frozenset[str] = field(repr=False, default=frozenset())
    """True days of the file, as YYYYMMDD: beside shifted ones, each would tell the shift."""

    def is_named_in(self, text: str) -> bool:
        """Whether a text holds one of the words: a short one as a word of its own, any other also inside of words.

        Ids are found in whatever format.
        """
        for form in foldings(text):
            parts = NO_WORD.split(form)
            if self._words.stand_in(form) or self._signs.stand_in("".join(parts)) or self._ids.stand_in(bare(form)):
                return True
            if not self.short.isdisjoint(parts):
                return True
        return False

    def is_dated_in(self, text: str) -> bool:
        """Whether a text holds one of the true days, in digits of whatever order and with whatever signs between."""
        return any(has_day(form, self._spellings) for form in foldings(text))

    @cached_property
    def _words(self) -> Words:
        return Words(self.words)

    @cached_property
    def _signs(self) -> Words:
        return Words(self.signs)

    @cached_property
    def _ids(self) -> Words:
        return Words(self.ids)

    @cached_property
    def _spellings(self) -> frozenset[str]:
        return frozenset().union(*map(spellings, self.days))


def pseudonym(secret: Secret, patient_id: str) -> str:
    """``P-`` and 16 letters and digits: 80 bits of a keyed hash over the id."""
    return "P-" + base64.b32encode(secret.mac("patient", patient_id)[:10]).decode()


def patient_of(source: Dataset, secret: Secret) -> Patient:
    """The patient of a file, by Patient ID and its issuer; where it has none, by study, series or instance.

    Without an id, files of one patient in several studies are several patients. Raises Unreadable for a file whose
    sequences lie too deep.
    """
    identity = _identity(source)
    words, short, signs, ids, days = set[str](), set[str](), set[str](), set[str](), set[str]()
    for text, kind in _texts(source):
        if kind is _Kind.DATE:
            days.add(day_of(text))
            continue
        is_name = kind is _Kind.NAME
        for word in (word for form in foldings(text) for word in NO_WORD.split(form) if word):
            if is_unspaced(word):
                signs |= {word, word[0]} if is_name else {word}
            elif len(word) >= _SHORTEST:
                words.add(word)
            elif is_name:
                short.add(word)
        if not is_name:
            ids |= {bare(form).lstrip("0") for form in foldings(text)}
    who, shift = pseudonym(secret, identity), shift_of(secret, identity)
    ids = {each for each in ids if len(each) >= _SHORTEST}
    return Patient(who, shift, *map(frozenset, (words, short, signs, ids, days - {""})))


def _identity(source: Dataset) -> str:
    """What tells a patient from others. An id says who it is only together with who issued it (PS3.3, C.2.2)."""
    found = ((keyword, str(source.get(keyword) or "").strip(" \0")) for keyword in _IDENTITY)
    keyword, value = next(((k, v) for k, v in found if v), ("", ""))
    if keyword != "PatientID":
        return f"{keyword}\0{value}"
    issuer = str(source.get("IssuerOfPatientID") or "").strip(" \0")
    return f"{value}\0{issuer}" if issuer else value


class _Kind(enum.Enum):
    """What a value says of the patient."""

    NAME = enum.auto()
    ID = enum.auto()
    DATE = enum.auto()


def _kind(element: DataElement) -> _Kind | None:
    if element.VR == "PN":
        return _Kind.NAME
    if element.keyword in _NAMING:
        return _Kind.ID
    return _Kind.DATE if element.VR in ("DA", "DT") else None


def _texts(source: Dataset, depth: int = 0) -> Iterator[tuple[str, _Kind]]:
    """The values that name somebody or something, or a day, at every depth."""
    check_depth(depth)
    for tag in list(source.keys()):
        try:
            element = source[tag]
        except Exception:  # noqa: S112 (what cannot be read is not copied either)
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item, depth + 1)
        elif kind := _kind(element):
            value = element.value
            yield from ((str(each), kind) for each in (value if element.VM > 1 else [value]))
