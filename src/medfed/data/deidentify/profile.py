"""What the basic profile of PS3.15, table E.1-1, does with each attribute: the table of ``dicom-anonymizer``."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache

EDITION = "2026c"
"""The edition of the standard from which the table was taken."""


class Action(enum.Enum):
    """An action of table E.1-1, where it leaves a choice the one that is legal for every type of attribute."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    REFERENCES = "X/Z/U*"
    """A sequence that stays, with the UIDs in it replaced."""


_CATEGORIES = {
    "X_TAGS": Action.REMOVE,
    "Z_TAGS": Action.EMPTY,
    "D_TAGS": Action.DUMMY,
    "U_TAGS": Action.UID,
    "Z_D_TAGS": Action.DUMMY,
    "X_Z_TAGS": Action.EMPTY,
    "X_D_TAGS": Action.DUMMY,
    "X_Z_D_TAGS": Action.DUMMY,
    "X_Z_U_STAR_TAGS": Action.REFERENCES,
}


@dataclass(frozen=True)
class Profile:
    """The table: actions of single attributes, and of repeating groups as (tag, mask, action)."""

    single: dict[int, Action]
    repeating: tuple[tuple[int, int, Action], ...]

    def action(self, tag: int) -> Action | None:
        """What the profile does with the attribute; None where it keeps it."""
        found = self.single.get(tag)
        return found or next((action for base, mask, action in self.repeating if tag & mask == base), None)


@cache
def basic_profile() -> Profile:
    """The basic profile of the edition."""
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

    table = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    single: dict[int, Action] = {}
    repeating = []
    for category, action in _CATEGORIES.items():
        for group, element, *masks in table[category]:
            tag = group << 16 | element
            if masks:
                repeating.append((tag, masks[0] << 16 | masks[1], action))
            else:
                single[tag] = action
    return Profile(single, tuple(repeating))
