"""``--set key.path=value``: single values written over a task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from medfed.core.errors import TaskError
from medfed.spec.document import Document, Keys, dotted, read_value
from medfed.spec.problems import show

_FORM = "write --set key.path=value, for example: --set federation.lr=0.01"
_SEGMENT = r'(?:"[^"]+"|[^".=]+)'
_ASSIGNMENT = re.compile(rf"\s*({_SEGMENT}(?:\.{_SEGMENT})*)=(.*)", re.DOTALL)


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """The document with each override written over it, in order.

    A name with dots in it is quoted: ``sites."St. Mary".data=mary.csv``. Raises TaskError naming ``--set``.
    """
    for override in overrides:
        document = _with_override(document, override)
    return document


def _with_override(document: Document, override: str) -> Document:
    where = f"--set {override}"
    match = _ASSIGNMENT.fullmatch(override)
    if match is None:
        raise TaskError("this is not of the form key.path=value", where=where, remedy=_FORM)
    keys = tuple(part.strip('"').strip() for part in re.findall(_SEGMENT, match[1]))
    if not match[2].strip():
        raise TaskError(
            f"no value is given for `{dotted(keys)}`", where=where, remedy=f"{_FORM}; `null` stands for none"
        )
    data = _written(document.data, keys, 0, read_value(match[2], where), where)
    kept = {path: place for path, place in document.places.items() if path[: len(keys)] != keys}
    made = {keys[:depth]: where for depth in range(1, len(keys) + 1) if keys[:depth] not in kept}
    return replace(document, data=data, places={**kept, **made})


def _written(section: Any, keys: Keys, depth: int, value: Any, where: str) -> Any:
    """``section``, which stands at ``keys[:depth]``, with the value below it; the original stays as it is."""
    if depth == len(keys):
        return value
    if isinstance(section, str):
        section = {_shorthand(keys[:depth]): section}
    if section is not None and not isinstance(section, dict):
        raise TaskError(
            f"`{dotted(keys[:depth])}` is {show(section)}, so nothing can be set below it",
            where=where,
            remedy=f"set it as a whole: --set '{dotted(keys[:depth])}=…'",
        )
    key, below = keys[depth], section or {}
    return {**below, key: _written(below.get(key), keys, depth + 1, value, where)}


def _shorthand(keys: Keys) -> str:
    """The key that a plain text at this path stands for: ``model: mlp`` is ``model: {name: mlp}``."""
    match keys:
        case ("data", "label"):
            return "column"
        case ("data", "columns", _):
            return "type"
        case ("sites", _):
            return "data"
        case _:
            return "name"
