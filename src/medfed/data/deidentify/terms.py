"""The words that a short text may have in a copy: defined terms of the standard."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_PARTS = re.compile(r"[_/\-]+")


@cache
def _terms() -> frozenset[str]:
    lines = files(__package__).joinpath("terms.txt").read_text(encoding="ascii").splitlines()
    words = {word for line in lines if not line.startswith("#") for word in line.split()}
    parts = {part for word in words for part in _PARTS.split(word) if not part.isdigit()}
    return frozenset(words | parts)


def is_term(text: str) -> bool:
    """Whether every word of a text is a defined term's, in whatever case."""
    terms = _terms()
    return all(
        word in terms or all(part in terms for part in _PARTS.split(word) if part)
        for word in text.strip(" \0").upper().split()
    )
