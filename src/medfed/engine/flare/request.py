"""What a site sends to be admitted: FLARE's certificate request and the site's Ed25519 key, signed by that key."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from medfed.core.errors import UserError
from medfed.core.files import write_atomically
from medfed.engine.flare.certificates import common_name
from medfed.govern.keys import SigningKey, VerifyKey

_DOMAIN = b"medfed request for admission 1\n"
_CERTIFICATE_REQUEST, _KEY, _SIGNATURE = "certificate.request.zip", "site.key.raw", "signature"
_LARGEST = 1 << 16
_LEAST_BITS = 2048


@dataclass(frozen=True)
class AdmissionRequest:
    """A request that is well formed and signed; whether the right people sent it, the telephone tells.

    certificate_request: FLARE's zip. public_key: DER of the key for which it asks a certificate.
    key: the site's Ed25519 key.
    """

    site: str
    certificate_request: bytes
    public_key: bytes
    key: VerifyKey

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both public keys, in hexadecimal."""
        return hashlib.sha256(self.public_key + self.key.raw).hexdigest()


def write_request(path: Path, certificate_request: bytes, root: str, key: SigningKey) -> AdmissionRequest:
    """Write the zip that travels; root: the fingerprint of the consortium's root certificate."""
    request = _understood(certificate_request, key.verify_key)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as file:
        file.writestr(_CERTIFICATE_REQUEST, certificate_request)
        file.writestr(_KEY, key.verify_key.raw)
        file.writestr(_SIGNATURE, key.sign(_signed(certificate_request, root)))
    write_atomically(path, whole.getvalue(), mode=0o644)
    return request


def read_request(path: Path, root: str) -> AdmissionRequest:
    """Read a request and check all of it. Raises UserError; nothing is unpacked to the disk."""
    try:
        parts = zip_members(regular_file(path), {_CERTIFICATE_REQUEST, _KEY, _SIGNATURE})
        key = VerifyKey(parts[_KEY])
        if len(key.raw) != 32 or not key.verifies(parts[_SIGNATURE], _signed(parts[_CERTIFICATE_REQUEST], root)):
            raise UserError("the request is not signed by the key that it brings, for this consortium")
        return _understood(parts[_CERTIFICATE_REQUEST], key)
    except UserError as error:
        raise UserError(
            error.cause, where=str(path), remedy="ask the site for its request: medfed site init or medfed site renew"
        ) from error


def regular_file(path: Path) -> bytes:
    """The content of a small file that is no link. Raises UserError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError("this is not a file")
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"the file cannot be read, or is a link ({error.strerror})") from error
    if len(content) > _LARGEST:
        raise UserError("the file is larger than a request or an answer can be")
    return content


def zip_members(content: bytes, names: set[str]) -> dict[str, bytes]:
    """The members of a zip that has just these, each small. Raises UserError for any other."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            found = file.infolist()
            if sorted(each.filename for each in found) != sorted(names):
                raise UserError("the zip does not hold just what it should")
            if any(stat.S_ISLNK(each.external_attr >> 16) or each.file_size > _LARGEST for each in found):
                raise UserError("the zip holds a link, or more than it should")
            return {each.filename: _member(file, each) for each in found}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError("this is not a zip that MedFed has written") from error


def _member(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with file.open(member) as opened:
        content = opened.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise UserError("the zip holds more than it says")
    return content


def _signed(certificate_request: bytes, root: str) -> bytes:
    return _DOMAIN + bytes.fromhex(root) + hashlib.sha256(certificate_request).digest()


def _understood(certificate_request: bytes, key: VerifyKey) -> AdmissionRequest:
    """What the certificate request asks for: the certificate of a site, and of no other kind of participant."""
    name = _site_named(certificate_request)
    request = zip_members(certificate_request, {"request.json", "site.yaml", f"{name}.csr"})
    asked = json.loads(request["request.json"])
    if (asked.get("kind"), asked.get("cert_type"), asked.get("cert_role")) != ("site", "client", None):
        raise UserError("the request asks for another certificate than a site's")
    try:
        csr = x509.load_pem_x509_csr(request[f"{name}.csr"])
        public = csr.public_key()
        sound = csr.is_signature_valid and common_name(csr.subject) == name
    except (ValueError, TypeError) as error:
        raise UserError("the certificate request is damaged") from error
    if not sound or not isinstance(public, RSAPublicKey) or public.key_size < _LEAST_BITS:
        raise UserError("the certificate request is not the site's own, or its key is too weak")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return AdmissionRequest(name, certificate_request, der, key)


def _site_named(certificate_request: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(certificate_request)) as file:
            member = file.getinfo("request.json")
            asked = json.loads(_member(file, member))
        return str(asked["name"])
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
    ):
        raise UserError("the certificate request is damaged") from None
