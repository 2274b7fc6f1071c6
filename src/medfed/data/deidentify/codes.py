"""Coded concepts: a code stays where its scheme knows it, and its meaning is written anew from the scheme."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@cache
def _meanings() -> dict[tuple[str, str], str]:
    """(scheme, code) → meaning, over the context groups of PS3.16 as pydicom carries them."""
    from pydicom.sr import _concepts_dict
    from pydicom.sr._snomed_dict import mapping

    concepts: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = _concepts_dict.concepts  # type: ignore[assignment]
    found = {
        (scheme, code): meaning
        for scheme, by_keyword in concepts.items()
        for by_code in by_keyword.values()
        for code, (meaning, _) in by_code.items()
    }
    retired = {("SRT", old): found[("SCT", new)] for old, new in mapping["SRT"].items() if ("SCT", new) in found}
    return found | retired


CODE_FIELDS = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


def known_code(item: Dataset) -> tuple[str, str, str] | None:
    """(value, scheme, meaning) of an item that holds a code of the standard's own context groups; else None."""
    try:
        value, scheme = item.get("CodeValue"), item.get("CodingSchemeDesignator")
    except Exception:  # damaged, and so not known
        return None
    if not isinstance(value, str) or not isinstance(scheme, str):
        return None
    meaning = _meanings().get((scheme, value))
    return (value, scheme, meaning) if meaning is not None else None
