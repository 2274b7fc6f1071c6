"""Whose frames the server's doorkeeper lets pass, and that it never drops a frame without ending the connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nvflare", reason="the extra flare is not installed")

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from medfed.core.errors import RunFolderError
from medfed.engine.flare import doorkeeper
from medfed.engine.flare.doorkeeper import Doorkeeper
from medfed.engine.flare.revocation import create_revocations


class Connection:
    """A connection that shows a certificate."""

    def __init__(self, certificate: bytes = b"a certificate") -> None:
        self.sock = SimpleNamespace(getpeercert=lambda binary_form: certificate)
        self.is_open = True

    def close(self) -> None:
        self.is_open = False


class Server:
    """Of FLARE's server, what a doorkeeper stands before: its frames."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.manager = SimpleNamespace(process_frame=lambda line, frame: self.frames.append(frame))
        communicator = SimpleNamespace(conn_manager=self.manager)
        core_cell = SimpleNamespace(communicator=communicator, add_incoming_filter=lambda **given: None)
        self.cell = SimpleNamespace(core_cell=core_cell)
        self.client_manager = SimpleNamespace(authenticate=lambda request, context: None)

    def receive(self, connection: Connection, frame: bytes) -> None:
        self.manager.process_frame(SimpleNamespace(conn=connection), frame)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    for change in ("refuse_large_frames", "greet_each_by_itself"):
        monkeypatch.setattr(doorkeeper, change, lambda: None)
    create_revocations(tmp_path / "revoked.json")
    context, found = FLContext(), Server()
    context.set_prop(FLContextKey.SITE_OBJ, found)
    keeper = Doorkeeper(str(tmp_path / "revoked.json"), str(tmp_path / "connections"))
    keeper.handle_event(EventType.SYSTEM_BOOTSTRAP, context)
    return found


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Lets connections be noted in another way."""
    return lambda note: monkeypatch.setattr(doorkeeper, "note_connection", note)


def test_a_connection_is_noted_at_its_first_frame(server: Server, noting: Callable[[Any], None]) -> None:
    noted: list[bytes] = []
    noting(lambda place, certificate: noted.append(certificate))
    line = Connection()
    for frame in (b"hello", b"more"):
        server.receive(line, frame)
    assert (server.frames, noted, line.is_open) == ([b"hello", b"more"], [b"a certificate"], True)


@pytest.mark.parametrize("fault", [RunFolderError("the disk is full"), OSError("closed"), KeyError("anything")])
def test_a_connection_that_cannot_be_noted_is_closed_so_that_its_client_dials_again(
    server: Server, noting: Callable[[Any], None], fault: Exception
) -> None:
    def fail(place: Path, certificate: bytes) -> None:
        raise fault

    noting(fail)
    line = Connection()
    server.receive(line, b"hello")
    assert (server.frames, line.is_open) == ([], False)

    noting(lambda place, certificate: None)
    server.receive(Connection(), b"hello again")
    assert server.frames == [b"hello again"]


def test_nobody_passes_while_the_list_of_the_revoked_cannot_be_read(server: Server, tmp_path: Path) -> None:
    (tmp_path / "revoked.json").write_text("{")
    line = Connection()
    server.receive(line, b"hello")
    assert (server.frames, line.is_open) == ([], False)
