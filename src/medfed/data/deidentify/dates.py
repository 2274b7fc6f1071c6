"""Dates, shifted by as many whole days for all files of a patient; times of day; ages."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field

from medfed.data.deidentify.secret import Secret

EARLIEST, LATEST = 1, 3650
"""The least and the greatest shift: days by which a patient's dates become earlier."""
OLDEST = 89
"""Years; an age above it becomes 90 (as 45 CFR 164.514(b)(2)(i)(C) groups them)."""

DUMMIES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000"}

_DATE = re.compile(r"([0-9]{4})\.?([0-9]{2})\.?([0-9]{2})")
_DATETIME = re.compile(r"([0-9]{8})([0-9]{2}|[0-9]{4}|[0-9]{6}(?:\.[0-9]{1,6})?)?([+-][0-9]{4})?")
_TIME = re.compile(r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?")
_AGE = re.compile(r"([0-9]{3})([DWMY])")
_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}

_NOT_THE_PATIENTS = re.compile(
    "Birth|Calibration|Manufacture|Installation|Expir|Ethics|Version|Inventory|GPS|Effective|InformationIssue"
    "|HangingProtocol|Selector|Authorization|Signature|SourceStrength|ProcedureCreation|ProcedureLastModified|OOIOwner"
    "|Alarm|RouteSegment|InstanceCreation|InstanceCoercion|SecondaryCapture|PresentationCreation"
)


def is_of_care(keyword: str) -> bool:
    """Whether a date or time tells of the patient's care, and not of a device, a vocabulary or a batch of files.

    The latter are the same in many patients' files, or are known from elsewhere: shifted, they would tell the shift. A
    date of birth is not kept either.
    """
    return _NOT_THE_PATIENTS.search(keyword) is None


@dataclass(frozen=True)
class Shift:
    """Days by which all dates of one patient become earlier."""

    days: int = field(repr=False)

    def value(self, vr: str, text: str) -> str | None:
        """A value of VR DA, DT or TM with the date shifted; None where it is no whole date, or malformed.

        The time of day stays, and the offset from UTC.
        """
        text = text.strip(" \0")
        if vr == "TM":
            return text if _TIME.fullmatch(text) else None
        if vr == "DA":
            found = _DATE.fullmatch(text)
            return self._shifted("".join(found.groups())) if found else None
        found = _DATETIME.fullmatch(text)
        if not found or (found[2] and not _TIME.fullmatch(found[2])):
            return None
        day = self._shifted(found[1])
        return day and f"{day}{found[2] or ''}{found[3] or ''}"

    def _shifted(self, day: str) -> str | None:
        try:
            whole = datetime.date(int(day[:4]), int(day[4:6]), int(day[6:]))
            return (whole - datetime.timedelta(self.days)).strftime("%Y%m%d").zfill(8)
        except (ValueError, OverflowError):
            return None


def shift_of(secret: Secret, patient: str) -> Shift:
    """The shift of a patient, from EARLIEST to LATEST days, by a keyed hash of the id."""
    drawn = int.from_bytes(secret.mac("shift", patient)[:16], "big")
    return Shift(EARLIEST + drawn % (LATEST - EARLIEST + 1))


def capped_age(text: str) -> str | None:
    """An age string (VR AS) with ages above OLDEST years as ``090Y``; None where it is malformed."""
    found = _AGE.fullmatch(text.strip(" \0"))
    if not found:
        return None
    return f"{OLDEST + 1:03}Y" if int(found[1]) / _A_YEAR[found[2]] >= OLDEST + 1 else found[0]
