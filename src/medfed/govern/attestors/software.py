"""Evidence by software alone: what a machine says of itself, signed by the party's own key.

It shows that parties run the build they agreed on, as long as they are honest: nothing else runs by oversight. A
machine whose owner wants to lie states any measurement, for nothing but its own word stands behind it. No hardware has
a part in it, and the token says so by its kind.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medfed.core.errors import Unattested
from medfed.core.protocols import Claim
from medfed.version import __version__

_SIGNED = b"medfed attestation by software 1\0"
_FIELDS = {"kind", "measurement", "nonce", "party", "time", "tls_key"}
_PACKAGES = ("cryptography", "numpy", "nvflare", "torch")
_LONGEST = 10_000


class Attestor:
    """The kind ``software`` (implements :class:`medfed.core.protocols.Attestor`)."""

    def generate(self, claim: Claim, sign: Callable[[bytes], bytes]) -> bytes:
        """This build's measurement, bound to the claim."""
        told = {
            "kind": "software",
            "measurement": measured(),
            "nonce": claim.nonce,
            "party": claim.party,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "tls_key": claim.tls_key,
        }
        statement = json.dumps(told, sort_keys=True)
        return json.dumps({"statement": statement, "signature": sign(_SIGNED + statement.encode()).hex()}).encode()

    def verify(self, token: bytes, claim: Claim, verifies: Callable[[bytes, bytes], bool]) -> str:
        """As :meth:`medfed.core.protocols.Attestor.verify`. Its time is told, and nobody's clock decides."""
        statement, signature = _opened(token)
        if not verifies(signature, _SIGNED + statement.encode("utf-8", "surrogatepass")):
            raise Unattested("the evidence is not signed by this party's key")
        told = _read(statement)
        if told["kind"] != "software":
            raise Unattested("the evidence is of another kind than it came as")
        if told["party"] != claim.party:
            raise Unattested("the evidence is of another party")
        if told["nonce"] != claim.nonce:
            raise Unattested("the evidence is not fresh: it answers another question than was asked")
        if told["tls_key"] != claim.tls_key:
            raise Unattested("the evidence is bound to another TLS key than that of the connection")
        return told["measurement"]


def measured(package: Path | None = None) -> str:
    """SHA-256, in hex, over a package's files by sorted path, and over the versions of it and of what it computes with.

    package: its folder; MedFed's own if absent. Each path and each content comes after its length. Caches of compiled
    code have no part in it.
    """
    root = Path(__file__).parents[2] if package is None else package
    digest = hashlib.sha256(b"medfed measurement 1\0")
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    for name in sorted(each for each in files if "__pycache__" not in each.split("/")):
        for content in (name.encode(), files[name].read_bytes()):
            digest.update(len(content).to_bytes(8, "big") + content)
    versions = [f"python {platform.python_version()}", f"medfed {__version__}"]
    versions += [f"{name} {_version(name)}" for name in _PACKAGES]
    digest.update("\n".join(versions).encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _opened(token: bytes) -> tuple[str, bytes]:
    """The statement and its signature."""
    try:
        if len(token) > _LONGEST:
            raise ValueError
        found = json.loads(token)
        statement, signature = found["statement"], bytes.fromhex(found["signature"])
        if not isinstance(statement, str):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Unattested("what came is no evidence of the kind software") from None
    return statement, signature


def _read(statement: str) -> dict[str, str]:
    try:
        told = json.loads(statement)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.keys() != _FIELDS or not all(type(each) is str for each in told.values()):
        raise Unattested("what came is no evidence of the kind software")
    return told
