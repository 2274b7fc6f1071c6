"""Whether a site's answer is one that a site's own software could give: what is not, fails the site and nobody else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medfed.core.errors import CodecError
from medfed.core.messages import Message, additive_fields, field_names, out_of_bounds
from medfed.core.steps import Release, installed_step
from medfed.core.wire import Reply, Request
from medfed.engine.compression.compressed import Compressed
from medfed.engine.hiding import PHASES

_LONGEST_TEXT = 2_000
_MOST_ITEMS = 100_000
_MOST_VERSIONS = 2**62


def check_plausible(request: Request, reply: Reply, *, noisy: bool = False) -> None:
    """Raise CodecError for a sum that is not finite, beyond its bounds or of negative counts, for a message of numbers
    that are not finite or texts that nobody could print, and for an impossible version.

    noisy: whether sites add noise to counts, which may then be below zero."""
    if not 0 <= reply.version < _MOST_VERSIONS:
        raise CodecError("its memory has no such version")
    if isinstance(request.message, PHASES):  # which the protocol checks itself, as far as can be seen
        return
    step, body = installed_step(request.step), reply.body
    if isinstance(body, Compressed):  # whose updates are looked at when they are expanded
        body = body.content
    if not isinstance(body, step.reply):
        return
    if step.releases is Release.SUM:
        if (name := out_of_bounds(body)) is not None:
            raise CodecError(f"its {name!r} is not finite or exceeds the declared bound")
        if not noisy and (name := _negative_count(body)) is not None:
            raise CodecError(f"its {name!r} is a count below zero")
    elif not _printable(body):
        raise CodecError("its answer has a number that is not finite, or is too long or not printable")


def brief(text: str, most: int = 500) -> str:
    """A site's text as it may be shown and kept: so many characters at most, all of them printable."""
    return "".join(c if c.isprintable() else " " for c in text[:most])


def _negative_count(body: Message) -> str | None:
    """The first field of whole numbers below zero: all such are counts, and one site's would cancel the others'."""
    for name in additive_fields(type(body)):
        value = np.asarray(getattr(body, name))
        if value.dtype.kind in "iu" and value.size and value.min() < 0:
            return name
    return None


def _printable(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case int():
            return abs(value) < 2**63
        case str():
            return len(value) <= _LONGEST_TEXT and value.isprintable()
        case np.ndarray():
            return value.size <= _MOST_ITEMS and bool(np.isfinite(value).all())
        case tuple():
            return len(value) <= _MOST_ITEMS and all(map(_printable, value))
        case Message():
            return all(_printable(getattr(value, name)) for name in field_names(type(value)))
    return True
