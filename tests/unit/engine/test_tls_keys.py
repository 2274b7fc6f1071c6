"""Which TLS key evidence has to be bound to: that of the newest connection under a site's name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from medfed.core.errors import Unattested
from medfed.engine.deployed.attesting import TlsKeys
from medfed.engine.deployed.folders import CoordinatorFolder

pytest.importorskip("nvflare", reason="the extra flare is not installed")


def certificate(name: str, key: Ed25519PrivateKey) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(days=1))
    return built.sign(key, None).public_bytes(Encoding.DER)


def digest(key: Ed25519PrivateKey) -> str:
    return sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


@pytest.fixture
def coordinator(tmp_path: Path) -> CoordinatorFolder:
    (tmp_path / "flare" / "server").mkdir(parents=True)
    (tmp_path / "consortium.yaml").write_text("")
    return CoordinatorFolder.open(tmp_path)


def test_the_newest_connection_counts(coordinator: CoordinatorFolder) -> None:
    from medfed.engine.flare.tlskeys import coordinator_tls, note_connection

    place, keys = coordinator.path / "flare" / "server" / "connections", [Ed25519PrivateKey.generate() for _ in "ab"]
    for key in keys:
        note_connection(place, certificate("north", key))
        assert coordinator_tls(coordinator).peer("north") == digest(key)


def test_connections_of_one_site_at_the_same_moment_are_all_noted(coordinator: CoordinatorFolder) -> None:
    """A site's client and its process for a job lose the server together, and dial together."""
    from medfed.engine.flare.tlskeys import coordinator_tls, note_connection

    place, key = coordinator.path / "flare" / "server" / "connections", Ed25519PrivateKey.generate()
    shown = certificate("north", key)
    with ThreadPoolExecutor(8) as dialling:
        for noted in [dialling.submit(note_connection, place, shown) for _ in range(2000)]:
            noted.result()
    assert coordinator_tls(coordinator).peer("north") == digest(key)


@pytest.mark.parametrize("name", ["../north", "", "a/b", "."])
def test_a_name_that_would_be_a_path_is_not_noted(coordinator: CoordinatorFolder, name: str) -> None:
    from medfed.engine.flare.tlskeys import note_connection

    place = coordinator.path / "flare" / "server" / "connections"
    note_connection(place, certificate(name or " ", Ed25519PrivateKey.generate()))
    assert not place.exists() or not list(place.iterdir())


def test_a_site_that_never_connected_has_no_key(coordinator: CoordinatorFolder) -> None:
    from medfed.engine.flare.tlskeys import coordinator_tls

    with pytest.raises(Unattested, match="not known"):
        coordinator_tls(coordinator).peer("north")
    with pytest.raises(Unattested, match="not known"):
        TlsKeys().own()
