"""The invitation: what a hospital must know before it can ask to take part; nothing in it is secret."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from medfed.core.errors import UserError
from medfed.core.files import write_atomically
from medfed.engine.flare.certificates import key_fingerprint
from medfed.govern.keys import VerifyKey

_LARGEST = 1 << 16
_SHAPES = {
    "consortium": r"[^\x00-\x1f\x7f]{1,64}",
    "site": r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}",
    "contact": r"[^\x00-\x1f\x7f]{0,500}",
    "host": r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?",
    "root": r"[0-9a-f]{64}",
    "coordinator_key": r"[\x20-\x7e\n]{1,1000}",
    "coordinator_fingerprint": r"[0-9a-f]{64}",
}


@dataclass(frozen=True)
class Invitation:
    """An invitation of one site.

    host, port: where the coordinator's server listens. root: SHA-256 of the consortium's root certificate.
    coordinator_key: the coordinator's Ed25519 key in PEM. coordinator_fingerprint: SHA-256 of that key.
    """

    consortium: str
    site: str
    contact: str
    host: str
    port: int
    root: str
    coordinator_key: str
    coordinator_fingerprint: str

    def key(self) -> VerifyKey:
        """The coordinator's key. Raises UserError where it is none, or not the one of the fingerprint."""
        try:
            found = load_pem_public_key(self.coordinator_key.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UserError("the invitation's coordinator_key is not a public key in PEM") from error
        if not isinstance(found, Ed25519PublicKey):
            raise UserError("the invitation's coordinator_key is not an Ed25519 key")
        key = VerifyKey(found.public_bytes_raw())
        if key_fingerprint(key) != self.coordinator_fingerprint:
            raise UserError("the invitation's coordinator_key is not the one of its coordinator_fingerprint")
        return key

    def write(self, path: Path) -> None:
        """Write the invitation as JSON."""
        write_atomically(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", mode=0o644)


def read_invitation(path: Path) -> Invitation:
    """Read an invitation and check all of it. Raises UserError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"the invitation cannot be read ({error.strerror})", where=str(path)) from error
    try:
        invitation = _checked(raw)
        invitation.key()
    except UserError as error:
        raise UserError(
            error.cause, where=str(path), remedy="ask the coordinator to send the invitation again"
        ) from error
    return invitation


def _checked(raw: bytes) -> Invitation:
    try:
        content = json.loads(raw) if len(raw) <= _LARGEST else None
    except ValueError:
        content = None
    expected = set(_SHAPES) | {"port"}
    if not isinstance(content, dict) or set(content) != expected:
        raise UserError("this is not an invitation of MedFed")
    for name, shape in _SHAPES.items():
        if not isinstance(content[name], str) or not re.fullmatch(shape, content[name]):
            raise UserError(f"the invitation's {name} is malformed")
    port = content["port"]
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 1 << 16:
        raise UserError("the invitation's port is malformed")
    return Invitation(**content)
