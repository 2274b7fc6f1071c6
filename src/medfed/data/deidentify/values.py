"""What becomes of a value, by its kind (VR)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from medfed.data.deidentify.dates import DUMMIES, Shift, capped_age
from medfed.data.deidentify.patient import Patient
from medfed.data.deidentify.tally import Deed
from medfed.data.deidentify.terms import is_term

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement

Rewritten = tuple[Deed, Any]
"""What was done, and the new value, which counts where the deed leaves one."""

_BINARY_NUMBERS = frozenset(["AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"])
_NUMERALS = {
    "DS": re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"),
    "IS": re.compile(r"[+-]?[0-9]{1,10}"),
}
_LONGEST_NUMERAL = 24
_SHORT_TEXTS = frozenset(["CS", "LO", "SH"])
_LONG_TEXTS = frozenset(["AE", "LT", "ST", "UC", "UR", "UT"])
_DUMMY_TEXT = "REMOVED"


def unnamed(element: DataElement) -> Rewritten:
    """An attribute that the profile leaves as it is: numbers stay, texts of known words, and nothing else."""
    if element.is_empty or is_numeric(element):
        return Deed.KEPT, element.value
    if element.VR in _SHORT_TEXTS:
        known = [text if is_term(text) else "" for text in texts(element)]
        if known == texts(element):
            return Deed.KEPT, element.value
        if any(known):  # the place of each value has a meaning: unknown ones are emptied
            return Deed.REPLACED, known
    if element.VR == "PN":
        return Deed.EMPTIED, None
    return (Deed.UNKNOWN if element.VR in _SHORT_TEXTS | _LONG_TEXTS else Deed.REMOVED), None


def kept(element: DataElement, patient: Patient) -> Rewritten:
    """An attribute that the site keeps by its own decision: an age is capped, a text must not name patient or day."""
    if element.VR == "AS":
        ages = [capped_age(text) for text in texts(element)]
        return (Deed.KEPT, ages) if None not in ages else (Deed.UNKNOWN, None)
    if element.is_empty or is_numeric(element):
        return Deed.KEPT, element.value
    if element.VR == "CS" and all(map(is_term, texts(element))):
        return Deed.KEPT, element.value  # a code of the standard, such as a sex, whatever the patient's initials
    told = any(patient.is_named_in(text) or patient.is_dated_in(text) for text in texts(element))
    if element.VR in _NUMERALS or told:
        return Deed.UNKNOWN, None
    return Deed.KEPT, element.value


def shifted(element: DataElement, shift: Shift) -> Rewritten:
    """Dates and times moved; where one of them is malformed or incomplete, none stays."""
    moved = [shift.value(element.VR, text) if text else "" for text in texts(element)]
    return (Deed.SHIFTED, moved) if None not in moved else (Deed.EMPTIED, None)


def dummy(vr: str) -> Rewritten:
    """A value that is legal and says nothing; the kinds that have none are emptied."""
    if vr in DUMMIES:
        return Deed.REPLACED, DUMMIES[vr]
    if vr in _BINARY_NUMBERS or vr in _NUMERALS:
        return Deed.REPLACED, 0
    if vr in _SHORT_TEXTS | _LONG_TEXTS | {"PN"} and vr != "UR":
        return Deed.REPLACED, _DUMMY_TEXT
    return Deed.EMPTIED, nothing(vr)


def nothing(vr: str) -> Any:
    """The empty value of a VR."""
    return [] if vr == "SQ" else b"" if vr[0] == "O" else None


def is_numeric(element: DataElement) -> bool:
    """Whether the value is of numbers alone, as they were written in the file."""
    if element.VR in _BINARY_NUMBERS:
        return not isinstance(element.value, bytes | str)
    numeral = _NUMERALS.get(element.VR)
    return numeral is not None and all(
        len(text) <= _LONGEST_NUMERAL and numeral.fullmatch(text) is not None for text in texts(element)
    )


def texts(element: DataElement) -> list[str]:
    """The values as texts; numbers as they were written in the file."""
    value = element.value
    several = [] if element.is_empty else list(value) if element.VM > 1 else [value]
    return [str(getattr(each, "original_string", each)).strip(" \0") for each in several]
