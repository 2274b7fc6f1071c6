"""Two parties of a set intersection, and the phases of a session between them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medfed.core.codec import decode, encode
from medfed.core.messages import Message
from medfed.privacy.psi import Cardinality, Matches, Party, Sizes, Terms, Witness

KEY = bytes(range(32))
SIGNING = {name: Ed25519PrivateKey.generate() for name in ("north", "south")}
OTHER = {"north": "south", "south": "north"}


@dataclass
class Claims:
    """Sessions that were claimed, as a ledger would remember them."""

    used: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, project: str, session: str) -> bool:
        fresh = (project, session) not in self.used
        self.used.add((project, session))
        return fresh


def verifier(name: str) -> Any:
    def verify(signature: bytes, message: bytes) -> bool:
        try:
            SIGNING[name].public_key().verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify


def party(name: str, identifiers: Sequence[str | None], *, claims: Claims | None = None, **changes: Any) -> Party:
    """A party under terms that allow small sets, but for what is changed."""
    progress = changes.pop("progress", None)
    terms: dict[str, Any] = {
        "project": "lungs",
        "session": "one",
        "party": name,
        "peer": OTHER[name],
        "key": KEY,
        "own": Sizes(1, 1000),
        "others": Sizes(1, 1000),
        "least_common": 1,
        "drop_missing": True,
    } | changes
    witness = Witness(SIGNING[name].sign, verifier(OTHER[name]), claims or Claims())
    return Party(Terms(**terms), identifiers, witness, progress)


def pair(first: Sequence[str | None], second: Sequence[str | None], **changes: Any) -> tuple[Party, Party]:
    changes.setdefault("session", secrets.token_hex(8))
    return party("north", first, **changes), party("south", second, **changes)


PHASES = ("commit", "blind", "pledge", "reply", "count", "agree", "order", "match")


def carried(message: Any) -> Any:
    """A message as the peer decodes it."""
    return decode(encode(message), type(message)) if isinstance(message, Message) else message


def advance(north: Party, south: Party, until: str, seen: list[Any] | None = None) -> tuple[Any, Any]:
    """Run all phases up to and including ``until``; what it gave at both. ``seen`` gets all messages."""
    results: tuple[Any, Any] = (None, None)
    for phase in PHASES[: PHASES.index(until) + 1]:
        if phase in ("commit", "agree"):
            if phase == "agree":
                assert all(isinstance(result, Cardinality) for result in results)
            results = getattr(north, phase)(), getattr(south, phase)()
        else:
            to_south, to_north = map(carried, results)
            results = getattr(north, phase)(to_north), getattr(south, phase)(to_south)
        if seen is not None:
            seen += results
    return results


def intersect(first: Sequence[str | None], second: Sequence[str | None], **changes: Any) -> tuple[Matches, Matches]:
    return advance(*pair(first, second, **changes), "match")
