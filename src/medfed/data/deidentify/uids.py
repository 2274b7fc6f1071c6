"""New UIDs for old: keyed, and so the same in every file, reference and run of one site."""

from __future__ import annotations

from medfed.data.deidentify.secret import Secret

_VERSION, _VARIANT = 0x8 << 76, 0b10 << 62
_FREE = ~((0xF << 76) | (0b11 << 62)) & ((1 << 128) - 1)


def new_uid(secret: Secret, uid: str) -> str:
    """A UUID-derived UID (PS3.5, B.2): ``2.25.`` and a UUID of version 8 (RFC 9562) in decimal.

    Its 122 bits are of HMAC-SHA-256 over the old UID: without the key, the old one cannot be found by trying.
    """
    bits = int.from_bytes(secret.mac("uid", uid)[:16], "big")
    return f"2.25.{(bits & _FREE) | _VERSION | _VARIANT}"


def is_standard(uid: str) -> bool:
    """Whether the UID is one of PS3.6, annex A (a SOP class, a transfer syntax, …), which name no patient."""
    from pydicom.uid import UID

    return UID(uid).type != ""
