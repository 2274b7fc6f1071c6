"""What was done to how many attributes; it never holds a value."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field


class Deed(enum.StrEnum):
    """What became of an attribute."""

    KEPT = "kept"
    REPLACED = "replaced"
    MAPPED = "uids_replaced"
    SHIFTED = "dates_shifted"
    EMPTIED = "emptied"
    REMOVED = "removed"
    PRIVATE = "private_removed"
    UNKNOWN = "texts_removed"

    @property
    def leaves_one(self) -> bool:
        """Whether the attribute is in the copy."""
        return self not in (Deed.REMOVED, Deed.PRIVATE, Deed.UNKNOWN)


@dataclass
class Tally:
    """Counts of attributes by deed, and of texts that were removed for their words, by attribute."""

    deeds: Counter[Deed] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)

    def count(self, deed: Deed, keyword: str) -> None:
        """Count one attribute."""
        self.deeds[deed] += 1
        if deed is Deed.UNKNOWN:
            self.texts[keyword] += 1
