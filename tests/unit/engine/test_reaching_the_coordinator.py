"""Whether a site's service can reach its coordinator: against real TLS servers under real certificates."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("nvflare", reason="the extra flare is not installed")

from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.flare import tlskeys
from medfed.engine.flare.provisioning import make_consortium
from medfed.engine.flare.tlskeys import reaches_coordinator


@pytest.fixture(scope="module")
def consortia(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two that have nothing to do with each other."""
    first, second = (tmp_path_factory.mktemp("consortia") / name for name in ("first", "second"))
    for folder in (first, second):
        make_consortium(folder, ["north"])
    return first, second


@pytest.fixture
def site(consortia: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> SiteFolder:
    monkeypatch.setattr(tlskeys, "_VERDICT", 0.5)
    return SiteFolder.open(consortia[0] / "sites" / "north")


def dial(site: SiteFolder, port: object) -> None:
    """Let the site's client dial a port."""
    about = site.flare / "startup" / "fed_client.json"
    content = json.loads(about.read_text())
    content["servers"][0]["service"]["target"] = f"localhost:{port}"
    about.write_text(json.dumps(content))


@contextmanager
def server(consortium: Path, trusting: Path, then: Callable[[ssl.SSLSocket], object]) -> Iterator[int]:
    """A consortium's server, which takes the clients of one (``trusting``), and does something with each."""
    own = consortium / "coordinator" / "flare" / "server" / "startup"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trusting))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(own / "server.crt", own / "server.key")
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with suppress(OSError):
                plain, _ = listening.accept()
                with context.wrap_socket(plain, server_side=True) as line:
                    then(line)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        yield listening.getsockname()[1]
        ended.set()
        serving.join()


def root(consortium: Path) -> Path:
    return consortium / "coordinator" / "flare" / "server" / "startup" / "rootCA.pem"


def wait_for_the_end(line: ssl.SSLSocket) -> None:
    line.settimeout(5)
    line.recv(1)


def test_a_server_that_lets_the_connection_be_is_reached(consortia: tuple[Path, Path], site: SiteFolder) -> None:
    with server(consortia[0], root(consortia[0]), wait_for_the_end) as port:
        dial(site, port)
        assert reaches_coordinator(site)


def test_a_server_that_does_not_take_the_sites_certificate_is_not(
    consortia: tuple[Path, Path], site: SiteFolder
) -> None:
    """By TLS 1.3 the site's handshake has ended by then."""
    with server(consortia[0], root(consortia[1]), wait_for_the_end) as port:
        dial(site, port)
        assert not reaches_coordinator(site)


def test_a_server_that_closes_the_connection_is_not(consortia: tuple[Path, Path], site: SiteFolder) -> None:
    with server(consortia[0], root(consortia[0]), lambda line: None) as port:
        dial(site, port)
        assert not reaches_coordinator(site)


def test_another_consortiums_server_is_not(consortia: tuple[Path, Path], site: SiteFolder) -> None:
    with server(consortia[1], root(consortia[0]), wait_for_the_end) as port:
        dial(site, port)
        assert not reaches_coordinator(site)


@pytest.mark.parametrize("port", ["", "a", 1, 65536, -1])
def test_a_port_where_nobody_listens_or_that_is_none_is_not(site: SiteFolder, port: object) -> None:
    dial(site, port)
    assert not reaches_coordinator(site)


@pytest.mark.parametrize("content", ["", "{}", '{"servers": [{"service": {"target": null}}]}', "[1]"])
def test_a_damaged_kit_reaches_nobody(site: SiteFolder, content: str) -> None:
    about = site.flare / "startup" / "fed_client.json"
    whole = about.read_text()
    about.write_text(content)
    try:
        assert not reaches_coordinator(site)
    finally:
        about.write_text(whole)
