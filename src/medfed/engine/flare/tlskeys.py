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
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
_noting = threading.Lock()
"""Held while a connection is noted: a site's client and its process for a job dial at the same moments."""

_PATIENCE = 10.0
_VERDICT = 2.0
_UNREACHED = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError)


def note_connection(place: Path, certificate: bytes) -> None:
    """Note the key of a certificate (DER) that a connection was opened with, under its name: the newest counts."""
    found = x509.load_der_x509_certificate(certificate)
    name = common_name(found.subject)
    if _NAME.fullmatch(name):
        with _noting:
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
    """Whether the coordinator takes a connection of its own under the certificate of the site's client."""
    try:
        with _dialled(folder.flare / "startup") as connection:
            return _is_kept(connection)
    except _UNREACHED:
        return False


def _own(certificate: Path) -> str:
    return sha256(read_certificate(certificate.read_bytes()).public_key).hexdigest()


def _shown_at(startup: Path, party: str) -> str:
    """The key that answers under the coordinator's address, by a certificate of the consortium's root."""
    try:
        with _dialled(startup) as connection:
            certificate = connection.getpeercert(binary_form=True) or b""
        return _digest(x509.load_der_x509_certificate(certificate))
    except _UNREACHED as error:
        raise Unattested("the TLS key of its connection cannot be seen", where=party) from error


@contextmanager
def _dialled(startup: Path) -> Iterator[ssl.SSLSocket]:
    """A connection to the address that the site's client dials, by IPv4 as FLARE does. Raises those of _UNREACHED."""
    target = json.loads((startup / "fed_client.json").read_text())["servers"][0]["service"]["target"]
    host, _, port = target.rpartition(":")
    context = ssl.create_default_context(cafile=str(startup / "rootCA.pem"))
    context.check_hostname = False  # the root signs for this consortium alone
    context.load_cert_chain(startup / "client.crt", startup / "client.key")
    with socket.socket(socket.AF_INET) as plain:
        plain.settimeout(_PATIENCE)
        plain.connect((host, int(port)))
        with context.wrap_socket(plain) as connection:
            yield connection


def _is_kept(connection: ssl.SSLSocket) -> bool:
    """Whether the server lets a connection be: by TLS 1.3 it judges a client's certificate after the handshake."""
    connection.settimeout(_VERDICT)
    try:
        return connection.recv(1) != b""
    except TimeoutError:  # it has nothing to say
        return True


def _digest(certificate: x509.Certificate) -> str:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(key).hexdigest()
