"""What the processes of one job write to each other."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.core.messages import Message


@dataclass(frozen=True, eq=False)
class Letter(Message, wire="flare.letter"):
    """A question to a site, or its answer. number: of the question; the answer has the same.

    content: the encoded message; empty where that is large: then it is to be fetched, by its name (reference) and of
    so many bytes (size).
    """

    number: str
    content: bytes
    reference: str = ""
    size: int = 0


@dataclass(frozen=True, eq=False)
class Wanted(Message, wire="flare.wanted"):
    """That the rest of a large message is awaited, from a position on. attempt: tells late streams from the newest."""

    reference: str
    position: int
    attempt: int
