"""Fingerprints and certificates, as people compare them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from medfed.core.errors import UserError
from medfed.govern.keys import VerifyKey


def spoken(fingerprint: str) -> str:
    """A fingerprint in groups of four, to be read over the telephone."""
    return " ".join(fingerprint[start : start + 4] for start in range(0, len(fingerprint), 4))


def heard(fingerprint: str) -> str:
    """A fingerprint as somebody typed it: spaces, colons, hyphens and case do not matter."""
    return re.sub(r"[\s:-]", "", fingerprint).lower().removeprefix("sha256")


def key_fingerprint(key: VerifyKey) -> str:
    """SHA-256 of the raw Ed25519 key, in hexadecimal."""
    return hashlib.sha256(key.raw).hexdigest()


@dataclass(frozen=True)
class Certificate:
    """What is told of a certificate.

    name: its common name. fingerprint: SHA-256 of its DER. public_key: its key's DER.
    """

    name: str
    fingerprint: str
    serial: str
    ends: datetime
    public_key: bytes


def read_certificate(pem: bytes) -> Certificate:
    """Raises UserError where it is no X.509 certificate in PEM."""
    try:
        found = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise UserError("this is not a certificate in PEM") from error
    return Certificate(
        common_name(found.subject),
        found.fingerprint(SHA256()).hex(),
        f"{found.serial_number:x}",
        found.not_valid_after_utc,
        found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


def common_name(subject: x509.Name) -> str:
    """The one common name of a subject, or nothing where there is none or more than one."""
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""
