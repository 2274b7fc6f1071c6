"""How parts are put together before they are hashed."""

from __future__ import annotations


def framed(*parts: bytes) -> bytes:
    """Parts, each after its length, so that no two sequences of parts give the same bytes."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
