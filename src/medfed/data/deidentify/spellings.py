"""Ids and dates in whatever writing: the signs between their letters and digits do not count."""

from __future__ import annotations

import datetime
import re

from medfed.data.deidentify.dates import DUMMIES

_NO_DIGIT = re.compile(r"[^0-9]+")
_SHORTEST, _LONGEST = 6, 8
"""Digits of a day, from the year's last two or without noughts to the full one."""


def bare(text: str) -> str:
    """A text's letters and digits alone: ``12-34-56`` is ``123456``."""
    return "".join(filter(str.isalnum, text))


def day_of(text: str) -> str:
    """The day of a date or a date and time (VR DA, DT) as YYYYMMDD; "" where it is none, or a dummy's."""
    day = _NO_DIGIT.sub("", text[: len("YYYY.MM.DD")])[:_LONGEST]
    try:
        datetime.date(int(day[:4]), int(day[4:6]), int(day[6:]))
    except ValueError:
        return ""
    return "" if day == DUMMIES["DA"] else day


def spellings(day: str) -> frozenset[str]:
    """The digits of a day YYYYMMDD in every usual order: the year first or last, in full or its last two, and unpadded.

    Names of months are not among them.
    """
    year, month, of_month = day[:4], day[4:6], day[6:]
    padded = [(each, month, of_month) for each in (year, year[2:])]
    dates = [*padded, (year, month.lstrip("0"), of_month.lstrip("0"))]
    return frozenset(spelled for y, m, d in dates for spelled in (y + m + d, d + m + y, m + d + y))


def has_day(text: str, spelled: frozenset[str]) -> bool:
    """Whether the digits of a text, whatever stands between them, hold one of the spellings of days."""
    digits = _NO_DIGIT.sub("", text)
    lengths = range(_SHORTEST, _LONGEST + 1)
    return any(digits[at : at + n] in spelled for n in lengths for at in range(len(digits) - n + 1))
