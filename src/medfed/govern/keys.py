"""Ed25519 keys (RFC 8032) of the parties, kept outside every run folder: trust comes from there."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from medfed.core.errors import UserError
from medfed.core.files import write_once


@dataclass(frozen=True)
class VerifyKey:
    """A public key: 32 raw bytes."""

    raw: bytes

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key signed the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        """The key as a PEM file's content."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class SigningKey:
    """A private key; it is never printed."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of the message."""
        return self._private.sign(message)

    def pem(self) -> bytes:
        """The key as an unencrypted PEM file's content."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def home() -> Path:
    """The folder of keys and trust: ``$MEDFED_HOME``, or ``medfed`` in the XDG configuration directory."""
    chosen = os.environ.get("MEDFED_HOME")
    if chosen:
        return Path(chosen)
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".config") / "medfed"


def load_or_create_key(folder: Path, party: str) -> SigningKey:
    """The party's key ``<folder>/<party>.key``, made at the first call, with ``<party>.pub`` beside it.

    Two processes that call at once get the same key. Raises UserError where others may read the private key,
    where it is no Ed25519 key, or where the public file beside it belongs to another; RunFolderError or
    UserError where the folder cannot be written.
    """
    private, public = folder / f"{party}.key", folder / f"{party}.pub"
    if not private.exists():
        write_once(private, SigningKey.generate().pem(), mode=0o600)
    key = _read_private_key(private)
    if not public.exists():
        write_once(public, key.verify_key.pem(), mode=0o644)
    if read_public_key(public) != key.verify_key:
        raise UserError(
            "the public key does not belong to the private key beside it",
            where=str(public),
            remedy=f"find out who replaced one of them; ledgers signed before need the old {public.name}",
        )
    return key


def read_public_key(path: Path) -> VerifyKey:
    """The public key of a PEM file. Raises UserError where there is none."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise UserError(f"the public key cannot be read ({error.strerror})", where=str(path)) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError("this is not a public key in PEM", where=str(path)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError("this is not an Ed25519 public key", where=str(path))
    return VerifyKey(key.public_bytes_raw())


def _read_private_key(path: Path) -> SigningKey:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UserError(
                "others than its owner may use this private key", where=str(path), remedy=f"chmod 600 {path}"
            )
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise UserError(f"the private key cannot be read ({error.strerror})", where=str(path)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError("this is not a private key in PEM without a password", where=str(path)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError("this is not an Ed25519 private key", where=str(path))
    return SigningKey(key)
