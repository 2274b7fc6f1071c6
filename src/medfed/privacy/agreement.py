"""Keys between two sites that never meet: X25519 (RFC 7748), HKDF-SHA-256 (RFC 5869), AES-256-GCM, signed by identity.

Every key here is made for one sum and forgotten with it. What is signed or derived names its use, the session and the
parties, so that nothing said in one place means anything in another.
"""

from __future__ import annotations

import secrets
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from medfed.privacy import framing

KEY_BYTES = 32
_NONCE_BYTES = 12


class Signs(Protocol):
    """A party's identity key."""

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        ...


class Verifies(Protocol):
    """The public half of a party's identity key."""

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether its owner signed the message."""
        ...


def framed(use: str, *parts: bytes) -> bytes:
    """Bytes that are signed or authenticated for one use, so that no two uses, or lists of parts, give the same."""
    return framing.framed(f"medfed secagg {use}".encode(), *parts)


def agreed_secret(private: X25519PrivateKey, public: bytes) -> bytes:
    """The shared secret of 32 bytes. Raises ValueError for a public key that is none, or of low order."""
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def is_key(public: bytes) -> bool:
    """Whether secrets can be agreed on with a public key: it has 32 bytes, and is not of low order."""
    try:
        agreed_secret(X25519PrivateKey.generate(), public)
    except ValueError:
        return False
    return True


def derived(secret: bytes, info: bytes) -> bytes:
    """A key of 32 bytes for one use (HKDF without salt)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def sealed(key: bytes, content: bytes, about: bytes) -> bytes:
    """A content that only who has the key can read; ``about`` goes with it in the clear and cannot be changed."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, about)


def opened(key: bytes, box: bytes, about: bytes) -> bytes | None:
    """The content of a box; None where it was made with another key, or for something else, or was changed."""
    try:
        return AESGCM(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], about)
    except (InvalidTag, ValueError):
        return None
