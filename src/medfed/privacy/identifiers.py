"""Identifiers as they enter a set intersection or a linkage: one spelling each, missing and repeated ones counted.

No error and no report of this module quotes an identifier: they hold counts alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from medfed.core.errors import DataError


def normalised(identifier: str) -> str:
    """The one spelling of an identifier: compatibility caseless (Unicode, definition D146), stripped of outer spaces.

    That is NFKC and case folding, each done again since folding can undo composition, and both between NFD and NFKC.
    Spaces and punctuation inside stay: what separates two identifiers at one hospital has to at the other.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", identifier).casefold())
    return unicodedata.normalize("NFKC", folded.casefold()).strip()


@dataclass(frozen=True)
class InputReport:
    """What became of the identifiers that were given: ``given = used + missing + duplicates``."""

    given: int
    used: int
    missing: int
    duplicates: int


@dataclass(frozen=True)
class Inputs:
    """The distinct identifiers of a party.

    identifiers: normalised, in the order of their first rows.
    rows: for each of them, the row of the given sequence where it stood first.
    """

    identifiers: tuple[str, ...] = field(repr=False)
    rows: tuple[int, ...] = field(repr=False)
    report: InputReport


def prepared(given: Sequence[str | None], *, drop_missing: bool) -> Inputs:
    """Normalise identifiers, and drop what repeats an earlier row; missing are None and what is empty when stripped.

    Raises DataError with their number where some are missing and ``drop_missing`` is false, and where some are no
    Unicode text.
    """
    first: dict[str, int] = {}
    missing = malformed = 0
    for row, identifier in enumerate(given):
        if identifier is not None and not is_text(identifier):
            malformed += 1
        elif identifier is None or not (spelled := normalised(identifier)):
            missing += 1
        else:
            first.setdefault(spelled, row)
    if malformed:
        raise DataError(
            f"{malformed} identifiers are not Unicode text", remedy="give each identifier as a str, or None"
        )
    if missing and not drop_missing:
        raise DataError(
            f"{missing} of {len(given)} identifiers are missing",
            remedy="complete them at the site, or allow that rows without an identifier are left out",
        )
    report = InputReport(len(given), len(first), missing, len(given) - len(first) - missing)
    return Inputs(tuple(first), tuple(first.values()), report)


def is_text(value: object) -> bool:
    """Whether a value is a str that can be encoded, which text with lone surrogates cannot."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
