"""Which TLS keys the parties are connected by, for evidence to be bound to.

The coordinator has a site's from the server's own connections, whose certificates the server noted as they were shown.
A site's process for a job is connected by way of the site's FLARE client; it therefore looks itself, by a TLS
connection of its own, under its own certificate, to the address that the client dials.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from medfed.core.errors import Unattested
from medfed.core.files import write_atomically
from medfed.engine.deployed.attesting import TlsKeys
from medfed.engine.deployed.folders import CoordinatorFolder, SiteFolder
from medfed.engine.flare.certificates import common_name, read_certificate
from medfed.engine.flare.kits import server_workspace

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATIENCE = 10.0


def note_connection(place: Path, certificate: bytes) -> None:
    """Note the key of a certificate (DER) that a connection was opened with, under its name: the newest counts."""
    found = x509.load_der_x509_certificate(certificate)
    name = common_name(found.subject)
    if _NAME.fullmatch(name):
        place.mkdir(mode=0o700, exist_ok=True)
        write_atomically(place / name, _digest(found), durable=False, mode=0o600)


def coordinator_tls(folder: CoordinatorFolder) -> TlsKeys:
    """What the coordinator's processes know."""
    workspace = server_workspace(folder.path)

    def peer(site: str) -> str:
        try:
            noted = (workspace / "connections" / site).read_text()
        except OSError:
            noted = ""
        if not _DIGEST.fullmatch(noted):
            raise Unattested("the TLS key of its connection is not known", where=site)
        return noted

    return TlsKeys(lambda: _own(workspace / "startup" / "server.crt"), peer)


def site_tls(folder: SiteFolder) -> TlsKeys:
    """What a site's processes know."""
    startup = folder.flare / "startup"
    return TlsKeys(lambda: _own(startup / "client.crt"), lambda party: _shown_at(startup, party))


def reaches_coordinator(folder: SiteFolder) -> bool:
    """Whether the coordinator answers at the address that the site's client dials, by a connection of its own."""
    try:
        _shown_at(folder.flare / "startup", "coordinator")
    except Unattested:
        return False
    return True


def _own(certificate: Path) -> str:
    return sha256(read_certificate(certificate.read_bytes()).public_key).hexdigest()


def _shown_at(startup: Path, party: str) -> str:
    """The key that answers under the coordinator's address, by a certificate of the consortium's root."""
    try:
        target = json.loads((startup / "fed_client.json").read_text())["servers"][0]["service"]["target"]
        host, _, port = target.rpartition(":")
        context = ssl.create_default_context(cafile=str(startup / "rootCA.pem"))
        context.check_hostname = False  # the root signs for this consortium alone
        context.load_cert_chain(startup / "client.crt", startup / "client.key")
        with socket.create_connection((host, int(port)), _PATIENCE) as plain, context.wrap_socket(plain) as connection:
            certificate = connection.getpeercert(binary_form=True) or b""
        return _digest(x509.load_der_x509_certificate(certificate))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Unattested("the TLS key of its connection cannot be seen", where=party) from error


def _digest(certificate: x509.Certificate) -> str:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(key).hexdigest()
